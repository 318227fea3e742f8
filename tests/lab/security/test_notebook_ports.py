"""A job of marie's on the worker of ada's notebook server tries to take the server's place behind the front door."""

import contextlib
import json
import time

import pytest

from tests.lab.harness.shell import wait_for

ROUTES = "/etc/traefik/dynamic/jupyterhub-servers.yml"
WANTED = "/var/lib/jupyterhub/routes.toml"
HUB_PYTHON = "/opt/qhub/jupyterhub/bin/python"
FIRST, LAST, FREE, OTHER = 63001, 65000, 64999, 64998
PYTHON = "/opt/qhub/shared/jupyterlab/bin/python"
PAGE = "page-of-marie"
# Holds the ports between two numbers except one; takes that one as soon as it is free and a server of another person is
# starting or has it; answers HTTP and, with a certificate of its own, TLS there.
THIEF = """
import os, pathlib, resource, signal, socket, ssl, subprocess, sys, threading, time

first, last, port = map(int, sys.argv[1:4])
page = f"HTTP/1.1 200 OK\\r\\nContent-Type: text/html\\r\\nContent-Length: {len('MARK')}\\r\\n\\r\\nMARK".encode()
home = pathlib.Path.home()
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=notebook.internal",
         "-addext", "subjectAltName=DNS:notebook.internal", "-keyout", "thief.pem", "-out", "thief.crt"]
subprocess.run(words, check=True, cwd=home, capture_output=True)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(home / "thief.crt", home / "thief.pem")

def listen(number):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not matter
    try:
        server.bind(("", number))
        server.listen(128)
    except OSError:
        server.close()
        raise
    return server

held = [listen(number) for number in range(first, last + 1) if number != port]

def say(what):
    with (home / "thief.said").open("a") as file:
        print(what, file=file)

def starting():
    # The launcher of another person has chosen its port: it listens there, or has become the server that will.
    sockets = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    if any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in sockets):
        return True
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            other = directory.stat().st_uid != os.getuid()
            if other and b"jupyterhub-singleuser" in (directory / "cmdline").read_bytes():
                return True
        except OSError:
            pass
    return False

def serve(client):
    try:
        client.settimeout(10)
        if client.recv(1, socket.MSG_PEEK) == b"\\x16":
            client = tls.wrap_socket(client, server_side=True)
        client.recv(65536)
        client.sendall(page)
        say("answered")
    except OSError as error:
        say(f"refused: {error}")
    client.close()

say("ready")
while first <= last and not starting():
    pass
say("tries")
while True:
    try:
        server = listen(port)
        break
    except OSError:
        time.sleep(0.001)
say("took")
while True:
    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
""".replace("MARK", PAGE)
# Connects to a port of w2 as the Hub does, with the certificate of ada's route.
CONNECT = """
import socket, sys, tomllib
sys.path.insert(0, "/usr/local/lib/qhub")
from qhub_hub.pin import pinned
routes = tomllib.load(open(sys.argv[1], "rb"))["jupyterhub"]["routes"].values()
certificate = next(route["data"]["certificate"] for route in routes if route["data"].get("user") == "ada")
pinned(certificate).wrap_socket(socket.create_connection(("w2", int(sys.argv[2])), 10), server_hostname="w2")
"""


class Thief:
    """Marie's job on w2 that wants one port."""

    def __init__(self, hub, job):
        self.hub, self.job = hub, job

    def said(self):
        """Return what the job has reported, a list of words."""
        return self.hub.master.run(["cat", "/home/marie/thief.said"], check=False).stdout.splitlines()


@pytest.fixture
def thief(lab, hub):
    """Return a function that starts marie's job, for one port and for the ports that the job holds."""
    with contextlib.ExitStack() as stack:

        def start(port, first=1, last=0):
            lab.master.write("/home/marie/thief.py", THIEF)
            lab.master.run(["rm", "-f", "/home/marie/thief.said"])
            command = f"{PYTHON} /home/marie/thief.py {first} {last} {port}"
            words = ["sbatch", "--parsable", "--partition=highmem", "--account=physics", "--mem=200", "--time=5"]
            words += ["--chdir=/home/marie", "--output=/home/marie/thief.log", f"--wrap={command}"]
            job = lab.as_user("marie", words, cwd="/").stdout.strip()
            stack.callback(ended, lab, job)
            started = Thief(hub, job)
            wait_for("marie's job is ready", lambda: "ready" in started.said(), timeout=60)
            return started

        yield start
    lab.master.run(["sh", "-c", "rm -f /home/marie/thief.*"])


