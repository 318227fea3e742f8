"""formulas/conda_store and formulas/redis, applied to a machine: what they promise of the service.

The tests follow one another on that machine, as its life would: an environment is built, changed, built wrongly;
services are killed; what is not needed is removed.
"""

import json

import pytest

from tests.functional.conda_store import NAME, PILLAR, SHARED, UNITS
from tests.lab.harness.shell import wait_for

ENTRY_POINTS = {"22", "80", "443", "8022", "8786"}  # of sshd and of the front door
PORTS = {"conda-store-server": "5000", "conda-store-channels": "5001"}
PYTHON = "/opt/qhub/conda_store/bin/python"
# In the machine: what a person of these roles and groups may do.
RIGHTS = """
import json, sys
sys.path.insert(0, "/usr/local/lib/qhub-conda-store")
import qhub_conda.vendored
from qhub_conda.rights import role_bindings
print(json.dumps([role_bindings(*each, "global", ["ada", "marie"]) for each in json.load(sys.stdin)]))
"""
# In the machine: the token that the server gives who signs in.
SIGN = """
import json, sys, jwt
print(jwt.encode(json.load(sys.stdin), open("/etc/conda-store/secrets/token_key").read().strip(), "HS256"))
"""
# In the machine, with an environment's own Python: start a kernel of a specification, and have it work.
KERNEL = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=60)
client.execute_interactive("import sys, numpy, shutil; print(sys.prefix, shutil.which('python'), numpy.ones(4).sum())",
                           timeout=60, output_hook=lambda message: print(message["content"].get("text", ""), end=""))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


@pytest.fixture(scope="module")
def machine(conda_store):
    """A machine to which the formulas were applied."""
    return conda_store


@pytest.fixture(scope="module")
def analysis(machine):
    """The number of the first build of an environment for all."""
    return machine.build("global", "analysis", "python", "numpy")


def in_machine(machine, code, given, python=PYTHON):
    return machine.node.run([python, "-c", code], input=json.dumps(given)).stdout


def signed_in(machine, person, bindings):
    """Return the token of somebody who has signed in with these roles."""
    claims = {"exp": 4070908800, "primary_namespace": person, "role_bindings": bindings, "person": person}
    return in_machine(machine, SIGN, claims).strip()


def link(machine, namespace, name):
    """Return where the link of an environment points to; ``""`` if there is none."""
    return machine.shell(f"readlink {SHARED}/environments/{namespace}/{name} || true").strip()


def kernel(machine, namespace, name):
    """Return the kernel of an environment; ``None`` if there is none."""
    path = f"{SHARED}/jupyter/{namespace}/kernels/{namespace}.{name}/kernel.json"
    found = machine.node.run(["cat", path], user="www-data", check=False)
    return json.loads(found.stdout) if found.returncode == 0 else None


def statuses(machine, path, token):
    return machine.ask("GET", path, token=token, check=False).status_code


def test_a_second_run_changes_nothing(machine):
    assert machine.good("conda_store") == {}
    assert machine.good("conda_store", test=True) == {}


def test_nobody_but_this_machine_gets_an_answer(machine):
    listening = [line.split()[3].rsplit(":", 1) for line in machine.shell("ss -Hltn").splitlines()]
    elsewhere = {port for address, port in listening if not address.startswith("127.0.0.1")}
    assert elsewhere == ENTRY_POINTS
    assert {*PORTS.values(), "5432"} <= {port for _, port in listening}
    assert "6379" not in {port for _, port in listening}
    assert machine.shell("stat -c '%a %U %G' /run/redis/redis.sock").split() == ["770", "redis", "redis"]


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_shut_in(machine, unit):
    machine.node.run(["systemd-analyze", "security", "--threshold=20", unit])


def test_the_front_door_has_no_metrics(machine):
    for path in ("metrics", "metrics/", "celery", "celery/", "x/../metrics"):
        assert machine.ask("GET", path, base="/", check=False, allow_redirects=False).status_code in (404, 400), path
    inside = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:5000/conda-store/metrics').read().decode())"
    assert "conda_store_disk_free" in in_machine(machine, inside, None)


