"""
A person with a shell on the master, or with a job on a worker, and the ports of services there.

The person neither connects to a port that is not for people, by any address of the machine, nor listens on one.
"""

import json

import pytest

from tests.lab.harness import settings
from tests.lab.harness.shell import wait_for
from tests.lab.prometheus import ask
from tests.lab.test_doctor import bad, examine

MASTER = settings.ADDRESSES["master"]
#: Ports for everybody on the machine, and why. The front door and SSH are open to the world.
EVERYBODY = {
    22: "sshd: the world",
    53: "dnsmasq: names",
    80: "traefik: the world",
    443: "traefik: the world",
    6817: "slurmctld: squeue, sbatch; asks for Slurm's credentials",
    6818: "slurmd: srun; asks for Slurm's credentials",
    6819: "slurmdbd: sacct; asks for Slurm's credentials",
    8022: "traefik: the world",
    8786: "traefik: the world",
}
#: Units of the master that listen on a port which people could take if the port were theirs.
UNITS = {
    5000: "conda-store-server",
    5001: "conda-store-channels",
    5432: "postgresql@17-main",
    6817: "slurmctld",
    6819: "slurmdbd",
    8010: "dask-gateway",
    8011: "dask-gateway-proxy",
    8081: "jupyterhub",
    8082: "traefik",
    8222: "sshgate",
    9000: "keycloak",
    9090: "prometheus",
    9091: "qhub-page",
    9093: "prometheus-alertmanager",
    9100: "prometheus-node-exporter",
    9104: "prometheus-mysqld-exporter",
    9115: "prometheus-blackbox-exporter",
    9121: "prometheus-redis-exporter",
    9187: "prometheus-postgres-exporter",
    9341: "slurm-exporter",
}
CONNECT = """
import errno, json, socket, sys

def answer(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.settimeout(5)
        code = client.connect_ex((address, port))
    return errno.errorcode.get(code, "connected")

print(json.dumps([answer(*each) for each in json.load(sys.stdin)]))
"""
BIND = """
import errno, json, socket, sys

def answer(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
        except OSError as error:
            return errno.errorcode[error.errno]
    return "bound"

print(json.dumps([answer(*each) for each in json.loads(sys.argv[1])]))
"""
# Takes the port as soon as the service lets go of it, and answers in the service's place.
LURK = """
import http.server, signal, sys, time

signal.alarm(600)
print("tries", flush=True)
while True:
    try:
        server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
    except OSError:
        time.sleep(0.002)  # for Keycloak to start in the meantime
    else:
        print("TAKEN", flush=True)
        server.serve_forever()
"""
POST = """
import sys, urllib.request as u

headers = {"Content-Type": "application/json", **dict(each.split("=") for each in sys.argv[3:])}
print(u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode() or None, headers), timeout=20).read().decode())
"""
SILENCE = {
    "matchers": [{"name": "alertname", "value": ".+", "isRegex": True}],
    "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z", "createdBy": "marie", "comment": "nothing",
}  # fmt: skip
FALSE_ALERT = [{"labels": {"alertname": "SecProbe"}, "annotations": {"summary": "Sign in again elsewhere"}}]


def listening(node):
    """Return ``{port: {address, ...}}`` of the TCP sockets that listen on a machine."""
    ports = {}
    for line in node.run(["ss", "-Hltn"]).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        ports.setdefault(int(port), set()).add(address.strip("[]").partition("%")[0])
    return ports


def declared(node):
    """Return ``{port: {user, ...}}``: who may connect to local ports beside root, as the kernel has it."""
    users = dict(line.split(":")[2::-2] for line in node.read("/etc/passwd").splitlines())
    table = json.loads(node.run(["nft", "--json", "list", "table", "inet", "qhub_local"]).stdout)["nftables"]
    sets = {each["set"]["name"]: each["set"].get("elem", []) for each in table if "set" in each}
    found = {port: set() for port in sets["ports"]}
    for pair in sets["users"]:
        user, port = pair["concat"]
        user = "-".join(map(str, user["range"])) if isinstance(user, dict) else str(user)
        found[port].add(users.get(user, user))
    return found


def first_port_of_people(node):
    """Return the lowest port on which people's programs may listen."""
    return int(node.read("/proc/sys/net/ipv4/ip_unprivileged_port_start"))


def answers(node, user, targets, program=CONNECT):
    """Return ``{(address, port): what happens}`` when a program of a user, by name or uid, connects."""
    words = ["setpriv", f"--reuid={user}", "--clear-groups", "--", "python3", "-c", program]
    told = node.run(words, input=json.dumps(targets), timeout=120).stdout
    return dict(zip(map(tuple, targets), json.loads(told), strict=True))


