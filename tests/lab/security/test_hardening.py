"""Attacks on how the master is set up: by a person with a shell, by a service's user, and from the network."""

import json
import os
import re
import socket
import time

import pytest

from tests.lab import ssh
from tests.lab.browser import signed_in
from tests.lab.harness import settings
from tests.lab.harness.shell import run

# What root runs


@pytest.fixture
def scratch(master):
    """Return a directory of root's on the master that holds a checkout's bootstrap and an empty mirror."""
    directory = "/srv/qhub-of-tests"
    master.run(["mkdir", "-p", f"{directory}/checkout/salt", f"{directory}/mirror"])
    master.run(["cp", "-r", f"{settings.CHECKOUT}/salt/bootstrap", f"{directory}/checkout/salt/bootstrap"])
    yield directory
    master.run(["rm", "-r", directory])


def bootstrap(master, directory):
    """Run the bootstrap of a checkout with an empty mirror; return what it printed when it refused."""
    words = [f"{directory}/checkout/salt/bootstrap/master.sh", "--mirror", f"{directory}/mirror"]
    done = master.run(words, check=False, timeout=60)
    assert done.returncode
    assert "== " not in done.stdout, "nothing was begun"
    return done.stderr


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("chown marie checkout/salt/bootstrap/secrets.py", "checkout/salt/bootstrap/secrets.py"),
        ("chmod g+w checkout/salt", "checkout/salt"),
        ("chown marie .", ""),
        ("chmod o+w mirror", "mirror"),
        ("touch mirror/forged && chown marie mirror/forged", "mirror/forged"),
    ],
)
def test_the_bootstrap_refuses_what_a_person_can_change(master, scratch, command, path):
    master.run(["sh", "-c", f"cd {scratch} && {command}"])
    said = bootstrap(master, scratch)
    assert f"{scratch}/{path}".rstrip("/") + " can be changed by others than root" in said
    assert "nothing was changed" in said


def test_the_bootstrap_follows_links_to_what_a_person_can_change(master, scratch):
    master.run(["sh", "-c", f"cd {scratch} && mv mirror /home/marie/mirror && ln -s /home/marie/mirror mirror"])
    try:
        assert "/home/marie can be changed by others than root" in bootstrap(master, scratch)
    finally:
        master.run(["rm", "-r", "/home/marie/mirror"])


# What root reads and writes where a service may put links

SQLITE = "/var/lib/dask-gateway/gateway.sqlite"


def test_a_backup_refuses_a_link_that_a_service_planted(lab, master):
    planted = f"mv {SQLITE} {SQLITE}.kept && ln -s /etc/shadow {SQLITE}"
    lab.as_user("dask", ["sh", "-c", planted])
    try:
        done = master.run(["systemctl", "start", "qhub-backup.service"], check=False, timeout=300)
        said = master.journal("qhub-backup", 20)
    finally:
        lab.as_user("dask", ["mv", f"{SQLITE}.kept", SQLITE])
    assert done.returncode
    assert f"database {SQLITE} could not be dumped: [Errno 40] Too many levels of symbolic links" in said
    master.run(["systemctl", "start", "qhub-backup.service"], timeout=300)


# What services may do

#: Running units above this by systemd-analyze are in a table of docs/security.md, with the reason.
EXPOSED = 5
#: Debian's own, which the project does not configure.
DEBIANS = re.compile(r"(console-getty|dbus|getty@.*|serial-getty@.*|systemd-.*|user@.*|run-.*)\.service")


@pytest.mark.parametrize("name", ["master", "w1"])
def test_units_are_confined_or_there_is_a_reason(lab, name):
    node = lab.node(name)
    listed = ["systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"]
    running = {line.split()[0] for line in node.run(listed).stdout.splitlines()}
    rated = json.loads(node.run(["systemd-analyze", "security", "--json=short", "--no-pager"]).stdout)
    exposed = {
        each["unit"]
        for each in rated
        if float(each["exposure"]) >= EXPOSED and each["unit"] in running and not DEBIANS.fullmatch(each["unit"])
    }
    page = (settings.REPOSITORY / "docs/security.md").read_text()
    assert sorted(unit for unit in exposed if f"`{unit.removesuffix('.service')}`" not in page) == []


