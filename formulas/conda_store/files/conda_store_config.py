# Written by Salt (formulas/conda_store). Settings are in settings.json beside this. Server and worker both read it;
# secrets are handed to the server only.
import json
import logging
import os
from pathlib import Path

from celery import signals
from conda_store_server._internal.schema import BuildArtifactType
from qhub_conda import kernels
from qhub_conda.rights import RealmAuthentication, RealmAuthorization, RealmTokens
from qhub_conda.storage import SignedStorage, route

c = get_config()  # noqa: F821
settings = json.loads(Path("/etc/conda-store/settings.json").read_text())
directory = settings["directory"]
public, realm = settings["public_url"], settings["realm_url"]
shared = settings["shared_namespace"]

# What is where
c.CondaStore.database_url = "postgresql+psycopg2:///conda-store?host=/run/postgresql"
c.CondaStore.redis_url = f"unix://{settings['redis_socket']}"
c.CondaStore.celery_broker_url = c.CondaStore.celery_results_backend = f"redis+socket://{settings['redis_socket']}"
c.CondaStore.store_directory = f"{directory}/store"
c.CondaStore.environment_directory = f"{directory}/environments/{{namespace}}/{{name}}"
c.CondaStore.storage_class = SignedStorage
c.SignedStorage.storage_path = f"{directory}/artifacts"
c.CondaStore.default_namespace = shared
c.CondaStore.default_permissions = "755"
c.CondaStore.default_uid = c.CondaStore.default_gid = None  # the namespace's user, who builds
c.CondaStore.build_artifacts = [BuildArtifactType[name] for name in settings["artifacts"]]

# What environments are built from
c.CondaStore.conda_command = "conda"
if settings["channel_alias"]:
    c.CondaStore.conda_channel_alias = settings["channel_alias"]
c.CondaStore.conda_default_channels = settings["channels"]
c.CondaStore.conda_allowed_channels = settings["allowed_channels"]
c.CondaStore.conda_indexed_channels = []  # its own list of all that channels have serves the page's search only
c.CondaStore.conda_included_packages = settings["included_packages"]
c.CondaStore.conda_max_solve_time = settings["solve_timeout"]
c.CondaStore.storage_threshold = settings["storage_threshold"] * 2**20

# The server, behind the front door
c.CondaStoreServer.address = "127.0.0.1"
c.CondaStoreServer.port = settings["port"]
c.CondaStoreServer.url_prefix = "/conda-store"
c.CondaStoreServer.behind_proxy = True
c.CondaStoreServer.cors_allow_origin_regex = None
c.CondaStoreServer.log_level = logging.WARNING  # addresses that people ask for can hold what signs them in
c.CondaStoreWorker.log_level = logging.INFO

# The worker
c.CondaStoreWorker.concurrency = settings["builders"]

# People
c.CondaStoreServer.authentication_class = RealmAuthentication
c.RealmAuthentication.authentication_backend = RealmTokens
c.RealmAuthentication.authorization_backend = RealmAuthorization
c.RealmAuthentication.client_id = "conda-store"
c.RealmAuthentication.public_url = public
c.RealmAuthentication.realm_url = realm
c.RealmAuthentication.shared_namespace = shared
c.RealmAuthentication.session_hours = settings["session_hours"]
c.RBACAuthorizationBackend.role_mappings_version = 2
c.RBACAuthorizationBackend.unauthenticated_role_bindings = {}
c.RBACAuthorizationBackend.authenticated_role_bindings = {f"{shared}/*": {"viewer"}}
c.RealmTokens.people_file = "/etc/conda-store/people.json"
secrets = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
if (secrets / "client_secret").exists():  # not in the worker
    c.RealmAuthentication.client_secret = (secrets / "client_secret").read_text().strip()
    token_key = (secrets / "token_key").read_text().strip()
    c.SignedStorage.secret = f"storage {token_key}"
    stored_file = route(f"{directory}/artifacts", c.SignedStorage.secret)
    c.CondaStoreServer.additional_routes = [
        ("/conda-store/storage/{key:path}", method, stored_file) for method in ("get", "head")
    ]
    c.AuthenticationBackend.secret = token_key
    c.AuthenticationBackend.predefined_tokens = {
        (secrets / "salt_token").read_text().strip(): {
            "primary_namespace": shared,
            "role_bindings": {"*/*": ["admin"]},
            "exp": "2099-01-01T00:00:00+00:00",
        }
    }

for name, traits in settings["config"].items():
    c[name].update(traits)


# Kernels follow their environments, whatever a task of the worker did to those; and there is one a minute.
def publish_kernels(**_):
    kernels.publish(directory)


signals.task_postrun.connect(publish_kernels, weak=False, dispatch_uid="qhub-kernels")
