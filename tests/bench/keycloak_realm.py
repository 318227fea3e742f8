"""How long keycloak_realm takes, beside keycloak-config-cli and Ansible's community.general on the same Keycloak.

    python -m tests.bench.keycloak_realm                       100 groups, 1,000 users, 50 clients
    python -m tests.bench.keycloak_realm --large               1,000 groups, 10,000 users, 500 clients
    python -m tests.bench.keycloak_realm --config-cli FILE     that jar of keycloak-config-cli, not its maker's release

Every run is a process of its own, its start included; requests are counted by Keycloak itself. Ansible's modules
take one object per task, so a sample is measured and multiplied. A program that cannot be had is named at the end, and
its figures are left out.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.functional.keycloak import ADMIN, ADMIN_PASSWORD, MANAGEMENT, SALT, SALT_SECRET, URL, Keycloak
from tests.lab.harness import settings
from tests.lab.harness.shell import CommandFailed, run, step

CONFIG_CLI = "https://github.com/adorsys/keycloak-config-cli/releases/download/v6.5.0/keycloak-config-cli-26.5.4.jar"
ANSIBLE = "ansible==12.3.0"
OURS_REALM = "ours"
PATIENCE = 60  # seconds without a byte of a download
SAMPLE = 20  # objects of each kind that Ansible really does
CUT_OFF = 124  # the status of timeout(1)

# Applies the realm of a file, as salt-call on the master would, and prints what it changed.
OURS = """
import json, sys, tempfile
from pathlib import Path
from tests.functional.modules import Modules
name, file, connection = sys.argv[1:]
with tempfile.TemporaryDirectory() as directory:
    modules = Modules("keycloak_realm", Path(directory), keycloak_realm=json.loads(connection))
    outcome = modules.apply(name, json.loads(Path(file).read_text()))
