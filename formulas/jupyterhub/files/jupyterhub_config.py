# Written by Salt (formulas/jupyterhub). Settings are in settings.json beside this; a site's own are in conf.d/*.py.
import hashlib
import json
import os
import sys
from pathlib import Path

import qhub_hub
from qhub_hub.login import RealmAuthenticator, groups
from qhub_hub.metrics import count_running_servers
from qhub_hub.pin import PinnedProxy
from qhub_hub.spawner import NotebookSpawner
from qhub_jobs.hosts import host_of

c = get_config()  # noqa: F821
here = Path("/etc/jupyterhub")
settings = json.loads((here / "settings.json").read_text())
public, realm = settings["public_url"], settings["realm_url"]


def secret(name):
    """Return a secret that systemd handed to the Hub."""
    return Path(os.environ["CREDENTIALS_DIRECTORY"], name).read_text().strip()


def jupyter_path(spawner):
    """Return where Jupyter finds kernels: the site's own, and those of environments for all and in one's namespaces."""
    accounts = [group.name.removeprefix("/accounts/") for group in spawner.user.groups if "/accounts/" in group.name]
    namespaces = [settings["environments"]["shared"], spawner.user.name, *sorted(accounts)]
    kernels = settings["environments"]["kernels"]
    return ":".join([settings["jupyter_path"], *(f"{kernels}/{namespace}" for namespace in namespaces)])


count_running_servers()

# The Hub, behind the front door
c.JupyterHub.bind_url = "http://127.0.0.1:8000/"  # nothing listens there: the front door is the proxy
c.JupyterHub.public_url = f"{public}/"
if people_name := settings["people_name"]:  # people's servers have another origin than the Hub
    c.JupyterHub.subdomain_host = public
    c.JupyterHub.subdomain_hook = lambda name, domain, kind: host_of(name, people_name) if kind == "user" else domain
    # A server with a name of its own gets no cookie of another server, and cannot set one for the Hub.
    c.JupyterHub.cookie_host_prefix_enabled = people_name.startswith("*.")
c.JupyterHub.hub_bind_url = "http://127.0.0.1:8081"
c.JupyterHub.db_url = "postgresql+psycopg:///jupyterhub?host=/run/postgresql"
c.JupyterHub.upgrade_db = True
c.JupyterHub.cookie_secret = hashlib.sha256(secret("cookie_secret").encode()).digest()
c.CryptKeeper.keys = [hashlib.sha256(secret("crypt_key").encode()).digest()]
c.JupyterHub.template_paths = [str(here / "templates"), str(Path(qhub_hub.__file__).with_name("templates"))]
c.JupyterHub.template_vars = {"announcement": settings["announcement"]}
# Days that a sign-in lasts, for the Hub and in the browser: as a session of the realm at most (_modules/qhub_realm.py).
c.JupyterHub.cookie_max_age_days = 1
c.JupyterHub.tornado_settings = {
    "headers": {"Content-Security-Policy": "frame-ancestors 'none'"},
    "cookie_options": {"secure": True, "expires_days": c.JupyterHub.cookie_max_age_days},
}

# Servers outlive the Hub.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.proxy_class = PinnedProxy
c.Proxy.should_start = False
c.TraefikProxy.enable_setup_dynamic_config = False
c.TraefikProxy.traefik_api_url = "http://127.0.0.1:8082"
c.TraefikProxy.traefik_api_username = c.TraefikProxy.traefik_api_password = ""  # it asks for none
c.TraefikProxy.traefik_entrypoint = "websecure"
c.TraefikFileProviderProxy.dynamic_config_file = "/var/lib/jupyterhub/routes.toml"