def binds(node, user, targets):
    """Return ``{(address, port): what happens}`` when a user's program binds a socket."""
    told = node.run(["runuser", "-u", user, "--", "python3", "-c", BIND, json.dumps(targets)], timeout=120).stdout
    return dict(zip(map(tuple, targets), json.loads(told), strict=True))


def reachable(node, address):
    """Return the declared ports that something listens on at an address of the machine."""
    at = listening(node)
    return [(address, port) for port in sorted(declared(node)) if at.get(port, set()) & {address, "0.0.0.0", "*"}]  # noqa: S104


# Every socket


@pytest.mark.parametrize("name", settings.NODES)
def test_every_socket_that_listens_is_declared(lab, name):
    """The table of sockets: a port is for everybody, or for the users that a formula names."""
    node = lab.node(name)
    ports, users = listening(node), declared(node)
    allowed = {port: " ".join(["root", *sorted(names)]) for port, names in users.items()}
    table = [
        f"{port:>5}  {' '.join(sorted(addresses)):<20}  {EVERYBODY.get(port) or allowed.get(port, 'NOT DECLARED')}"
        for port, addresses in sorted(ports.items())
    ]
    print(f"{name}: port, address, who may connect from the machine", *table, sep="\n")
    assert set(ports) <= set(EVERYBODY) | set(users), "\n".join(table)
    assert not set(EVERYBODY) & set(users)
    datagrams = {line.split()[3].rpartition(":")[2] for line in node.run(["ss", "-Hlun"]).stdout.splitlines()}
    assert datagrams <= {"53"}, "names"


#: Beginnings of the paths of Unix sockets to which everybody may connect, and why.
SOCKETS = {
    "/run/dbus/system_bus_socket": "dbus: asks polkit who may do what",
    "/run/systemd/": "systemd: answers, or asks for root by the peer's uid",
    "/run/ssh-unix-local/socket": "sshd: asks for a key, as on port 22",
    "/run/slurm/sack.socket": "Slurm: makes credentials in the peer's name",
    "/run/slurmctld/sack.socket": "Slurm: makes credentials in the peer's name",
    "/run/slurmdbd/sack.socket": "Slurm: makes credentials in the peer's name",
    "/run/mysqld/mysqld.sock": "MariaDB: lets in users with the peer's name",
    "/run/postgresql/.s.PGSQL.": "PostgreSQL: lets in users with the peer's name",
    "/var/run/postgresql/.s.PGSQL.": "PostgreSQL: lets in users with the peer's name",
}


@pytest.mark.parametrize("name", settings.NODES)
def test_every_unix_socket_for_everybody_is_known(lab, name):
    """A socket to which a person can connect asks by itself who the person is."""
    node = lab.node(name)
    paths = sorted({line.split()[4] for line in node.run(["ss", "-Hlx"]).stdout.splitlines()})
    script = 'for path in "$@"; do test -w "$path" && echo "$path"; done; true'
    files = [path for path in paths if path.startswith("/") and not path.startswith("/run/user/")]  # marie's own
    writable = node.run(["runuser", "-u", "marie", "--", "sh", "-c", script, "sh", *files]).stdout.split()
    table = [f"{path:<60}  {'everybody' if path in writable else 'its users'}" for path in files]
    print(f"{name}: Unix socket, who may connect", *table, sep="\n")
    unknown = " ".join(path for path in writable if not path.startswith(tuple(SOCKETS)))
    assert not unknown


@pytest.mark.parametrize("name", settings.NODES)
def test_every_port_of_a_service_is_lower_than_those_of_people(lab, name):
    node = lab.node(name)
    assert max([*listening(node), *declared(node), *EVERYBODY]) < first_port_of_people(node) == 10000


# Connecting


@pytest.mark.parametrize("address", ["127.0.0.1", MASTER], ids=["loopback", "own address"])
def test_a_person_connects_to_no_port_of_services(master, address):
    targets = reachable(master, address)
    assert len(targets) > 2
    assert set(answers(master, "root", targets).values()) == {"connected"}, "root is let in"
    assert set(answers(master, "marie", targets).values()) == {"ECONNREFUSED"}


def test_a_person_on_a_worker_does_not_connect_either(lab):
    worker = lab.node("w1")
    targets = reachable(worker, settings.ADDRESSES["w1"])
    assert [port for _, port in targets] == [9100]
    assert set(answers(worker, "marie", targets).values()) == {"ECONNREFUSED"}