@pytest.fixture(autouse=True)
def no_server(hub):
    """Ada has no notebook server before and after a test."""
    hub.stop_server("ada")
    yield
    hub.stop_server("ada")


def ended(lab, job):
    """Cancel a job and wait until its ports are free."""
    lab.master.run(["scancel", job])
    queue = ["squeue", "--noheader", "--jobs", job]
    wait_for("the job has ended", lambda: not lab.master.run(queue, check=False).stdout.strip(), timeout=60)


def ports_are_free(worker):
    """Wait until the kernel has released the notebook ports; a minute after the last connection."""
    words = ["ss", "-Htan", f"sport >= :{FIRST} and sport <= :{LAST}"]
    wait_for("the notebook ports are free", lambda: not worker.run(words).stdout.strip(), timeout=120)


def pages(hub):
    """Return what ada sees at her address now: status and text of two pages."""
    answers = [
        hub.ask("GET", path, token=hub.standing_token("ada"), base="/user/ada/", check=False, allow_redirects=False)
        for path in ("api", "lab")
    ]
    return [(answer.status_code, answer.text) for answer in answers]


def routed(hub):
    """Return where the front door sends ada's requests, ``None`` without a route."""
    routes = json.loads(hub.master.read(ROUTES).partition("\n")[2]).get("http", {})
    router = next((router for router in routes.get("routers", {}).values() if "/user/ada/" in router["rule"]), None)
    return router and routes["services"][router["service"]]["loadBalancer"]["servers"][0]["url"]


def test_a_starting_server_keeps_its_port(lab, hub, thief):
    """Marie's job leaves one port free and takes it when ada's server has chosen it."""
    ports_are_free(lab.node("w2"))
    rival = thief(FREE, FIRST, LAST)
    begun = time.monotonic()
    hub.request_server("ada", partition="highmem", memory=500, check=False)
    seen = []

    def over():
        seen.extend(pages(hub))
        server = hub.server("ada")
        return not server or server["ready"]

    wait_for("ada's server is ready or has failed", over, timeout=120)
    seen += pages(hub)
    print(f"\nstart: {time.monotonic() - begun:.1f} s, marie's job: {rival.said()}")
    assert not [text for _, text in seen if PAGE in text]
    assert "tries" in rival.said(), "the attack has run"
    assert routed(hub).endswith(f":{FREE}"), "ada's server has the port that marie's job wanted"
    assert json.loads(seen[-2][1]).keys() == {"version"}


def test_the_address_of_an_ended_server_shows_nobody_else(lab, hub, thief):
    """Marie's job wants the port from before Slurm ends ada's job until the route is gone."""
    job = hub.start_server("ada", partition="highmem", memory=500)
    rival = thief(int(routed(hub).rpartition(":")[2]))
    wait_for("marie's job tries", lambda: "tries" in rival.said())
    seen, begun = [], time.monotonic()
    lab.master.run(["scancel", job])

    def gone():
        seen.extend(pages(hub))
        return not routed(hub)

    wait_for("the route is gone", gone, timeout=45)
    seconds = time.monotonic() - begun
    print(f"\nroute gone {seconds:.1f} s after scancel, marie's job: {rival.said()}")
    assert not [text for _, text in seen if PAGE in text]
    assert seconds < 15, "the next regular look at the job is up to 30 s away"


def test_a_stale_route_leads_to_nobody_else(lab, hub, thief):
    """A route with ada's certificate leads to a port of marie's: the front door and the Hub refuse her certificate."""
    hub.start_server("ada", partition="highmem", memory=500)
    rival = thief(OTHER)
    wait_for("marie's job has the port", lambda: "took" in rival.said())
    wanted = lab.master.read(WANTED)
    put(lab, wanted.replace(routed(hub).rpartition(":")[2], str(OTHER)))
    try:
        wait_for("the route leads to marie's job", lambda: routed(hub).endswith(f":{OTHER}"))
        wait_for("the front door has the route", lambda: pages(hub)[0][0] == 500)
        assert [status for status, _ in pages(hub)] == [500, 500]
        assert [line for line in rival.said() if line.startswith("refused")], "the front door has met marie's job"
        done = lab.master.run([HUB_PYTHON, "-c", CONNECT, WANTED, str(OTHER)], check=False)
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    finally:
        put(lab, wanted)


def put(lab, text):
    """Write the file in which the Hub asks for routes."""
    lab.master.write("/run/routes", text)
    script = "install -o jupyterhub -m 0600 /run/routes $1.new && mv $1.new $1; rm /run/routes"
    lab.master.run(["sh", "-c", script, "put", WANTED])
