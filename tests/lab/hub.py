"""JupyterHub of the lab: what an administrator asks its API, and what people do in a browser."""

import contextlib

import requests

from tests.lab.browser import PEOPLE, ROOT
from tests.lab.harness import settings
from tests.lab.harness.shell import wait_for

SPAWN_TIMEOUT = 120_000  # milliseconds
CA = "/var/lib/qhub/ca/ca.crt"
# A service of the site's own, by which tests ask the Hub.
DRIVER_TOKEN = "token-of-the-driver-of-tests"  # noqa: S105
DRIVER = f"""
c.JupyterHub.services.append({{"name": "driver", "api_token": "{DRIVER_TOKEN}"}})
scopes = ["admin:users", "admin:servers", "tokens", "list:users", "access:servers"]
c.JupyterHub.load_roles.append({{"name": "driver", "scopes": scopes, "services": ["driver"]}})
"""
DROP_IN = "/etc/jupyterhub/conf.d/driver.py"


class Hub:
    """The Hub behind the front door, as the driver may use it; ``driven`` makes one."""

    def __init__(self, lab, ca):
        self.lab, self.master = lab, lab.master
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=64))
        self.session.verify = str(ca)
        self.tokens, self.standing = {}, {}

    def ask(
        self, method, path, body=None, *, token=DRIVER_TOKEN, check=True, base="/hub/api/", kind="token", **options
    ):
        """Ask the Hub's API, or another at ``base`` that takes its tokens as this ``kind``; ``path`` is below that."""
        headers = {"Authorization": f"{kind} {token}"} if token else {}
        if base.startswith("/user/"):
            headers["Host"] = PEOPLE.removeprefix("https://")
        url = f"https://{settings.ADDRESSES['master']}{base}{path}"
        answer = self.session.request(method, url, json=body, headers=headers, timeout=60, **options)
        assert answer.ok or not check, f"{answer.status_code}: {answer.text[:500]}"
        return answer

    def restart(self):
        """Start the Hub anew, and wait for it."""
        self.master.run(["systemctl", "restart", "jupyterhub"])
        self.wait()

    def wait(self):
        """Wait until the Hub answers at the front door."""

        def answers():
            with contextlib.suppress(requests.RequestException):
                return self.ask("GET", "", token=None, check=False).ok

        wait_for("the Hub answers", answers, timeout=90)

    def token(self, name, **body):
        """Return a new token of somebody's, which is revoked at the end."""
        self.ask("POST", f"users/{name}", check=False)  # as signing in for the first time does
        made = self.ask("POST", f"users/{name}/tokens", {"note": "test", **body}).json()
        self.tokens[made["token"]] = f"users/{name}/tokens/{made['id']}"
        return made["token"]

    def standing_token(self, name):
        """Return the token that somebody has all the time."""
        if name not in self.standing:
            self.standing[name] = self.token(name)
        return self.standing[name]

    def revoke(self, token):
        """Revoke one of the tokens made here, if it is still there."""
        self.ask("DELETE", self.tokens.pop(token), check=False)

    def server(self, name, server=""):
        """Return what the Hub knows of a server; ``None`` if it neither runs nor starts."""
        answer = self.ask("GET", f"users/{name}?include_stopped_servers=false", check=False)
        return answer.json().get("servers", {}).get(server) if answer.ok else None

    def request_server(self, name, server="", *, check=True, **options):
        """Ask for a server with these options; return the answer."""
        self.ask("POST", f"users/{name}", check=False)
        path = f"users/{name}/servers/{server}" if server else f"users/{name}/server"
        return self.ask("POST", path, options, check=check)

    def start_server(self, name, server="", **options):
        """Start a server if it does not run, and wait until it is ready; return the number of its job."""
        if not self.server(name, server):
            self.request_server(name, server, **options)

        def ready():
            found = self.server(name, server)
            assert found, self.master.journal("jupyterhub", 60)
            return found["ready"]

        wait_for(f"the server of {name} is ready", ready, timeout=120)
        return self.jobs()[f"{name}-{server}" if server else name]["id"]

    def stop_server(self, name, server=""):
        """Stop a server, or end its start, if there is one; wait until it and its job are gone."""
        if self.server(name, server):
            self.ask("DELETE", f"users/{name}/servers/{server}" if server else f"users/{name}/server")
        key = f"{name}-{server}" if server else name
        wait_for(f"the server {key} is gone", lambda: not self.server(name, server) and key not in self.jobs())

    def jobs(self):
        """Return the notebooks in the queue, ``{user or user-server: {...}}``."""
        keys = ("id", "user", "state", "host", "account", "partition", "time", "memory", "cpus", "comment")
        words = ["squeue", "--noheader", "--name=jupyterhub", "--format=%A|%u|%T|%B|%a|%P|%l|%m|%C|%k"]
        lines = [dict(zip(keys, line.split("|"), strict=True)) for line in self.master.run(words).stdout.splitlines()]
        return {line["user"] + line["comment"].removeprefix("JupyterHub"): line for line in lines}

    @contextlib.contextmanager
    def full(self, partition):
        """Take all CPUs of a partition that are free, for one job of ada's."""
        idle = self.master.run(["sinfo", "--noheader", f"--partition={partition}", "--format=%C"]).stdout.split("/")[1]
        words = ["sbatch", "--parsable", f"--partition={partition}", f"--cpus-per-task={idle}", "--mem=10", "--chdir=/"]
        filler = self.lab.as_user("ada", [*words, "--output=/dev/null", "--wrap=sleep 600"]).stdout.strip()
        state = ["squeue", "--noheader", "--format=%T", "--jobs", filler]
        try:
            wait_for(f"{partition} is full", lambda: self.master.run(state).stdout.strip() == "RUNNING")
            yield
        finally:
            self.master.run(["scancel", filler])