def test_ipv6_is_no_way_round(master):
    program = "import socket, time; s = socket.create_server(('::1', 9093), family=socket.AF_INET6); time.sleep(60)"
    master.run(["systemd-run", "--unit=qhub-test-listener", "python3", "-c", program])
    try:
        wait_for("it listens", lambda: "::1" in listening(master).get(9093, set()))
        assert answers(master, "marie", [("::1", 9093)]) == {("::1", 9093): "ECONNREFUSED"}
        assert answers(master, "prometheus", [("::1", 9093)]) == {("::1", 9093): "connected"}
    finally:
        master.run(["systemctl", "stop", "qhub-test-listener"], check=False)


def test_each_service_connects_to_the_ports_it_needs_and_no_other(master):
    users, targets = declared(master), reachable(master, "127.0.0.1")
    for user in set().union(*users.values()):
        one = user.partition("-")[0] if user[0].isdigit() else user  # of a range of uids
        connected = {port for (_, port), answer in answers(master, one, targets).items() if answer == "connected"}
        assert connected == {port for _, port in targets if user in users[port]}, user


def test_a_forwarded_connection_is_the_persons_own(master):
    """``ssh -L`` on the master connects as the person."""
    make = "rm -f /root/probe*; ssh-keygen -qt ed25519 -N '' -f /root/probe; cat /root/probe.pub"
    key = master.run(["sh", "-c", make]).stdout
    keys = "/home/marie/.ssh/authorized_keys"
    master.run(["runuser", "-u", "marie", "--", "mkdir", "-p", "/home/marie/.ssh"])
    had = master.run(["cat", keys], check=False).stdout
    ssh = ["ssh", "-i/root/probe", "-oStrictHostKeyChecking=accept-new", "-oUserKnownHostsFile=/root/probe.hosts"]
    forward = [*ssh, "-W", "127.0.0.1:9093", "marie@127.0.0.1"]
    try:
        master.run(["runuser", "-u", "marie", "--", "tee", keys], input=had + key)
        done = master.run(forward, input="GET / HTTP/1.0\r\n\r\n", check=False, timeout=60)
        assert not done.stdout
        assert "Connection refused" in done.stderr
    finally:
        master.run(["runuser", "-u", "marie", "--", "tee", keys], input=had)
        master.run(["sh", "-c", "rm -f /root/probe*"])


@pytest.mark.parametrize(
    ("url", "body", "header"),
    [
        ("http://127.0.0.1:9093/api/v2/silences", SILENCE, ""),
        ("http://127.0.0.1:9093/api/v2/alerts", FALSE_ALERT, ""),
        ("http://127.0.0.1:9121/scrape?target=unix:///run/redis/redis.sock&check-keys=db0=*", "", ""),
        ("http://127.0.0.1:8080/auth/realms/qhub/.well-known/openid-configuration", "", "X-Forwarded-For=203.0.113.7"),
        ("http://127.0.0.1:9090/api/v1/query?query=up", "", ""),
        ("http://127.0.0.1:8082/api/rawdata", "", ""),
        ("http://127.0.0.1:5000/conda-store/celery", "", ""),
    ],
)
def test_a_person_asks_no_service_past_the_front_door(lab, url, body, header):
    words = ["python3", "-c", POST, url, json.dumps(body) if body else "", *([header] if header else [])]
    done = lab.as_user("marie", words, check=False)
    assert done.returncode and "Connection refused" in done.stderr, done.stdout
    if "9093" in url:
        listed = json.loads(lab.master.run(["python3", "-c", POST, url, ""]).stdout)
        assert not [each for each in listed if each["status"]["state"] == "active" and "marie" in json.dumps(each)]
        assert "SecProbe" not in json.dumps(listed)


# Listening


def test_a_person_listens_on_no_port_of_services(master):
    # At an address where no service listens, so that nothing but the right to do it decides.
    ports = sorted({*declared(master), *EVERYBODY, *listening(master)})
    targets = [(address, port) for port in ports for address in ("127.0.0.2", "::1")]
    assert set(binds(master, "marie", targets).values()) == {"EACCES"}


@pytest.mark.parametrize("worker", ["w1"])
def test_a_job_listens_on_ports_of_people_and_on_no_other(lab, worker):
    """PyTorch's, Ray's and MPI's ports, Slurm's own and those of notebooks stay people's."""
    people = [0, 10000, 10001, 12355, 29500, 32768, 59999, 60001, 63000, 63001, 65000, 65535]
    services = [22, 111, 1024, 6818, 9100, 9999]
    targets = json.dumps([("0.0.0.0", port) for port in people] + [("127.0.0.2", port) for port in services])  # noqa: S104
    lab.master.run(["runuser", "-u", "marie", "--", "tee", "/home/marie/bind.py"], input=BIND)
    _, out = lab.job("marie", f"--nodelist={worker}", f"python3 bind.py '{targets}'")
    lab.master.run(["rm", "/home/marie/bind.py"])
    assert json.loads(out) == ["bound"] * len(people) + ["EACCES"] * len(services)


