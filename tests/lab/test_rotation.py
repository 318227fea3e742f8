"""Secrets are rotated: what was known before is good for nothing, no work is lost, and little is away for long."""

import json
from pathlib import Path

import pytest
import requests

from tests.lab.browser import chromium, signed_in
from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings
from tests.lab.harness.shell import wait_for
from tests.lab.hub import CA
from tests.lab.watch import watched

SECRETS = "/var/lib/qhub/pillar/secrets"
REPLACED = "/var/lib/qhub/pillar/replaced.json"
# Asks each address with each secret; on the master, secrets on standard input.
TRY = """
import json, sys, urllib.error, urllib.parse, urllib.request
def status(url, headers={}, form=None):
    try:
        body = urllib.parse.urlencode(form).encode() if form else None
        answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10)
        return json.load(answer)["data"]["authenticated"] if "conda-store" in url else True
    except urllib.error.HTTPError as error:
        assert error.code in (401, 403), (url, error.code)
        return False
secrets = json.load(sys.stdin)
realm = "http://127.0.0.1:8080/auth/realms/%s/protocol/openid-connect/token"
found = {}
for name, client in {"jupyterhub": "jupyterhub", "conda_store": "conda-store", "grafana": "grafana"}.items():
    form = {"client_id": client, "client_secret": secrets[name + "_client_secret"], "token": "x"}
    found[name + "_client_secret"] = status(realm % "qhub" + "/introspect", form=form)
form = {"client_id": "salt", "client_secret": secrets["keycloak_salt_secret"], "grant_type": "client_credentials"}
found["keycloak_salt_secret"] = status(realm % "master", form=form)
for name, url, kind in (
    ("jupyterhub_metrics_token", "http://127.0.0.1:8081/hub/metrics", "Bearer"),
    ("dask_gateway_proxy_token", "http://127.0.0.1:8010/api/v1/routes", "token"),
    ("dask_gateway_hub_token", "http://127.0.0.1:8081/hub/api/user", "token"),
    ("conda_store_salt_token", "http://127.0.0.1:5000/conda-store/api/v1/permission/", "Bearer"),
):
    found[name] = status(url, {"Authorization": kind + " " + secrets[name]})
print(json.dumps(found))
"""


def secrets(master):
    """Return all secrets, ``{name: value}``."""
    found = {}
    for audience in ("master", "nodes"):
        found |= json.loads(master.read(f"{SECRETS}/{audience}.sls"))["secrets"]
    return found


def taken(master, values):
    """Return which of some secrets are taken where they are used, ``{name: whether}``."""
    found = json.loads(master.run(["python3", "-c", TRY], input=json.dumps(values)).stdout)
    login = ["psql", "--host=127.0.0.1", "--username=keycloak", "--command=SELECT 1", "keycloak"]
    words = ["env", f"PGPASSWORD={values['keycloak_database_password']}", *login]
    return found | {"keycloak_database_password": not master.run(words, check=False).returncode}


class Rotation:
    """One rotation of everything, and how things were before."""

    def __init__(self, lab, hub, directory):
        self.lab, self.master, self.hub, self.directory = lab, lab.master, hub, directory
        self.since = self.master.run(["date", "+@%s"]).stdout.strip()
        self.old, self.old_ca = secrets(self.master), self.kept("old.crt")
        self.old_key = self.master.read("/etc/salt/pki/master/master.pub")
        self.notebook = hub.start_server("ada")
        submit = ["sbatch", "--parsable", "--chdir=/home/ada", "--output=rotation", "--mem=10"]
        wrapped = "--wrap=until [ -e over ]; do sleep 0.2; done; echo survived"
        self.job = lab.as_user("ada", [*submit, wrapped]).stdout.strip()
        wait_for("the job runs", lambda: lab.state(self.job) == "RUNNING")

    def kept(self, name):
        """Write the authority's certificate, as it is now, to a file of this machine; return the path."""
        path = self.directory / name
        path.write_text(self.master.read(CA))
        return path

    def run(self):
        """Rotate everything."""
        words = ["salt-run", "--out=json", "state.orchestrate", "orch.rotate", "pillar={class: all}"]
        try:
            with watched(self.lab.node("w2"), "master.cluster.internal") as away:
                self.said = self.master.run(words, timeout=900).stdout
                self.away = wait_for("all answers again", away, timeout=300, interval=2)
        finally:
            self.new, self.new_ca = secrets(self.master), self.kept("new.crt")
            Path(self.hub.session.verify).write_text(self.new_ca.read_text())
            self.hub.session.close()  # it is connected to somebody it trusted before


@pytest.fixture(scope="module")
def rotation(lab, hub, tmp_path_factory):
    """Everything has been rotated, while a notebook and a job of ada's were running."""
    rotation = Rotation(lab, hub, tmp_path_factory.mktemp("rotation"))
    try:
        rotation.run()
        yield rotation
    finally:
        hub.stop_server("ada")
        lab.master.run(["scancel", rotation.job], check=False)
        lab.master.run(["rm", "-f", "/home/ada/over", "/home/ada/rotation"])


def test_what_cannot_be_rotated_is_refused_with_what_can(lab):
    refused = lab.orchestrate("orch.rotate", check=False, **{"class": "munge"})
    assert refused.returncode
    assert "munge is not allowed: dask, database, keycloak, clients" in refused.stdout + refused.stderr