# People
c.JupyterHub.authenticator_class = RealmAuthenticator
c.OAuthenticator.client_id = "jupyterhub"
c.OAuthenticator.client_secret = secret("client_secret")
c.OAuthenticator.oauth_callback_url = f"{public}/hub/oauth_callback"
c.OAuthenticator.authorize_url = f"{realm}/protocol/openid-connect/auth"
c.OAuthenticator.token_url = f"{realm}/protocol/openid-connect/token"
c.OAuthenticator.userdata_url = f"{realm}/protocol/openid-connect/userinfo"
c.RealmAuthenticator.end_session_url = f"{realm}/protocol/openid-connect/logout"
c.RealmAuthenticator.after_logout = f"{public}/"
c.OAuthenticator.scope = ["openid", "profile", "email"]
c.GenericOAuthenticator.username_claim = "preferred_username"
c.OAuthenticator.enable_pkce = True
c.OAuthenticator.auth_state_groups_key = groups
c.OAuthenticator.allowed_groups = {"admin", "developer"}
c.OAuthenticator.admin_groups = {"admin"}
c.OAuthenticator.login_service = "the cluster"
c.Authenticator.manage_groups = True
c.Authenticator.enable_auth_state = True
c.Authenticator.auto_login = True
c.Authenticator.auth_refresh_age = settings["auth_refresh"]

# Servers
first, last = settings["notebook_ports"].split("-")
c.JupyterHub.spawner_class = NotebookSpawner
c.JupyterHub.allow_named_servers = settings["named_servers"] > 0
c.JupyterHub.named_server_limit_per_user = settings["named_servers"]
c.JupyterHub.concurrent_spawn_limit = settings["concurrent_spawns"]
c.JupyterHub.active_server_limit = settings["active_servers"]
c.NotebookSpawner.profiles = settings["profiles"]
c.NotebookSpawner.first_port = int(first)
c.NotebookSpawner.last_port = int(last)
c.NotebookSpawner.queue_interval = settings["queue_interval"]
c.NotebookSpawner.limits_interval = settings["limits_interval"]
c.NotebookSpawner.startup_poll_interval = settings["queue_interval"] / 2
c.NotebookSpawner.batchspawner_singleuser_cmd = settings["program"]
c.Spawner.hub_connect_url = settings["hub_url"]
c.Spawner.options_form = lambda spawner: spawner.form()
c.Spawner.options_from_form = lambda form_data, spawner: spawner.from_form(form_data)
c.Spawner.apply_user_options = lambda spawner, options: spawner.take(options)
c.Spawner.env_keep = []
c.Spawner.environment = {**settings["environment"], "JUPYTER_PATH": jupyter_path}
c.Spawner.default_url = settings["default_url"]
c.Spawner.notebook_dir = settings["notebook_dir"]
c.Spawner.start_timeout = settings["start_timeout"]
c.Spawner.http_timeout = settings["http_timeout"]
c.Spawner.poll_interval = settings["poll_interval"]
c.SlurmSpawner.batch_script = (here / "job.sh.jinja").read_text()

# Services of the Hub's own, each with what it needs and no more.
c.JupyterHub.services = [
    {
        "name": "keeper",
        "command": [sys.executable, "-m", "qhub_hub.keeper", "/etc/qhub/people.json", "10"],
        "environment": {"PYTHONPATH": os.environ["PYTHONPATH"]},
    },
    {"name": "prometheus", "api_token": secret("metrics_token")},
]
c.JupyterHub.load_roles = [
    {
        "name": "keeper",
        "scopes": ["list:users", "read:servers", "admin:server_state", "delete:users", "delete:servers"],
        "services": ["keeper"],
    },
    {"name": "prometheus", "scopes": ["read:metrics"], "services": ["prometheus"]},
]
if settings["idle_timeout"] or settings["max_age"]:
    cull = [f"--cull-every={settings['cull_interval']}", f"--timeout={settings['idle_timeout'] or 10**9}"]
    if settings["max_age"]:
        cull.append(f"--max-age={settings['max_age']}")
    c.JupyterHub.services.append(
        {"name": "idle-culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", *cull]}
    )
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    c.JupyterHub.load_roles.append({"name": "idle-culler", "scopes": scopes, "services": ["idle-culler"]})

for name, traits in settings["config"].items():
    c[name].update(traits)
for path in sorted((here / "conf.d").glob("*.py")):
    exec(compile(path.read_text(), path, "exec"), {"c": c, "get_config": get_config, "__file__": str(path)})  # noqa: F821, S102