def test_a_person_does_not_get_a_port_while_its_service_restarts(master):
    log = "/run/qhub-test-lurk"
    lurk = ["systemd-run", "--unit=qhub-test-lurk", "--uid=marie", f"--property=StandardOutput=file:{log}"]
    master.run([*lurk, "python3", "-c", LURK, "8080"])
    try:
        wait_for("the program tries", lambda: "tries" in master.run(["cat", log], check=False).stdout)
        master.run(["systemctl", "restart", "keycloak"])
        ready = ["qhub-keycloak", "wait", "1"]
        wait_for("Keycloak is back", lambda: not master.run(ready, check=False).returncode, timeout=300)
        assert "TAKEN" not in master.read(log)
    finally:
        master.run(["systemctl", "stop", "qhub-test-lurk"], check=False)
        master.run(["rm", "-f", log])


# What services do goes on


@pytest.mark.parametrize("port", UNITS)
def test_a_service_that_restarts_gets_its_port_back(master, port):
    unit = UNITS[port]
    assert port in listening(master)
    before = master.run(["systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit]).stdout
    master.run(["systemctl", "restart", unit], timeout=180)

    def back():
        shown = master.run(["systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit]).stdout
        return shown != before and port in listening(master)

    wait_for(f"{unit} listens", back, timeout=180)


def test_all_is_well(lab, master):
    def healthy():
        status, checks = examine(master)
        return not status and not bad(checks)

    wait_for("the doctor finds nothing", healthy, timeout=300, interval=2)
    wait_for(
        "everything is scraped",
        lambda: {each["health"] for each in ask(master, "targets?state=active")["activeTargets"]} == {"up"},
        timeout=120,
        interval=2,
    )


def test_what_people_start_has_no_right_of_a_service(master):
    """The SSH gateway may listen on low ports; what it starts with sudo as a person may not."""
    allowed = "/etc/sudoers.d/qhub-test"
    unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--uid=sshgate"]
    unit.append("--property=AmbientCapabilities=CAP_NET_BIND_SERVICE")
    rights = ["grep", "-E", "CapEff|CapAmb", "/proc/self/status"]
    master.write(allowed, "sshgate ALL=(marie) NOPASSWD: /usr/bin/grep\n", mode="0440")
    try:
        assert set(master.run([*unit, *rights]).stdout.split()[1::2]) == {f"{1 << 10:016x}"}
        assert set(master.run([*unit, "sudo", "-n", "-u", "marie", *rights]).stdout.split()[1::2]) == {"0" * 16}
    finally:
        master.run(["rm", allowed])


# The rules themselves


def test_rules_that_were_removed_come_back(lab, master):
    master.run(["nft", "delete", "table", "inet", "qhub_local"])
    states = lab.apply("master", ["firewall"])
    assert [each["__id__"] for each in states.values() if each["changes"]] == ["Firewall has loaded its rules"]
    assert declared(master)


def test_a_user_that_does_not_exist_changes_nothing(lab, master):
    before = master.run(["nft", "list", "table", "inet", "qhub_local"]).stdout

    def edit(cluster):
        return cluster | {"firewall": {"local_users": {9093: ["nobody-at-all"]}}}

    with lab.pillar(cluster=edit):
        states = lab.apply("master", ["firewall"], check=False)
    failed = [each["__id__"] for each in states.values() if each["result"] is False]
    assert "Firewall knows who uses local ports of site" in failed
    assert master.run(["nft", "list", "table", "inet", "qhub_local"]).stdout == before
    lab.apply("master", ["firewall"])


def test_a_site_lets_its_own_users_in(lab, master):
    def edit(cluster):
        return cluster | {"firewall": {"local_users": {9093: ["daemon"]}}}

    try:
        with lab.pillar(cluster=edit):
            lab.apply("master", ["firewall"])
            assert answers(master, "daemon", [("127.0.0.1", 9093)]) == {("127.0.0.1", 9093): "connected"}
    finally:
        lab.highstate("master")
    assert answers(master, "daemon", [("127.0.0.1", 9093)]) == {("127.0.0.1", 9093): "ECONNREFUSED"}


@pytest.mark.parametrize("name", ["master", "w1"])
def test_a_second_highstate_changes_nothing(lab, name):
    lab.highstate(name)
    states = lab.highstate(name)
    assert not [each["__id__"] for each in states.values() if each["changes"]]
