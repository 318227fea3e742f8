# Written by Salt (formulas/dask_gateway). Settings are in settings.json beside this.
import json
import os
from pathlib import Path

from qhub_dask.backend import SlurmBackend
from qhub_dask.login import HubAuthenticator
from qhub_dask.options import Choice

c = get_config()  # noqa: F821
settings = json.loads(Path("/etc/dask-gateway/settings.json").read_text())


def secret(name):
    """Return a secret that systemd handed to the gateway."""
    return Path(os.environ["CREDENTIALS_DIRECTORY"], name).read_text().strip()


c.DaskGateway.address = "127.0.0.1:8010"
c.DaskGateway.log_level = "INFO"

# The proxy is a program of its own, so that clusters stay reachable while the gateway starts anew.
c.Proxy.externally_managed = True
c.Proxy.address = "127.0.0.1:8011"
c.Proxy.tcp_address = "127.0.0.1:8012"
c.Proxy.prefix = "/gateway"
c.Proxy.gateway_url = "http://127.0.0.1:8010"
c.Proxy.api_token = secret("proxy_token")

# People
c.DaskGateway.authenticator_class = HubAuthenticator
c.JupyterHubAuthenticator.jupyterhub_api_url = "http://127.0.0.1:8081/hub/api"
c.JupyterHubAuthenticator.jupyterhub_service_name = "dask-gateway"
c.HubAuthenticator.public_url = settings["public_url"]
c.HubAuthenticator.people_name = settings["people_name"]
c.HubAuthenticator.oauth_secret = secret("hub_token")
c.Authenticator.cache_max_age = 30  # seconds for which the Hub is not asked again about somebody

# Clusters, which outlive the gateway
c.DaskGateway.backend_class = SlurmBackend
c.SlurmBackend.settings = settings
c.Backend.cluster_options = Choice(settings)
c.Backend.api_url = f"{settings['inside_url']}/gateway/api"
c.DBBackendBase.db_url = "sqlite:////var/lib/dask-gateway/gateway.sqlite"
c.DBBackendBase.db_encrypt_keys = [secret("database_key") + "="]
c.DBBackendBase.stop_clusters_on_shutdown = False
c.DBBackendBase.cluster_heartbeat_period = settings["heartbeat"]
c.DBBackendBase.cluster_heartbeat_timeout = 4 * settings["heartbeat"]
c.DBBackendBase.cluster_start_timeout = settings["start_timeout"]
c.DBBackendBase.worker_start_timeout = settings["start_timeout"]
c.DBBackendBase.check_timeouts_period = settings["heartbeat"]
c.DBBackendBase.cluster_status_period = c.DBBackendBase.worker_status_period = settings["heartbeat"]
c.ClusterConfig.idle_timeout = settings["idle_timeout"]
c.ClusterConfig.environment = {
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    **settings["environment_variables"],
}

for name, traits in settings["config"].items():
    c[name].update(traits)