assert not outcome["error"], outcome["error"]
print(len(outcome["changes"]))
"""


def declaration(name, groups, users, clients):
    """Return a realm in a form that all three take."""
    return {
        "realm": name,
        "enabled": True,
        "roles": {"realm": [{"name": f"role{n}", "description": f"Role {n}"} for n in range(5)]},
        "groups": [{"name": f"g{n}", "attributes": {"gid": [str(30000 + n)]}} for n in range(groups)],
        "clients": [
            {
                "clientId": f"c{n}",
                "name": f"Client {n}",
                "enabled": True,
                "secret": f"secret-of-{n}",
                "redirectUris": [f"https://c{n}.example.org/*"],
                "protocolMappers": [
                    {
                        "name": "groups",
                        "protocol": "openid-connect",
                        "protocolMapper": "oidc-group-membership-mapper",
                        "config": {"claim.name": "groups", "full.path": "true", "access.token.claim": "true"},
                    }
                ],
            }
            for n in range(clients)
        ],
        "users": [
            {
                "username": f"user{n}",
                "enabled": True,
                "email": f"user{n}@example.org",
                "firstName": f"First {n}",
                "lastName": f"Last {n}",
                "groups": [f"/g{n % groups}"] + ([f"/g{(n + 1) % groups}"] if n % 10 == 0 else []),
                "realmRoles": [f"role{n % 5}"],
            }
            for n in range(users)
        ],
    }


def change(declared):
    """Change one in a hundred of each kind."""
    for entry in declared["groups"][1::100]:
        entry["attributes"] = {"gid": ["77"]}
    for entry in declared["clients"][1::100]:
        entry["redirectUris"] = ["https://changed.example.org/*"]
    for entry in declared["users"][1::100]:
        entry["lastName"] = "Changed"


def line(name, row):
    return f"{name:46} {'' if row[2] else '>':>1}{row[0]:8.1f} s {row[1]:9.0f} requests"


class Bench:
    """Measures runs against one Keycloak."""

    def __init__(self, keycloak, scratch, limit):
        self.keycloak = keycloak
        self.scratch = scratch
        self.limit = limit  # seconds after which a run is cut off
        self.rows = {}  # name: (seconds, requests, whether it ended by itself)

    def requests(self):
        """Return how many requests Keycloak has served."""
        text = self.keycloak.session.get(f"{MANAGEMENT}/metrics", timeout=60).text
        return sum(float(n) for n in re.findall(r"^http_server_requests_seconds_count\{.*\} (\S+)$", text, re.M))

    def measure(self, name, words, **options):
        """Run a command; note its time, its requests, and whether it came to its end."""
        before, start = self.requests(), time.monotonic()
        done = run(["timeout", self.limit, *words], timeout=self.limit + 60, check=False, **options)
        taken = time.monotonic() - start
        if done.returncode not in (0, CUT_OFF):
            raise CommandFailed(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        self.rows[name] = (taken, self.requests() - before, not done.returncode)
        print(f"  {line(name, self.rows[name])}", flush=True)
        return done.stdout

    # -- the three ------------------------------------------------------------------------------

    def ours(self, name, declared, changes):
        file = self.scratch / "ours.json"
        file.write_text(json.dumps(declared))
        options = {**self.keycloak.connection, "timeout": 600}
        out = self.measure(name, [sys.executable, "-c", OURS, declared["realm"], file, json.dumps(options)])
        assert bool(int(out)) is changes, out

    def config_cli(self, name, declared, cache):
        """``cache``: whether a file with the checksum of last time is taken for applied, without a look."""
        self.keycloak.node.write("/srv/theirs.json", json.dumps(declared), "0600")
        words = [
            "java", "-jar", "/srv/config-cli.jar", f"--keycloak.url={URL}", "--keycloak.grant-type=client_credentials",
            f"--keycloak.client-id={SALT}", f"--keycloak.client-secret={SALT_SECRET}", "--keycloak.read-timeout=600s",
            f"--import.cache.enabled={str(cache).lower()}", "--import.files.locations=/srv/theirs.json",
        ]  # fmt: skip
        # Within the machine too: what enters it does not pass a signal on.
        self.measure(name, self.keycloak.node.command(["timeout", self.limit, *words]))

    def ansible(self, name, environment, tasks):
        """Run tasks ``[(module, arguments, items)]``; one run each, so that each kind has its own figures."""
        for module, arguments, items in tasks:
            login = {
                "auth_keycloak_url": URL, "auth_realm": "master", "auth_username": ADMIN,
                "auth_password": ADMIN_PASSWORD, "realm": OURS_REALM,
            }  # fmt: skip
            task = {f"community.general.{module}": {**login, **arguments}, "loop": items}
            task |= {"loop_control": {"label": "{{ item.name }}"}, "no_log": True}
            file = self.scratch / "play.json"
            file.write_text(
                json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}])
            )
            interpreter = f"ansible_python_interpreter={environment}/bin/python"
            words = [environment / "bin/ansible-playbook", "-i", "localhost,", "-e", interpreter, file]
            home = {"ANSIBLE_HOME": str(self.scratch), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
            self.measure(f"{name}: {SAMPLE} x {module}", words, env={**os.environ, **home})


def tasks(declared, prefix=""):
    """Return what Ansible is to do for a sample of each kind of object; with a prefix they are new ones."""

    def items(part, key):
        return [{**entry, "name": prefix + entry[key], "title": entry.get("name")} for entry in declared[part][:SAMPLE]]

    people = items("users", "username")
    for entry in people:
        entry["email"] = prefix + entry["email"]
        entry["groups"] = [{"name": path[1:], "state": "present"} for path in entry["groups"]]
        entry["roles"] = [{"name": name} for name in entry["realmRoles"]]
    return [
        (
            "keycloak_group",
            {"name": "{{ item.name }}", "attributes": "{{ item.attributes }}"},
            items("groups", "name"),
        ),
        (
            "keycloak_client",
            {
                "client_id": "{{ item.name }}",
                "name": "{{ item.title }}",
                "secret": "{{ item.secret }}",
                "redirect_uris": "{{ item.redirectUris }}",
                "protocol_mappers": "{{ item.protocolMappers }}",
            },
            items("clients", "clientId"),
        ),
        (
            "keycloak_user",
            {
                "username": "{{ item.name }}",
                "enabled": True,
                "email": "{{ item.email }}",
                "first_name": "{{ item.firstName }}",
                "last_name": "{{ item.lastName }}",
                "groups": "{{ item.groups }}",
            },
            people,
        ),
        ("keycloak_user_rolemapping", {"target_username": "{{ item.name }}", "roles": "{{ item.roles }}"}, people),
    ]


COUNTED = {
    "keycloak_group": "groups",
    "keycloak_client": "clients",
    "keycloak_user": "users",
    "keycloak_user_rolemapping": "users",
}


def extrapolated(rows, name, declared):
    """Return ``(seconds, requests)`` of all objects, from the sample of each kind."""
    totals = [0, 0]
    for module, part in COUNTED.items():
        row = rows[f"{name}: {SAMPLE} x {module}"]
        for index in (0, 1):
            totals[index] += row[index] * len(declared[part]) / SAMPLE
    return (*totals, True)


def config_cli():
    """Return the path of keycloak-config-cli's jar, fetching it from its maker if it is not there."""
    target = settings.CACHE / "bench" / CONFIG_CLI.rpartition("/")[2]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with step("Fetching keycloak-config-cli"):
            part = target.with_suffix(".part")
            with urllib.request.urlopen(CONFIG_CLI, timeout=PATIENCE) as answer, part.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file)
            part.rename(target)
    return target


