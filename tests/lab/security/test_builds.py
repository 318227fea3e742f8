"""A developer's build reads no secret, reaches no service, and changes nothing but the developer's own environments.

Marie serves a channel of one package from her shell on the master, and has conda-store build an environment with that
package. The package's post-link script is the attack.
"""

import base64
import hashlib
import io
import json
import tarfile
import uuid

import pytest

from tests.lab.browser import ROOT, page, signed_in
from tests.lab.harness.shell import wait_for
from tests.lab.test_conda_store import HOME, SHARED, SIGN_IN, ask_as_salt
from tests.lab.test_conda_store import ask as ask_in

PORT = 39998  # of the channel, on the master's loopback
CHANNEL = f"http://127.0.0.1:{PORT}"
NAME = "attack"
POST_LINK = '#!/bin/sh\n"$PREFIX/bin/python" "$PREFIX/share/attack.py" > "$PREFIX/share/attack.json"\n'
#: Runs in the build; prints what it could do.
ATTACK = f"""
import glob, json, os, socket, stat, subprocess

def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return None

def content(path):
    with open(path, "rb") as file:
        return file.read()

def redis(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(b"PING\\r\\n")
        return connection.recv(9).decode()

def port(number):
    with socket.create_connection(("127.0.0.1", number), timeout=5):
        return number

def query():
    command = ["psql", "-XAtc", "select 'reached'", "host=/run/postgresql dbname=conda-store"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip() or None

def create(directory):
    path = os.path.join(directory, ".attack")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)
    return directory

def append(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    return path

def setuid():
    path = os.path.join(os.environ["PREFIX"], "setuid")
    open(path, "w").close()
    os.chmod(path, 0o4755)
    return oct(os.stat(path).st_mode & stat.S_ISUID) if os.stat(path).st_mode & stat.S_ISUID else None

def found(function, *candidates):
    return [each for each in (attempt(function, candidate) for candidate in candidates) if each is not None]

nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
subprocess.Popen(["sleep", "3600"], start_new_session=True, **nothing)
lines = [(attempt(content, f"{{each}}/cmdline") or b"").decode() for each in glob.glob("/proc/[0-9]*")]
services = ("conda-store\\0server", "conda-store\\0worker", "redis-server", "postgres:")
secrets = glob.glob("/proc/[0-9]*/root/run/credentials/*/*") + glob.glob("/run/credentials/*/*")
python = os.path.realpath("{SHARED}/environments/global/analysis/bin/python3")
other = glob.glob("{SHARED}/*/global") + glob.glob("{SHARED}/*/global/*/") + glob.glob("{SHARED}/*/physics")
print(json.dumps({{
    "user": os.getuid(),
    "secrets": [path for path in secrets if attempt(content, path) is not None],
    "processes": [line for line in lines if any(name in line for name in services)],
    "redis": attempt(redis, "/run/redis/redis.sock"),
    "database": attempt(query),
    "ports": found(port, 5000, 5432, 6817, 8080, 9090, {PORT}),
    "directories": found(create, "{SHARED}", "{SHARED}/jupyter/global", *other),
    "files": found(append, python, "{SHARED}/jupyter/global/kernels/global.analysis/kernel.json"),
    "setuid": attempt(setuid),
}}))
"""


def package():
    """Return the package: an archive as conda takes it, and the entry for it in the channel's index."""
    index = {"name": NAME, "version": "1", "build": "0", "build_number": 0, "depends": ["python"], "subdir": "noarch"}
    files = {
        "info/index.json": json.dumps(index),
        "info/files": f"bin/.{NAME}-post-link.sh\nshare/attack.py\n",
        f"bin/.{NAME}-post-link.sh": POST_LINK,
        "share/attack.py": ATTACK,
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:bz2") as file:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text), 0o755
            file.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue(), index


@pytest.fixture(scope="module")
def channel(master):
    """Marie's channel: its address."""
    archive, index = package()
    file, directory = f"{NAME}-1-0.tar.bz2", "/home/marie/channel"
    index |= {"size": len(archive), "md5": hashlib.md5(archive, usedforsecurity=False).hexdigest()}
    index |= {"sha256": hashlib.sha256(archive).hexdigest()}
    master.run(["mkdir", "-p", f"{directory}/noarch", f"{directory}/linux-64"], user="marie")
    for subdir, packages in (("noarch", {file: index}), ("linux-64", {})):
        repodata = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}}
        master.write(f"{directory}/{subdir}/repodata.json", json.dumps(repodata))
    unpack = "import base64, sys; open(sys.argv[1], 'wb').write(base64.b64decode(sys.stdin.read()))"
    text = base64.b64encode(archive).decode()
    master.run(["python3", "-c", unpack, f"{directory}/noarch/{file}"], user="marie", input=text)
    serve = f"exec python3 -m http.server --bind 127.0.0.1 --directory {directory} {PORT}"
    unit = ["systemd-run", "--quiet", "--collect", "--unit=attack-channel", "--uid=marie", "sh", "-c", serve]
    master.run(unit)
    try:
        listens = ["ss", "-Hltn", f"sport = :{PORT}"]
        wait_for("the channel is served", lambda: master.run(listens).stdout)
        yield CHANNEL
    finally:
        master.run(["systemctl", "stop", "attack-channel"], check=False)
        master.run(["rm", "-rf", directory])


