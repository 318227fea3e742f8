# Written by Salt (formulas/dask_gateway): people's tokens, and those of their servers, are good for Dask-Gateway too.
# mypy: disable-error-code=name-defined
dask = "access:services!service=dask-gateway"
c.JupyterHub.services.append({"name": "dask-gateway"})  # noqa: F821
c.JupyterHub.load_roles += [  # noqa: F821
    {"name": "user", "scopes": ["self", dask]},
    {"name": "server", "scopes": ["users:activity!user", "access:servers!server", dask]},
]
