"""The front door: what it shows, whom it lets to what, and what becomes of it when it is changed, killed or lied to."""

import concurrent.futures
import contextlib
import datetime
import http.client
import json
import random
import re
import secrets
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab.harness import settings
from tests.lab.harness.shell import run, wait_for

NAME = "master.cluster.internal"
MASTER = settings.ADDRESSES["master"]
CA = "/usr/local/share/ca-certificates/qhub-ca.crt"
HUBS = 302  # what no other service has goes to the Hub, which sends it on below /hub
ROUTES = "/etc/traefik/dynamic"
PROBE = """
import http.server, json, time

class Probe(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\n")
            self.wfile.write(b"Upgrade: websocket\\r\\n\\r\\n")
            while line := self.rfile.readline():
                self.wfile.write(b"echo " + line)
            self.close_connection = True
        elif self.path.endswith("/stream"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                self.wfile.write(b"4\\r\\ntick\\r\\n")
                time.sleep(0.05)
        else:
            self.answer(self.headers.items())

    def do_PUT(self):
        arrived = [self.rfile.read(1) and time.time()]
        size = int(self.headers["Content-Length"])
        while size > 1:
            size -= len(self.rfile.read(min(size - 1, 1 << 20)))
        self.answer(arrived + [time.time()])

http.server.ThreadingHTTPServer(("127.0.0.1", 18080), Probe).serve_forever()
"""


# -- asking ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trust(lab, tmp_path_factory):
    """A TLS client's settings that trust the cluster's authority and nobody else."""
    path = tmp_path_factory.mktemp("trust") / "ca.crt"
    path.write_text(lab.master.read(CA))
    return ssl.create_default_context(cafile=path)


def connect(context, name=NAME, address=MASTER, port=443, timeout=10):
    """Return a TLS connection to ``address`` whose certificate is for ``name``."""
    return context.wrap_socket(socket.create_connection((address, port), timeout), server_hostname=name)


@contextlib.contextmanager
def conversation(context, **where):
    """An HTTP connection through :func:`connect`."""
    connection = http.client.HTTPSConnection(where.get("name", NAME))
    connection.sock = connect(context, **where)
    try:
        yield connection
    finally:
        connection.close()


def ask(context, path="/", method="GET", headers=(), **where):
    """Return ``(status, headers, body)`` of one request."""
    with conversation(context, **where) as connection:
        connection.putrequest(method, path, skip_host=any(key == "Host" for key, _ in headers))
        for key, value in headers:
            connection.putheader(key, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def plain(path="/", host=NAME):
    """Return ``(status, headers)`` of one request without TLS."""
    connection = http.client.HTTPConnection(MASTER, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    connection.close()
    return answer.status, answer.headers


def shown(context, **where):
    """Return the certificate (DER) that a client is shown."""
    with connect(context, **where) as connection:
        return connection.getpeercert(binary_form=True)


def traefik(lab):
    """Return the process id of Traefik."""
    return lab.master.run(["systemctl", "show", "-P", "MainPID", "traefik"]).stdout.strip()


# -- TLS ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_ports(lab):
    """The ports of the master, as seen from outside, that speak TLS: all of them are asked."""
    found = []
    for port in sorted(listening(lab.master)):
        with contextlib.suppress(OSError):
            anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            anybody.check_hostname = False
            anybody.verify_mode = ssl.CERT_NONE
            connect(anybody, port=port, timeout=3).close()
            found.append(port)
    assert 443 in found
    return found


def test_every_port_shows_a_certificate_for_all_its_names(tls_ports, trust):
    for port in tls_ports:
        for name in (NAME, "master", MASTER):
            with connect(trust, name, port=port) as connection:
                assert connection.version() == "TLSv1.3", port
                names = {value for _, value in connection.getpeercert()["subjectAltName"]}
        assert {NAME, "master", MASTER} <= names
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(trust, "www.cluster.internal", port=port)


def test_openssl_has_nothing_to_say_about_the_chain(tls_ports, lab, tmp_path):
    (tmp_path / "ca.crt").write_text(lab.master.read(CA))
    for port in tls_ports:
        words = ["openssl", "s_client", "-connect", f"{MASTER}:{port}", "-servername", NAME, "-verify_hostname", NAME]
        told = run([*words, "-CAfile", tmp_path / "ca.crt", "-x509_strict", "-showcerts"], timeout=20)
        assert "Verify return code: 0 (ok)" in told.stdout
        assert told.stdout.count("BEGIN CERTIFICATE") == 2, "its own and the authority's"
        assert "error" not in told.stderr


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(tls_ports, version):
    for port in tls_ports:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            connect(context, port=port)


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "AES256-GCM-SHA384"])
def test_weak_ciphers_are_refused(tls_ports, trust, ciphers):
    for port in tls_ports:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            connect(context, port=port)