def test_no_password_or_token_of_before_works(rotation, master):
    by_hand = {"highstate_key", "grafana_admin_password", "grafana_secret_key"}
    assert {name for name, value in rotation.new.items() if value == rotation.old[name]} == by_hand
    assert set(taken(master, rotation.new).values()) == {True}
    assert set(taken(master, rotation.old).values()) == {False}
    assert master.run(["test", "-e", REPLACED], check=False).returncode


def test_the_authority_of_before_is_trusted_by_nobody_and_vouches_for_nothing(rotation, lab):
    url = f"https://{settings.ADDRESSES['master']}/hub/api/"
    session = requests.Session()
    session.trust_env = False
    assert session.get(url, verify=str(rotation.new_ca), timeout=10).ok
    session.close()
    with pytest.raises(requests.exceptions.SSLError):
        session.get(url, verify=str(rotation.old_ca), timeout=10)
    old = rotation.old_ca.read_text().strip()
    for node in (lab.master, *lab.workers):
        trusted = node.read("/etc/ssl/certs/ca-certificates.crt")
        assert old not in trusted
        assert rotation.new_ca.read_text().strip() in trusted


def test_nobody_s_work_is_lost(rotation, lab, hub, master):
    assert lab.state(rotation.job) == "RUNNING"
    lab.as_user("ada", ["touch", "/home/ada/over"])
    wait_for("the job ends", lambda: lab.state(rotation.job) == "COMPLETED")
    assert master.read("/home/ada/rotation") == "survived\n"
    assert hub.jobs()["ada"]["id"] == rotation.notebook
    # A token that the notebook has to ask the Hub about, whose certificate is from an authority that came after it.
    token = hub.token("ada")
    assert hub.ask("GET", "status", base="/user/ada/api/", token=token).json()["started"]
    assert lab.job("ada", "echo new")[1] == "new\n"


def test_people_sign_in(rotation, lab, tmp_path):
    with chromium(tmp_path, rotation.new_ca) as browser, signed_in(lab, browser, "marie"):
        pass


def test_nothing_is_away_for_long(rotation):
    print(f"away, in seconds: {rotation.away}")
    # Keycloak takes a while to start, more so where the whole cluster is on one machine.
    assert max(seconds for name, seconds in rotation.away.items() if name != "sign-in") < 60, rotation.away
    assert rotation.away["sign-in"] < 300, rotation.away


def test_no_secret_is_in_what_was_said_logged_or_kept(rotation, lab, master):
    values = [value for each in (rotation.old, rotation.new) for value in each.values()]
    assert not [value for value in values if value in rotation.said]
    places = ["/var/cache/salt/master/jobs", "/var/log", "/var/lib/qhub/files"]
    written = master.run(["find", *places, "-type", "f", "-newermt", rotation.since]).stdout.splitlines()
    assert any(path.endswith("return.p") for path in written)
    found = master.run(["grep", "-lFf", "-", *written], input="\n".join(values), check=False).stdout
    assert not found, found
    for node in (master, *lab.workers):
        journal = node.run(["journalctl", "-q", "--no-pager", "-o", "cat"]).stdout
        assert not [value for value in values if value in journal]


def test_a_worker_with_the_key_of_before_gets_into_slurm_no_more(rotation, lab, master):
    """As one that was away, or whose disk was copied."""
    worker, put = lab.node("w2"), ["sh", "-c", "cat > /etc/slurm/slurm.key"]
    since = worker.run(["date", "+@%s"]).stdout.strip()
    refusal = ["journalctl", "-q", "-u", "slurmd", f"--since={since}", "--grep=Protocol authentication error"]
    try:
        worker.run(put, input=rotation.old["slurm_key"])
        worker.run(["systemctl", "restart", "--no-block", "slurmd"])
        wait_for("slurmd is refused", lambda: worker.run(refusal, check=False).stdout)
    finally:
        worker.run(put, input=rotation.new["slurm_key"])
        worker.run(["systemctl", "restart", "slurmd"], timeout=90)
    state = ["sinfo", "--noheader", "--Node", "--nodes=w2", "--format=%T"]
    wait_for("w2 serves again", lambda: set(master.run(state).stdout.split()) == {"idle"})


def test_a_minion_that_knows_the_key_of_before_does_not_listen_to_the_master(rotation, lab):
    worker = lab.node("w2")
    script = """
        trap 'rm -r /root/before' EXIT
        mkdir /root/before && cp -r /etc/salt/pki/minion /root/before/pki && cat > /root/before/pki/minion_master.pub &&
        { echo 'pki_dir: /root/before/pki'; cat /etc/salt/minion.d/qhub.conf; } > /root/before/minion &&
        timeout 20 salt-call --config-dir=/root/before test.ping 2>&1
    """
    said = worker.run(["sh", "-c", script], input=rotation.old_key, check=False, timeout=90).stdout
    assert "public key did not authenticate" in said


def test_all_is_well_and_as_declared(rotation, lab):
    the_lab.healthy(lab.master)
    for name in ("master", "w1", "w2"):
        changed = {state: result for state, result in lab.highstate(name).items() if result["changes"]}
        assert not changed