@pytest.fixture(scope="module")
def marie(lab, browser):
    """Marie's page of conda-store."""
    with signed_in(lab, browser, "marie", *SIGN_IN) as shown:
        yield shown


@pytest.fixture(scope="module")
def attack(master, marie, channel):
    """What the package could do when Marie had it built."""
    default = ask_as_salt(master, "GET", "setting/")["conda_default_channels"]
    specification = {"name": NAME, "channels": [channel, *default], "dependencies": ["python", NAME]}
    status, answer = ask_in(
        marie, "POST", "specification/", {"namespace": "marie", "specification": json.dumps(specification)}
    )
    assert status == 200, answer
    number = answer["data"]["build_id"]

    def ended():
        return ask_as_salt(master, "GET", f"build/{number}/")["status"] in ("COMPLETED", "FAILED")

    wait_for("the build ends", ended, timeout=600, interval=1)
    log = master.run(["sh", "-c", f"cat {SHARED}/artifacts/logs/*-{number}-{NAME}.log"]).stdout
    try:
        assert ask_as_salt(master, "GET", f"build/{number}/")["status"] == "COMPLETED", log[-3000:]
        yield json.loads(master.read(f"{SHARED}/environments/marie/{NAME}/share/attack.json"))
    finally:
        ask_as_salt(master, "DELETE", "environment/marie/attack/")


def test_a_build_is_another_user_than_the_server_and_the_worker(master, attack):
    users = master.run(["sh", "-c", "ps -o uid= -C conda-store; id -u conda-store; id -u conda-worker"]).stdout
    assert attack["user"] not in map(int, users.split())
    assert attack["user"] != 0


def test_a_build_reads_no_secret(attack):
    assert attack["secrets"] == []


def test_a_build_sees_no_process_of_a_service(attack):
    assert attack["processes"] == []


@pytest.mark.parametrize("service", ["redis", "database"])
def test_a_build_does_not_reach(attack, service):
    assert attack[service] is None


def test_a_script_of_a_package_has_no_network(attack):
    assert attack["ports"] == []


@pytest.mark.parametrize("kind", ["directories", "files"])
def test_a_build_writes_in_no_other_namespace(attack, kind):
    assert attack[kind] == []


def test_a_build_makes_no_file_that_runs_as_its_user(attack):
    assert attack["setuid"] is None


def test_a_build_that_ended_left_no_process(master, attack):
    command = ["pgrep", "--uid", str(attack["user"])]
    wait_for("no process is left", lambda: not master.run(command, check=False).stdout, timeout=60)


@pytest.mark.parametrize("place", ["marie/", f"marie/{NAME}/", "physics/", ""])
def test_a_developer_changes_no_setting(marie, place):
    assert ask_in(marie, "PUT", f"setting/{place}", {"conda_allowed_channels": []})[0] == 403


def test_nobody_solves_without_signing_in(browser):
    with page(browser) as shown:
        shown.goto(HOME)
        assert ask_in(shown, "GET", "specification/?conda=python")[0] == 403


def test_a_namespace_s_settings_are_its_own(master):
    site = ask_as_salt(master, "GET", "setting/")
    text = uuid.uuid4().hex
    ask_as_salt(master, "PUT", "setting/marie/", {"conda_included_packages": [text]})
    try:
        assert ask_as_salt(master, "GET", "setting/marie/")["conda_included_packages"] == [text]
        assert ask_as_salt(master, "GET", "setting/global/") == site
        assert ask_as_salt(master, "GET", "setting/") == site
    finally:
        ask_as_salt(master, "PUT", "setting/marie/", {"conda_included_packages": site["conda_included_packages"]})


@pytest.mark.parametrize("name", [".", "..", "-rf", ".hidden"])
def test_a_name_that_a_program_takes_for_something_else_is_refused(marie, name):
    specification = json.dumps({"name": name, "dependencies": ["python"]})
    status, answer = ask_in(marie, "POST", "specification/", {"namespace": "marie", "specification": specification})
    assert status == 400
    assert "not beginning with . or -" in json.dumps(answer)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("query", ["", "?expires=9999999999&signature_=0", "?signature_="])
def test_a_file_of_a_build_is_not_for_everybody(ask, master, method, query):
    logs = master.run(["ls", f"{SHARED}/artifacts/logs"]).stdout.split()
    assert ask(f"/conda-store/storage/logs/{logs[0]}{query}", method=method)[0] == 403


def test_who_may_see_a_build_gets_its_log(ask, master):
    secrets = json.loads(master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    headers = {"Authorization": f"Bearer {secrets['conda_store_salt_token']}"}
    build = ask_as_salt(master, "GET", "build/")[0]["id"]
    status, answer, _ = ask(f"/conda-store/api/v1/build/{build}/logs/", headers)
    assert status == 307
    status, _, text = ask(answer["Location"].removeprefix(ROOT))
    assert (status, bool(text)) == (200, True)