def test_nobody_else_reads_what_prometheus_and_alertmanager_have(lab, master):
    (user,) = set(master.run(["ps", "-o", "user:32=", "-C", "prometheus-node"]).stdout.split())
    assert user == "node-exporter"
    data = "/var/lib/prometheus"
    for path in ("/etc/prometheus/alertmanager-qhub.yml", f"{data}/metrics2", f"{data}/alertmanager"):
        master.run(["test", "-e", path])
        for each in (user, "marie"):
            assert lab.as_user(each, ["test", "-r", path], check=False).returncode == 1, (each, path)


def test_no_service_writes_where_root_leaves_metrics(lab, master):
    for user in ("node-exporter", "prometheus"):
        for path in ("/var/lib/qhub-metrics", "/var/lib"):
            assert lab.as_user(user, ["test", "-w", path], check=False).returncode == 1, (user, path)


# Port 22


PASSWORD = "not a good one"  # noqa: S105
BY_PASSWORD = (
    "-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "PubkeyAuthentication=no",
    "-o", "NumberOfPasswordPrompts=1", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
)  # fmt: skip


@pytest.fixture(scope="module")
def by_password(master, tmp_path_factory):
    """Return a function that signs in on port 22 with the password of an account of the master's own."""
    ask = tmp_path_factory.mktemp("ssh") / "askpass"
    ask.write_text(f"#!/bin/sh\necho '{PASSWORD}'\n")
    ask.chmod(0o755)
    environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}

    def sign_in():
        words = ["ssh", *BY_PASSWORD, f"local@{settings.ADDRESSES['master']}", "id -un"]
        return run(words, check=False, env=environment, timeout=60)

    master.run(["useradd", "local"])
    master.run(["chpasswd"], input=f"local:{PASSWORD}\n")
    yield sign_in
    master.run(["userdel", "local"])


def test_port_22_takes_no_password_once_an_administrator_has_a_key(lab, master, by_password):
    lab.apply("master", ["sshd"])
    assert by_password().stdout == "local\n", "its administrator has no other way in"
    master.write("/root/.ssh/authorized_keys", master.read("/root/.ssh/id_ed25519.pub"))
    try:
        lab.apply("master", ["sshd"])
        refused = by_password()
        assert (refused.returncode, "Permission denied (publickey)" in refused.stderr) == (255, True), refused.stderr
    finally:
        master.run(["rm", "/root/.ssh/authorized_keys"])
        lab.apply("master", ["sshd"])


def test_workers_take_no_password_and_forward_no_windows(lab):
    for node in lab.workers:
        found = node.run(["sshd", "-T"]).stdout.splitlines()
        assert {"passwordauthentication no", "kbdinteractiveauthentication no", "x11forwarding no"} <= set(found)


# What the Hub gives away


def test_cookies_of_the_hub_are_for_https_and_end_with_the_session_of_the_realm(lab, browser):
    with signed_in(lab, browser, "ada") as shown:
        cookies = [each for each in shown.context.cookies() if each["path"].startswith("/hub")]
    assert {each["name"] for each in cookies} >= {"_xsrf", "jupyterhub-hub-login"}
    assert all(each["secure"] for each in cookies), cookies
    login = next(each for each in cookies if each["name"] == "jupyterhub-hub-login")
    assert login["expires"] - time.time() <= 24 * 3600


@pytest.mark.parametrize("path", ["", "hub/login", "hub/api/", "user/ada/"])
def test_no_answer_has_a_version_in_its_headers(hub, path):
    answer = hub.ask("GET", path, token=None, base="/", check=False, allow_redirects=False)
    assert not {"X-JupyterHub-Version", "Server", "X-Powered-By"} & set(answer.headers)


# Denial of service


def test_connections_that_never_sign_in_keep_nobody_out(gateway, hub):
    """As many as the gateway has room for, from as many addresses as that takes."""
    hub.start_server("ada")
    addresses = [gateway.another_address()[1] for _ in range(6)]
    idle = [
        socket.create_connection((ssh.ADDRESS, ssh.PORT), 30, (address, 0)) for address in addresses for _ in range(20)
    ]
    try:
        done = gateway.ssh("ada", "true")
        assert done.returncode == 0, done.stderr
    finally:
        for each in idle:
            each.close()
        hub.stop_server("ada")


@pytest.fixture
def gateway(master, hub, tmp_path):
    """OpenSSH as a person has it, and the SSH gateway as it is installed."""
    client = ssh.Client(tmp_path, master, hub)
    yield client
    client.close()