def test_a_machine_trusts_the_front_door_and_so_does_every_runtime(lab):
    ask_it = (
        "import urllib.error, urllib.request\n"
        f"try: urllib.request.urlopen('https://{NAME}/no-such-page')\n"
        "except urllib.error.HTTPError as answer: print(answer.code)"
    )
    for node in (lab.master, *lab.workers):
        assert node.run(["python3", "-c", ask_it]).stdout == "404\n", node.name
        told = node.run(["bash", "-lc", "echo $SSL_CERT_FILE $REQUESTS_CA_BUNDLE $NODE_EXTRA_CA_CERTS"]).stdout.split()
        assert told == ["/etc/ssl/certs/ca-certificates.crt"] * 3


def test_the_authoritys_key_stays_its_own_and_certifies_nobody_else(lab):
    assert lab.master.run(["stat", "-c", "%U %a", "/var/lib/qhub/ca/ca.key"]).stdout == "root 600\n"
    assert lab.master.run(["stat", "-c", "%U:%G %a", "/etc/qhub/tls/traefik.key"]).stdout == "root:traefik 640\n"
    forge = (
        "cd $(mktemp -d); openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -subj /CN=x"
        " -addext subjectAltName=DNS:{} 2>/dev/null | openssl x509 -req -CA /var/lib/qhub/ca/ca.crt"
        " -CAkey /var/lib/qhub/ca/ca.key -copy_extensions copyall -out crt 2>/dev/null; openssl verify crt"
    )
    assert (
        "permitted subtree violation" in lab.master.run(["sh", "-c", forge.format("example.org")], check=False).stderr
    )
    assert lab.master.run(["sh", "-c", forge.format("w1.cluster.internal")]).stdout.strip() == "crt: OK"


# -- HTTP --------------------------------------------------------------------------------------------


def test_http_is_sent_to_https(lab):
    status, headers = plain("/some/page?x=1")
    assert (status, headers["Location"]) == (301, f"https://{NAME}/some/page?x=1")


def test_headers_protect_the_browser(trust):
    status, headers, _ = ask(trust, "/no-such-page")
    assert (status, headers["Location"]) == (HUBS, f"https://{NAME}/hub/no-such-page")
    assert int(re.fullmatch(r"max-age=(\d+)", headers["Strict-Transport-Security"])[1]) >= 180 * 86400
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Server" not in headers