def ansible():
    """Return the virtual environment with Ansible and its community's modules, making it if it is not there."""
    environment = settings.CACHE / "bench/ansible"
    if not (environment / "ready").exists():
        with step("Installing Ansible"):
            run([sys.executable, "-m", "venv", "--clear", environment])
            run([environment / "bin/pip", "--quiet", "install", ANSIBLE], timeout=900)
            (environment / "ready").touch()
    return environment


def available(programs, missing):
    """Return ``{name: path}`` of the programs that can be had; ``missing`` gets ``{name: reason}`` of the others.

    programs
        ``{name: function}``; each function returns the program's path, or raises.
    """
    paths = {}
    for name, get in programs.items():
        try:
            paths[name] = get()
        except (OSError, http.client.HTTPException, CommandFailed, subprocess.SubprocessError) as error:
            missing[name] = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            print(f"  {name} is missing: {missing[name]}", flush=True)
    return paths


def measure(bench, sizes, programs):
    """Run keycloak_realm, and each of ``programs`` (``{name: path}``) it is compared with; return the rows to print."""
    declared = declaration(OURS_REALM, *sizes)
    bench.ours("keycloak_realm: first apply", declared, True)
    bench.ours("keycloak_realm: no-op", declared, False)
    change(declared)
    bench.ours("keycloak_realm: 1 % change", declared, True)
    if "Ansible" in programs:
        for name, prefix in (("Ansible, no-op", ""), ("Ansible, first", "new-")):
            bench.ansible(name, programs["Ansible"], tasks(declared, prefix))
            bench.rows[f"{name} (extrapolated)"] = extrapolated(bench.rows, name, declared)
    bench.keycloak.admin("DELETE", OURS_REALM)
    if "keycloak-config-cli" in programs:
        measure_config_cli(bench, declaration("theirs", *sizes), programs["keycloak-config-cli"])
    return bench.rows


def measure_config_cli(bench, declared, jar):
    """Run keycloak-config-cli."""
    run(["cp", jar, bench.keycloak.node.root / "srv/config-cli.jar"])
    bench.config_cli("config-cli: first apply", declared, cache=True)
    if bench.rows["config-cli: first apply"][2]:  # else there is no realm to compare with
        bench.config_cli("config-cli: no-op, by checksum only", declared, cache=True)
        bench.config_cli("config-cli: no-op, with a look", declared, cache=False)
        change(declared)
        bench.config_cli("config-cli: 1 % change", declared, cache=True)
    bench.keycloak.admin("DELETE", "theirs", check=False)


COMPARED = {  # what of ours is beside what of theirs
    "keycloak_realm: first apply": ("config-cli: first apply", "Ansible, first (extrapolated)"),
    "keycloak_realm: no-op": (
        "config-cli: no-op, with a look",
        "config-cli: no-op, by checksum only",
        "Ansible, no-op (extrapolated)",
    ),
    "keycloak_realm: 1 % change": ("config-cli: 1 % change", "Ansible, no-op (extrapolated)"),
}


def show(sizes, rows, missing):
    groups, users, clients = sizes
    print(f"\nkeycloak_realm: {groups} groups, {users} users, {clients} clients; > is cut off")
    for name, row in rows.items():
        if " x " not in name:
            print(f"  {line(name, row)}")
    for ours, others in COMPARED.items():
        for other in filter(rows.get, others):
            least = "" if rows[other][2] else "more than "
            print(f"  {ours}: {least}{rows[other][0] / rows[ours][0]:.1f} times as fast as {other}")
    for name, reason in missing.items():
        print(f"  not compared with {name}, which is missing: {reason}")


def main(arguments=()):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--large", action="store_true", help="1,000 groups, 10,000 users, 500 clients; takes long")
    parser.add_argument("--config-cli", type=Path, metavar="JAR", help="keycloak-config-cli, already here")
    parser.add_argument("--limit", type=int, default=3600, help="seconds after which a run is cut off (3600)")
    given = parser.parse_args(arguments)
    sizes = (1000, 10000, 500) if given.large else (given.groups, given.users, given.clients)
    jar = (lambda: given.config_cli.resolve(strict=True)) if given.config_cli else config_cli
    missing, keycloak = {}, Keycloak()
    programs = available({"keycloak-config-cli": jar, "Ansible": ansible}, missing)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            keycloak.start()
            rows = measure(Bench(keycloak, Path(scratch), given.limit), sizes, programs)
        finally:
            keycloak.destroy()
    show(sizes, rows, missing)


if __name__ == "__main__":
    main(sys.argv[1:])