def test_signing_in_begins_at_the_realm(machine):
    realm = f"https://{NAME}/auth/realms/qhub/protocol/openid-connect"
    answer = machine.ask("GET", "login/", base="/", token="", check=False, allow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{realm}/auth?client_id=conda-store&")
    assert "code_challenge_method=S256" in answer.headers["Location"]
    for state in ("", "?state=", "?state=guessed&code=x"):
        assert machine.ask("GET", f"oauth_callback/{state}", base="/", token="", check=False).status_code == 400
    assert "access-control-allow-origin" not in machine.ask("GET", "", headers={"Origin": "https://evil.test"}).headers


def test_roles_follow_from_the_realm(machine):
    people = [
        ("ada", ["admin", "developer"], ["/accounts/physics"]),
        ("marie", ["developer"], ["/developer", "/accounts/chemistry", "/accounts/odd.name", "/accounts/ada"]),
        ("vic", ["viewer"], ["/accounts/physics"]),
        ("eve", [], ["/accounts/physics"]),
        ("global", ["developer"], ["/accounts/global"]),
    ]
    shared = {"global/*": ["viewer"]}
    assert json.loads(in_machine(machine, RIGHTS, people)) == [
        {"*/*": ["admin"]},
        {"marie/*": ["admin"], "chemistry/*": ["developer"], **shared},
        {"physics/*": ["viewer"], **shared},
        {},
        shared,
    ]


def test_an_environment_is_built_with_no_way_out(machine, analysis):
    assert machine.shell("ip route show default") == ""
    environment = machine.get("environment/global/analysis/")
    assert environment["current_build_id"] == analysis
    build = link(machine, "global", "analysis")
    assert build.startswith(f"{SHARED}/store/global/")
    run = [f"{SHARED}/environments/global/analysis/bin/python", "-c", "import numpy; print(numpy.arange(5).sum())"]
    assert machine.node.run(run, user="www-data").stdout == "10\n"
    assert machine.shell(f"find {SHARED}/store ! -perm -a+r ! -type l | head -3") == "", "all can read it"
    assert machine.shell(f"find {SHARED}/ -perm /o+w ! -type l | head -3") == "", "nobody else can write there"
    wait_for("the lock file is there", lambda: machine.ask("GET", f"build/{analysis}/lockfile/", check=False).ok)


def test_it_becomes_a_kernel(machine, analysis):
    wait_for("the kernel is there", lambda: kernel(machine, "global", "analysis"), timeout=20)
    found, build = kernel(machine, "global", "analysis"), link(machine, "global", "analysis")
    assert (found["display_name"], found["argv"][0]) == ("analysis (global)", f"{build}/bin/python")
    command = ["env", f"JUPYTER_PATH={SHARED}/jupyter/global", "HOME=/tmp", f"{build}/bin/python", "-c", KERNEL]
    printed = machine.node.run([*command, "global.analysis"], user="www-data").stdout
    assert printed == f"{build} {build}/bin/python 4.0\n"


def test_a_viewer_looks_and_changes_nothing(machine, analysis):
    viewer = machine.scoped()
    assert [each["name"] for each in machine.get("environment/", token=viewer)] == ["analysis"]
    assert machine.submit("global", "own", "python", token=viewer, check=False).status_code == 403
    for method, path, body in (
        ("PUT", "environment/global/analysis/", {"build_id": analysis}),
        ("DELETE", "environment/global/analysis/", None),
        ("DELETE", f"build/{analysis}/", None),
        ("PUT", f"build/{analysis}/", None),
        ("POST", "namespace/own/", None),
        ("PUT", "setting/", {"storage_threshold": 1}),
    ):
        assert machine.ask(method, path, body, token=viewer, check=False).status_code == 403, (method, path)


def test_a_developer_keeps_to_the_own_namespaces(machine):
    developer = machine.scoped(physics="developer")
    for namespace in ("chemistry", "global", "ada"):
        assert machine.submit(namespace, "own", "python", token=developer, check=False).status_code == 403, namespace
    bindings = {"chemistry/*": ["viewer"]}
    asked = machine.ask("POST", "token/", {"role_bindings": bindings}, token=developer, check=False)
    assert asked.status_code == 400, "no token for more than one may oneself"


def test_packages_come_from_the_allowed_channels(machine):
    site = machine.get("setting/")["conda_default_channels"]
    machine.ask("PUT", "setting/chemistry/", {"conda_allowed_channels": site})
    developer, elsewhere = machine.scoped(chemistry="developer"), "http://127.0.0.1:9/elsewhere"
    package = {"name": "alpha", "version": "1", "manager": "conda", "platform": "linux-64", "dependencies": {}}
    package |= {"url": f"{elsewhere}/linux-64/alpha-1-0.tar.bz2", "hash": {"md5": "0" * 32}, "category": "main"}
    metadata = {"content_hash": {"linux-64": "0"}, "channels": [], "platforms": ["linux-64"], "sources": []}
    lock = {"version": 1, "metadata": metadata, "package": [package | {"optional": False}]}
    body = {"namespace": "chemistry", "specification": json.dumps(lock), "is_lockfile": True, "environment_name": "own"}
    for answer in (
        machine.submit("chemistry", "own", "python", channels=[elsewhere], token=developer, check=False),
        machine.submit("chemistry", "own", "python", f"{elsewhere}::alpha", token=developer, check=False),
        machine.ask("POST", "specification/", body, token=developer, check=False),
    ):
        assert answer.status_code == 400, answer.text
        assert elsewhere in answer.text
    assert machine.get("setting/")["conda_allowed_channels"] == [], "a namespace's settings are its own"
    assert machine.ask("PUT", "setting/chemistry/", {}, token=developer, check=False).status_code == 403


def test_each_namespace_builds_as_a_user_of_its_own(machine, analysis):
    physics = machine.build("physics", "own", "python")
    assert physics > analysis
    files = [
        machine.shell(f"stat -c %u {link(machine, *names)}/bin")
        for names in (("global", "analysis"), ("physics", "own"))
    ]
    assert len(set(map(int, files))) == 2
    assert min(map(int, files)) > 4_000_000_000
    machine.ask("DELETE", "environment/physics/own/")


def test_a_namespace_is_the_one_of_its_name_alone(machine):
    """Names with a dot or an underscore are names, not patterns."""
    for name in ("phys.lab", "phys_lab", "physxlab"):
        machine.build(name, "own", "python")
    for name in ("phys.lab", "phys_lab"):
        developer = machine.scoped(**{name: "developer"})
        seen = {each["namespace"]["name"] for each in machine.get("environment/", token=developer)}
        assert seen - {"global"} == {name}
        assert {each["name"] for each in machine.get("namespace/", token=developer)} - {"global"} == {name}
        assert statuses(machine, f"environment/{name}/own/", developer) == 200
        assert statuses(machine, "environment/physxlab/own/", developer) == 403
        assert machine.submit("physxlab", "more", "python", token=developer, check=False).status_code == 403
        wider = {"role_bindings": {"physxlab/*": ["viewer"]}}
        assert machine.ask("POST", "token/", wider, token=developer, check=False).status_code == 400
    (rights,) = json.loads(in_machine(machine, RIGHTS, [["ada.lovelace", ["developer"], ["/accounts/phys.lab"]]]))
    assert rights == {"ada.lovelace/*": ["admin"], "phys.lab/*": ["developer"], "global/*": ["viewer"]}
    for name in ("phys.lab", "phys_lab", "physxlab"):
        machine.ask("DELETE", f"environment/{name}/own/")


def test_nobody_else_gets_in(machine):
    assert machine.ask("GET", "environment/", token="").json()["data"] == []
    assert machine.ask("POST", "token/", {}, token="", check=False).status_code == 400
    assert statuses(machine, "environment/global/analysis/", "") in (401, 403)
    marie, gone = (signed_in(machine, name, {f"{name}/*": ["admin"]}) for name in ("marie", "gone"))
    assert statuses(machine, "setting/marie/", marie) == 200
    assert statuses(machine, "setting/gone/", gone) == 403
    other = {"primary_namespace": "chemistry", "role_bindings": {"marie/*": ["viewer"]}}
    assert machine.ask("POST", "token/", other, token=marie, check=False).status_code == 400
    body = {"role_bindings": {"marie/*": ["admin"]}}
    copy = machine.ask("POST", "token/", body, token=marie).json()["data"]["token"]
    users = PILLAR["users"]["users"]
    locked = {**PILLAR["users"], "users": {**users, "marie": {**users["marie"], "locked": True}}}
    machine.set_pillar({"users": locked})
    assert set(machine.good("conda_store")) == {"conda-store knows the people"}
    for token in (marie, copy):
        assert statuses(machine, "setting/marie/", token) == 403, "whoever is locked out is so at once"
    machine.set_pillar({"users": PILLAR["users"]})
    assert set(machine.good("conda_store")) == {"conda-store knows the people"}
    assert statuses(machine, "setting/marie/", copy) == 200


def test_what_cannot_be_solved_fails_with_the_solver_s_words(machine, analysis):
    before = link(machine, "global", "analysis")
    build = machine.submit("global", "analysis", "python", "numpy <1")
    assert machine.finished(build)["status"] == "FAILED"
    assert "numpy[version='<1']" in machine.log(build).replace("numpy <1", "numpy[version='<1']")
    assert "PackagesNotFoundError" in machine.log(build) or "UnsatisfiableError" in machine.log(build)
    assert machine.get("environment/global/analysis/")["current_build_id"] == analysis
    assert link(machine, "global", "analysis") == before


def test_a_killed_server_comes_back_and_the_build_goes_on(machine, analysis):
    old = link(machine, "global", "analysis")
    build = machine.submit("global", "analysis", "python", "numpy", "toolz")
    wait_for("the build has begun", lambda: machine.get(f"build/{build}/")["status"] == "BUILDING")
    machine.node.run(["systemctl", "kill", "--signal=KILL", "conda-store-server"])
    wait_for("the server is back", lambda: machine.ask("GET", "", check=False).ok)
    assert machine.finished(build)["status"] == "COMPLETED", machine.log(build)
    new = link(machine, "global", "analysis")
    assert new != old
    wait_for(
        "the kernel is of the new build",
        lambda: kernel(machine, "global", "analysis")["argv"][0] == f"{new}/bin/python",
        timeout=20,
    )
    assert machine.shell(f"test -x {old}/bin/python && echo there"), "who still runs the old one keeps it"


def test_a_killed_worker_comes_back_and_the_build_has_failed(machine):
    build = machine.submit("physics", "broken", "python")
    find = "ls -d /opt/qhub/shared/conda/store/physics/*-broken 2>/dev/null || true"
    wait_for("there is something on the disk", lambda: machine.shell(find), timeout=120)
    machine.node.run(["systemctl", "kill", "--signal=KILL", "conda-store-worker"])
    assert machine.finished(build, timeout=60)["status"] == "FAILED"
    assert "not present on workers" in machine.log(build)


def test_a_killed_queue_comes_back_with_what_was_in_it(machine):
    machine.node.run(["systemctl", "stop", "conda-store-worker"])
    build = machine.submit("physics", "queued", "python")
    machine.node.run(["systemctl", "kill", "--signal=KILL", "redis-server"])
    wait_for("Redis is back", lambda: "redis" in machine.shell("ls /run/redis", check=False))
    machine.node.run(["systemctl", "start", "conda-store-worker"])
    assert machine.finished(build)["status"] == "COMPLETED", machine.log(build)


def test_what_is_removed_is_no_kernel_any_more(machine):
    wait_for("the kernel is there", lambda: kernel(machine, "physics", "queued"), timeout=20)
    build = link(machine, "physics", "queued")
    machine.ask("DELETE", "environment/physics/queued/")
    wait_for("the kernel is gone", lambda: kernel(machine, "physics", "queued") is None, timeout=30)
    assert link(machine, "physics", "queued") == ""
    assert machine.shell(f"test -e {build} || echo gone") == "gone\n"


def test_what_nobody_needs_is_removed(machine, analysis):
    keep = {"builds": 0, "failed_days": 0, "packages": True}
    cluster = {**PILLAR["cluster"], "conda_store": {**PILLAR["cluster"]["conda_store"], "retention": keep}}
    machine.set_pillar({"cluster": cluster})
    machine.good("conda_store")
    machine.wait()
    current = link(machine, "global", "analysis")
    assert len(machine.shell(f"ls -d {SHARED}/store/*/*/").split()) > 1
    machine.node.run(["systemctl", "start", "conda-store-retention"])
    only = f"{current}/\n"
    wait_for("only the current build is there", lambda: machine.shell(f"ls -d {SHARED}/store/*/*/") == only, timeout=60)
    run = [f"{current}/bin/python", "-c", "import numpy, ipykernel"]
    machine.node.run(run, user="www-data")
    assert kernel(machine, "global", "analysis")["argv"][0] == f"{current}/bin/python"


def test_no_secret_was_seen(machine):
    secrets = {machine.secrets[f"conda_store_{name}"] for name in ("client_secret", "token_key", "salt_token")}
    seen = {
        "a command line": machine.shell("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '"),
        "the journal": machine.shell("journalctl --quiet --no-pager --output=cat"),
        "a log": machine.shell("cat /var/log/salt-solo /var/log/postgresql/*"),
        "a state's return": "".join(machine.returns),
    }
    assert [where for where, text in seen.items() if any(secret in text for secret in secrets)] == []

    def readable(user):
        command = ["grep", "-rslFf", "-", "/etc", "/run", "/tmp", "/var", SHARED]
        found = machine.node.run(command, user=user, input="\n".join(secrets), check=False)
        return {path for path in found.stdout.split() if not path.startswith("/run/credentials/")}

    assert "/etc/conda-store/secrets/salt_token" in readable("root")
    assert readable("www-data") == set()
    assert readable("conda-store") == set()
    assert readable("conda-worker") == set()
