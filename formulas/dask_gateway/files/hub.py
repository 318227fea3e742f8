# Written by Salt (formulas/dask_gateway): people's tokens, and those of their servers, are good for Dask-Gateway too.
# As an OAuth client, it asks who wants to see a dashboard (qhub_dask/dashboards.py).
# mypy: disable-error-code=name-defined
import os
from pathlib import Path

dask = "access:services!service=dask-gateway"
c.JupyterHub.services.append(  # noqa: F821
    {
        "name": "dask-gateway",
        "api_token": Path(os.environ["CREDENTIALS_DIRECTORY"], "dask_gateway_token").read_text().strip(),
        "oauth_redirect_uri": f"{c.JupyterHub.public_url}gateway/dashboards/signed-in",  # noqa: F821
        "oauth_no_confirm": True,
    }
)
c.JupyterHub.load_roles += [  # noqa: F821
    {"name": "user", "scopes": ["self", dask]},
    {"name": "server", "scopes": ["users:activity!user", "access:servers!server", dask]},
]