@pytest.mark.parametrize("path", ["/dashboard/", "/api/rawdata", "/metrics", "/ping"])
def test_its_own_pages_are_for_the_master_alone(lab, trust, path):
    status, headers, _ = ask(trust, path)
    assert (status, headers["Location"]) == (HUBS, f"https://{NAME}/hub{path}")
    inside = lab.master.run(
        ["python3", "-c", f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8082{path}').status)"]
    )
    assert inside.stdout == "200\n"


def test_it_runs_with_next_to_no_rights(lab):
    told = lab.master.run(["systemd-analyze", "security", "--no-pager", "traefik"]).stdout
    assert float(re.search(r"exposure level for traefik.service: ([\d.]+)", told)[1]) < 2
    status = lab.master.read(f"/proc/{traefik(lab)}/status")
    assert int(re.search(r"CapEff:\s+(\w+)", status)[1], 16) == 1 << 10, "to listen on low ports, and nothing else"
    assert re.search(r"Uid:\s+(\d+)", status)[1] != "0"


# -- routes ------------------------------------------------------------------------------------------


@pytest.fixture
def probe(lab):
    """A service behind the front door, at /probe."""
    lab.master.write("/run/probe.py", PROBE)
    lab.master.run(["systemd-run", "--collect", "--unit=probe", "python3", "/run/probe.py"])
    with route(lab, "probe"):
        yield
    lab.master.run(["systemctl", "stop", "probe"])


@contextlib.contextmanager
def route(lab, name, middlewares=()):
    """A file of routes that leads from /name to the probe."""
    routes = {
        "routers": {name: {"rule": f"PathPrefix(`/{name}`)", "service": name, "middlewares": list(middlewares)}},
        "services": {name: {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:18080"}]}}},
    }
    lab.master.write(f"/run/{name}.yml", json.dumps({"http": routes}))
    lab.master.run(["qhub-check-routes", name, f"/run/{name}.yml"])
    lab.master.run(["mv", f"/run/{name}.yml", f"{ROUTES}/{name}.yml"])
    try:
        wait_for(f"{name} has a route", lambda: name in routers(lab), timeout=20)
        yield
    finally:
        lab.master.run(["rm", f"{ROUTES}/{name}.yml"])
        wait_for(f"{name} has no route", lambda: name not in routers(lab), timeout=20)


def routers(lab):
    """Return the names of the HTTP routes that Traefik has now."""
    told = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8082/api/http/routers').read().decode())"
    return {router["name"].split("@")[0] for router in json.loads(lab.master.run(["python3", "-c", told]).stdout)}


def test_routes_change_without_a_restart_or_a_dropped_connection(lab, trust, probe):
    before = traefik(lab)
    with conversation(trust) as connection:
        connection.request("GET", "/probe/stream")
        stream = connection.getresponse()
        assert stream.read(4) == b"tick"
        assert ask(trust, "/other")[0] == HUBS
        with route(lab, "other"):
            assert ask(trust, "/other")[0] == 200
            assert stream.read(400) == b"tick" * 100
        assert ask(trust, "/other")[0] == HUBS
        assert stream.read(400) == b"tick" * 100
    assert traefik(lab) == before


def test_routes_that_traefik_would_not_take_never_go_live(lab):
    bad: dict[str, dict] = {"unknown key": {"routers": {"x": {"rulez": "Host(`x`)", "service": "x"}}}}
    bad["bad rule"] = {"routers": {"x": {"rule": "Hst(`x`)", "service": "api@internal"}}}
    bad["no such service"] = {"routers": {"x": {"rule": "Host(`x`)", "service": "x"}}}
    bad["no such middleware"] = {
        "routers": {"x": {"rule": "Host(`x`)", "service": "api@internal", "middlewares": ["x"]}}
    }
    bad["taken name"] = {"routers": {"nobody": {"rule": "Host(`x`)", "service": "api@internal"}}}
    for what, routes in bad.items():
        lab.master.write("/run/bad.yml", json.dumps({"http": routes}))
        told = lab.master.run(["qhub-check-routes", "bad", "/run/bad.yml"], check=False)
        assert told.returncode, what
        assert re.search(r"rulez|Hst|x@file|x.* does not exist|already configured", told.stderr), what


def test_a_file_that_no_formula_declares_goes_with_the_next_highstate(lab):
    for path in (f"{ROUTES}/stray.yml", "/etc/nftables.d/qhub/stray.nft"):
        lab.master.write(path, "")
    lab.highstate("master")
    for path in (f"{ROUTES}/stray.yml", "/etc/nftables.d/qhub/stray.nft"):
        assert lab.master.run(["test", "-e", path], check=False).returncode


@pytest.mark.usefixtures("probe")
def test_a_websocket_stays_open_in_both_directions(trust):
    with connect(trust) as connection:
        upgrade = f"GET /probe HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        connection.sendall(upgrade.encode())
        answers = connection.makefile("rb")
        assert b" 101 " in answers.readline()
        while answers.readline().strip():
            pass
        for word in (b"one\n", b"two\n"):
            connection.sendall(word)
            assert answers.readline() == b"echo " + word


@pytest.mark.usefixtures("probe")
def test_an_upload_is_passed_on_as_it_comes(trust):
    size = 64 << 20
    with conversation(trust, timeout=60) as connection:
        connection.putrequest("PUT", "/probe")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        connection.send(b"x" * (1 << 16))
        time.sleep(0.5)  # the client's own pause: the service must have had the first byte before it ends
        resumed = time.time()
        for _ in range(size // (1 << 16) - 1):
            connection.send(b"x" * (1 << 16))
        first, last = json.loads(connection.getresponse().read())
    assert first < resumed < last


@pytest.mark.usefixtures("probe")
def test_what_a_client_says_about_itself_does_not_pass(trust):
    lies = [
        ("X-Forwarded-For", "192.0.2.66"), ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Port", "1"), ("X-Forwarded-Server", "evil"), ("X-Forwarded-Prefix", "/evil"),
        ("X-Real-Ip", "192.0.2.66"), ("X_Forwarded_For", "192.0.2.66"), ("X_Real_IP", "192.0.2.66"),
        ("Forwarded", "for=192.0.2.66;host=evil.example"), ("X-Scheme", "evil"), ("X-Original-URL", "/evil"),
        ("Connection", "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host"),
    ]  # fmt: skip
    status, _, body = ask(trust, "/probe", headers=lies)
    assert status == 200
    seen = {key.lower(): value for key, value in json.loads(body)}
    assert seen["host"] == seen["x-forwarded-host"] == NAME
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == str(settings.GATEWAY)
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", "443")
    assert not [key for key in seen if "_" in key]
    assert not [value for value in seen.values() if "evil" in value or "192.0.2.66" in value]


@pytest.mark.usefixtures("probe")
def test_another_host_name_gets_nothing(trust):
    for host in ("evil.example", "w1.cluster.internal", "", f"{NAME}.evil.example"):
        assert ask(trust, "/probe", headers=[("Host", host)])[0] in (400, 421), host
        status, headers = plain("/probe", host=host)
        assert status in (400, 421)
        assert "Location" not in headers
    for host in (NAME, f"{NAME}:443", NAME.upper(), "master", MASTER):
        assert ask(trust, "/probe", headers=[("Host", host)])[0] == 200, host


@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize("path", ["/probe/%5c..%5cadmin", "/probe/%00", "/probe/a\\b"])
def test_a_path_that_servers_read_differently_is_refused(trust, path):
    assert ask(trust, path)[0] == 400


def test_one_address_cannot_try_passwords_without_end(lab, trust, probe):
    def tries(_):
        with conversation(trust) as connection:
            for _ in range(100):
                connection.request("GET", "/guarded")
                answer = connection.getresponse()
                answer.read()
                yield answer.status

    with route(lab, "guarded", ["auth-ratelimit"]):
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = [status for each in pool.map(lambda n: list(tries(n)), range(8)) for status in each]
        allowed = 200 + 50 * (time.monotonic() - start)
        assert set(statuses) == {200, 429}
        assert 200 <= statuses.count(200) <= allowed
        assert ask(trust, "/probe")[0] == 200, "other routes are as they were"


def test_the_access_log_tells_who_asked_and_holds_no_secret(lab, trust):
    secret = secrets.token_hex(8)
    ask(
        trust,
        f"/no-such-page?token={secret}",
        headers=[("Authorization", f"Bearer {secret}"), ("Cookie", f"a={secret}"), ("User-Agent", "probe")],
    )
    log = "/var/log/traefik/access.log"
    lines = wait_for(
        "it is logged",
        lambda: [line for line in lab.master.read(log).splitlines() if '"probe"' in line],
    )
    entry = json.loads(lines[-1])
    assert (entry["ClientHost"], entry["RequestPath"]) == (str(settings.GATEWAY), "/no-such-page")
    assert secret not in lab.master.read(log)
    assert lab.master.run(["stat", "-c", "%U %a", log]).stdout.split() == ["traefik", "600"]
    lab.master.run(["logrotate", "--force", "/etc/logrotate.d/qhub-traefik"])
    ask(trust, "/after-rotation")
    wait_for("the new log is written", lambda: "/after-rotation" in lab.master.read(log))


# -- certificates ------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_interruption(context):
    """Open connection after connection meanwhile; none may fail."""
    over, failures, done = threading.Event(), [], []

    def visit():
        while not over.is_set():
            try:
                done.append(ask(context)[0])
            except OSError as error:
                failures.append(repr(error))
            over.wait(0.01)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield
    finally:
        over.set()
        visitor.join()
    assert failures == []
    assert len(done) > 10
    assert set(done) == {HUBS}


def settings_of(**changed):
    """Return an edit of cluster.sls that sets formulas' settings."""
    return lambda cluster: cluster | changed


def test_certificates_are_renewed_without_an_interruption(lab, trust):
    before, process = shown(trust), traefik(lab)
    soon = {"days_remaining": 3651, "certificates": {"days_remaining": 366}}
    try:
        with without_interruption(trust), lab.pillar(cluster=settings_of(ca=soon)):
            lab.apply("master", ["traefik"])
            wait_for("the new certificate is shown", lambda: shown(trust) != before, timeout=20)
        assert traefik(lab) == process
    finally:
        lab.apply("master", ["traefik,base"])
        for worker in lab.workers:
            lab.apply(worker.name, ["base"])  # the authority's own certificate is a new one, too
    for node in (lab.master, *lab.workers):
        assert node.read(CA) == lab.master.read("/var/lib/qhub/ca/ca.crt")
        assert node.read(CA).strip() in node.read("/etc/ssl/certs/ca-certificates.crt"), node.name
    ask(trust)  # who has the authority's old certificate trusts the new one's: it is the same key


@pytest.fixture
def site_certificate(lab):
    """Return a function that makes an authority, has it certify names, and puts the files on the master."""

    def make(*names, days=30, another_key=False):
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        authority = x509.Name.from_rfc4514_string("CN=The university")
        now = datetime.datetime.now(datetime.timezone.utc)

        def certificate(subject, key, extension):
            builder = x509.CertificateBuilder(authority, x509.Name.from_rfc4514_string(subject), key.public_key())
            builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=True)
            builder = builder.not_valid_before(now - datetime.timedelta(60))
            return builder.not_valid_after(now + datetime.timedelta(days)).sign(keys[0], hashes.SHA256())

        root = certificate("CN=The university", keys[0], x509.BasicConstraints(ca=True, path_length=None))
        held = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        own = certificate("CN=The cluster", keys[1], held)
        key = keys[2 if another_key else 1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem = [each.public_bytes(serialization.Encoding.PEM).decode() for each in (own, root)]
        lab.master.write("/root/site/door.pem", "".join(pem))
        lab.master.write("/root/site/door.key", key.decode(), mode="0600")
        return ssl.create_default_context(cadata=pem[1])

    yield make
    lab.master.run(["rm", "-rf", "/root/site"])


def test_a_sites_own_certificate_is_shown_if_it_is_fit_and_refused_if_not(lab, trust, site_certificate):
    files = {"certificate": "/root/site/door.pem", "key": "/root/site/door.key"}
    process = traefik(lab)
    wrong: dict[str, tuple[str, dict]] = {
        "is not for master.cluster.internal but for www.example.org": ("www.example.org", {}),
        "is not the key of": (NAME, {"another_key": True}),
        "has ended on": (NAME, {"days": -1}),
    }
    with (
        without_interruption(both := ssl.create_default_context(cadata=lab.master.read(CA))),
        lab.pillar(cluster=settings_of(traefik={"certificate": {"source": "files", "files": files}})),
    ):
        for message, (name, how) in wrong.items():
            site_certificate(name, **how)
            states = lab.apply("master", ["traefik"], check=False)
            refused = next(s for s in states.values() if s.get("__id__") == "Site's certificate is in place")
            assert refused["result"] is False
            assert message in refused["comment"]
            assert "PRIVATE KEY" not in json.dumps(states)
            assert not [s for s in states.values() if s["changes"]]
        fit = site_certificate("*.cluster.internal")
        both.load_verify_locations(
            cadata=lab.master.read("/root/site/door.pem").partition("-----END CERTIFICATE-----\n")[2]
        )
        lab.apply("master", ["traefik"])
        wait_for("the site's certificate is shown", lambda: trusted(fit), timeout=20)
        assert not trusted(trust)
        assert lab.master.run(["stat", "-c", "%U:%G %a", "/etc/qhub/tls/site.key"]).stdout == "root:traefik 640\n"
        again = lab.apply("master", ["traefik"])
        assert not [s for s in again.values() if s["changes"]]
    lab.apply("master", ["traefik"])
    wait_for("the cluster's own is shown again", lambda: trusted(trust), timeout=20)
    assert traefik(lab) == process


def trusted(context):
    """Whether a client with these settings is content with the front door's certificate."""
    try:
        return bool(shown(context))
    except ssl.SSLError:
        return False


def test_a_killed_front_door_comes_back(lab, trust):
    before = traefik(lab)
    lab.master.run(["kill", "-9", before])

    def answers():
        with contextlib.suppress(OSError):
            return traefik(lab) not in ("0", before) and ask(trust)[0] == HUBS

    wait_for("it is back", answers, timeout=30)


# -- the firewall ------------------------------------------------------------------------------------

#: What answers on the master and on a worker, by who asks.
WORLD = {22, 80, 443, 8022, 8786}
OPEN = {
    "a worker": (WORLD | {53, 2049, 4505, 4506, 6817, 6819}, {22, 6818}),
    "the master": (None, {22, 6818, 9100}),
    "a stranger in the network": (WORLD | {4505, 4506}, {22, 6818}),
    "a stranger outside": (WORLD, {22}),
}
SCAN = """
import concurrent.futures, json, socket, sys

address, ports = json.load(sys.stdin)
family = socket.AF_INET6 if ":" in address else socket.AF_INET

def answers(port):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        return client.connect_ex(socket.getaddrinfo(address, port, family)[0][4]) == 0

with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print(json.dumps([port for port, open in zip(ports, pool.map(answers, ports)) if open]))
"""
DNS = """
import socket, sys

query = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"\\x02w1\\x07cluster\\x08internal\\x00\\x00\\x01\\x00\\x01"
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(2)
client.connect((sys.argv[1], 53))
client.send(query)
try:
    print(client.recv(512)[-4:] == socket.inet_aton(sys.argv[2]))
except OSError:
    print(False)
"""


def listening(node):
    """Return the TCP ports on which something on a machine listens."""
    return {int(line.split()[3].rpartition(":")[2]) for line in node.run(["ss", "-Hltn"]).stdout.splitlines()}


def scanned(lab):
    """Return the ports that are tried: all that anything listens on, those that often do, and some others."""
    used = set().union(*(listening(node) for node in (lab.master, *lab.workers)))
    usual = {21, 23, 25, 111, 137, 139, 389, 445, 631, 873, 1433, 3000, 3306, 5000, 5432, 5601, 6379, 8000, 8080, 8081,
             8082, 8443, 8787, 8888, 9000, 9090, 9093, 9200, 10250, 11211, 18080, 27017}  # fmt: skip
    return sorted(used | usual | WORLD | set(random.sample(range(1, 32768), 170)))


@pytest.fixture(scope="module")
def askers(lab):
    """``{who: start of a command that runs there}``; strangers have a machine of their own on the lab's bridge."""
    name, inside, outside = "qhub-stranger", str(settings.NETWORK[200]), "203.0.113.5"
    bridge, inner = "qhub-str0", "qhub-str1"
    # What the site's router would do for the one outside.
    ways = [(node, ["ip", "route", "add", outside, "dev", "host0"]) for node in (lab.master, lab.node("w1"))]
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", bridge, "type", "veth", "peer", "name", inner, "netns", name])
        run(["ip", "-n", name, "link", "set", inner, "address", "02:00:0a:62:00:c8"])  # the same one whenever it comes
        run(["ip", "link", "set", bridge, "up", "master", settings.BRIDGE])
        enter = ["ip", "netns", "exec", name]
        run([*enter, "ip", "link", "set", inner, "up"])
        run([*enter, "ip", "address", "add", f"{inside}/24", "dev", inner])
        run([*enter, "ip", "address", "add", f"{outside}/32", "dev", inner])
        run([*enter, "ip", "address", "add", "fd00:98::200/64", "dev", inner, "nodad"])
        for node, way in ways:
            node.run(way)
        yield {
            "a worker": lab.node("w2").command([]),
            "the master": lab.master.command([]),
            "a stranger in the network": enter,
            "a stranger outside": enter,
        }
    finally:
        for node, way in ways:
            node.run([word.replace("add", "delete") for word in way], check=False)
        run(["ip", "netns", "delete", name], check=False)
        run(["ip", "link", "delete", bridge], check=False)


@contextlib.contextmanager
def speaking(who):
    """Let the stranger speak from the address outside, if that is who asks."""
    way = ["ip", "-n", "qhub-stranger", "route", "replace", str(settings.NETWORK), "dev", "qhub-str1", "src"]
    if who == "a stranger outside":
        run([*way, "203.0.113.5"])
    try:
        yield
    finally:
        run([*way, str(settings.NETWORK[200])])


@pytest.mark.parametrize("who", OPEN)
def test_only_the_listed_ports_answer(lab, askers, who):
    ports = scanned(lab)
    for node, allowed in zip(("master", "w1"), OPEN[who], strict=True):
        if allowed is not None:
            with speaking(who):
                told = run([*askers[who], "python3", "-c", SCAN], input=json.dumps([settings.ADDRESSES[node], ports]))
            assert set(json.loads(told.stdout)) == allowed & listening(lab.node(node)) == allowed, node


def test_only_members_are_told_names(askers):
    for who in ("a worker", "a stranger in the network", "a stranger outside"):
        with speaking(who):
            told = run([*askers[who], "python3", "-c", DNS, MASTER, settings.ADDRESSES["w1"]]).stdout.strip()
        assert told == str(who == "a worker"), who


def test_ipv6_is_no_way_round(lab, askers):
    address = ["fd00:98::10/64", "dev", "host0", "nodad"]
    lab.master.run(["ip", "address", "add", *address])
    try:
        asked = json.dumps([address[0].partition("/")[0], scanned(lab)])
        told = run([*askers["a stranger in the network"], "python3", "-c", SCAN], input=asked)
    finally:
        lab.master.run(["ip", "address", "delete", *address[:3]])
    assert set(json.loads(told.stdout)) == WORLD


def test_rules_are_loaded_in_one_step_and_only_ours(lab, trust, probe):
    lab.master.run(["nft", "add", "table", "inet", "somebody_elses"])
    try:
        with conversation(trust) as connection, without_interruption(trust):
            connection.request("GET", "/probe/stream")
            stream = connection.getresponse()
            for _ in range(5):
                lab.master.run(["systemctl", "reload", "qhub-firewall"])
                assert stream.read(40) == b"tick" * 10
        assert "somebody_elses" in lab.master.run(["nft", "list", "tables"]).stdout
        lab.master.run(["nft", "flush", "ruleset"])
        states = lab.apply("master", ["firewall"])
        assert [s["__id__"] for s in states.values() if s["changes"]] == ["Firewall has loaded its rules"]
        assert "policy drop" in lab.master.run(["nft", "list", "chain", "inet", "qhub", "input"]).stdout
    finally:
        lab.master.run(["nft", "delete", "table", "inet", "somebody_elses"], check=False)


def test_a_rule_that_nftables_does_not_take_changes_nothing(lab):
    before = lab.master.run(["nft", "list", "ruleset"]).stdout
    with lab.pillar(cluster=settings_of(firewall={"rules": ["tcp dport 1234 acept"]})):
        states = lab.apply("master", ["firewall"], check=False)
    refused = next(s for s in states.values() if s.get("__id__") == "Firewall knows the cluster")
    assert refused["result"] is False
    assert "acept" in refused["comment"] + json.dumps(refused["changes"])
    assert lab.master.run(["nft", "list", "ruleset"]).stdout == before
    lab.master.run(["nft", "--check", "--file", "/etc/nftables.d/qhub.nft"])
    lab.apply("master", ["firewall"])


def test_a_site_can_open_more_and_can_do_without(lab):
    with lab.pillar(cluster=settings_of(firewall={"rules": ["ip saddr 192.0.2.0/24 tcp dport 1234 accept"]})):
        lab.apply("w1", ["firewall"])
        assert "192.0.2.0/24 tcp dport 1234 accept" in lab.node("w1").run(["nft", "list", "ruleset"]).stdout
    with lab.pillar(cluster=settings_of(firewall={"enabled": False})):
        lab.apply("w1", ["firewall"])
        assert "qhub" not in lab.node("w1").run(["nft", "list", "tables"]).stdout
        again = lab.apply("w1", ["firewall"])
        assert not [s for s in again.values() if s["changes"]]
    lab.highstate("w1")
    assert "policy drop" in lab.node("w1").run(["nft", "list", "ruleset"]).stdout
    assert lab.node("w1").run(["systemctl", "is-enabled", "qhub-firewall"]).stdout.strip() == "enabled"