@contextlib.contextmanager
def driven(lab, directory, settings=""):
    """Yield the :class:`Hub`, with the driver as a service, and more ``settings``, of the site's own until the end."""
    ca = directory / "ca.crt"
    ca.write_text(lab.master.read(CA))
    hub = Hub(lab, ca)
    lab.master.write(DROP_IN, DRIVER + settings)
    try:
        hub.restart()
        yield hub
    finally:
        for token in list(hub.tokens):
            hub.revoke(token)
        lab.master.run(["rm", "-f", DROP_IN])
        lab.master.run(["scancel", "--name=jupyterhub"])
        hub.restart()
        hub.session.close()


# -- people in a browser -----------------------------------------------------------------------------


def choose(shown, **chosen):
    """Choose in the form, and press the button."""
    shown.goto(f"{ROOT}/hub/spawn")
    for name, value in chosen.items():
        shown.locator(f"select#{name}").select_option(value)
    shown.get_by_role("button", name="Start").click()


def lab_is_there(shown):
    """Wait until JupyterLab can be used."""
    shown.wait_for_url(f"{PEOPLE}/user/**/lab**", timeout=SPAWN_TIMEOUT)
    shown.locator(".jp-Launcher, .jp-DirListing").first.wait_for(timeout=SPAWN_TIMEOUT)


def new_notebook(shown, kernel=None):
    """Open a new notebook, with nothing of before around it, and wait for its kernel, of this title if one is given."""
    shown.goto(shown.url.partition("/lab")[0] + "/lab?reset")
    lab_is_there(shown)
    kernel = kernel or "Python 3 (ipykernel)"
    shown.locator(f".jp-LauncherCard[data-category=Notebook][title='{kernel}']").click()
    shown.get_by_text(f"{kernel} | Idle").wait_for(timeout=SPAWN_TIMEOUT)  # what is run before is lost


def run_cell(shown, code):
    """Run code in the notebook's last cell and return what it prints."""
    cells = shown.locator(".jp-Notebook .cm-content")
    outputs = shown.locator(".jp-OutputArea-output pre")
    there = outputs.count()
    cells.last.click()
    cells.last.fill(code)
    shown.keyboard.press("Shift+Enter")
    outputs.nth(there).wait_for(timeout=SPAWN_TIMEOUT)
    return outputs.nth(there).inner_text().strip()
