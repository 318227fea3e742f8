"""The pillar: who gets what, and every kind of mistake is refused with a message that helps."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.unit.conftest import ROOT
from tests.unit.load import load

load("salt/_pillar/_gate/__init__.py", "_gate")
qhub = load("salt/_pillar/qhub.py", "pillar_qhub")

NODES = {
    "nodes": {
        "w1": {"address": "10.0.0.11", "features": ["cpu"]},
        "w2": {"address": "10.0.0.12", "features": ["cpu", "gpu"], "weight": 10, "power": False},
    }
}
PARTITIONS = {"partitions": {"debug": {"default": True}, "gpu": {"features": ["gpu"]}}}
USERS = {
    "groups": {"physics": {"gid": 20000}},
    "accounts": {"science": {}, "physics": {"parent": "science", "qos": ["normal", "long"]}},
    "qos": {"long": {}},
    "users": {
        "ada": {"uid": 20001, "groups": ["physics"], "accounts": ["physics"]},
        "bob": {
            "uid": 20002,
            "accounts": {"physics": {"max_jobs": 3, "partitions": {"gpu": {"max_jobs": 1}}}},
        },
    },
}


def cluster(**changes):
    """Return a ``cluster.sls``."""
    master = {"id": "master", "address": "10.0.0.10"}
    return {"cluster": {"master": master, "network": "10.0.0.0/24", **changes}}


def changed(base, path, value):
    """Return ``base`` with ``value`` at a dotted path."""
    first, _, rest = path.partition(".")
    return {**base, first: changed(base.get(first, {}), rest, value) if rest else value}


# Who gets what


def test_defaults_are_a_valid_pillar(site):
    pillar = site.pillar()
    assert "_errors" not in pillar
    assert pillar["members"] == {
        "master": {"address": "10.0.0.10", "roles": ["master"], "features": [], "weight": 1, "power": False}
    }


def test_each_id_gets_its_own_files(site):
    site.write(nodes=NODES, partitions=PARTITIONS, users=USERS)
    master, worker = site.pillar(), site.pillar("w1")
    people = {"users", "groups", "accounts", "qos", "realm", "environments", "backup", "monitoring"}
    assert set(master) - set(worker) == people | {"members", "keycloak_realm", "conda_store_env"}
    assert set(worker) == {"cluster", "artifacts", "nodes", "partitions", "secrets", "roles", "highstate_token"}
    assert (master["roles"], worker["roles"]) == (["master"], ["worker"])
    assert set(worker["secrets"]) == {"slurm_key"}
    assert site.pillar("stranger") == {}


def test_credentials_of_backups_are_not_for_workers(site):
    backup = {"backup": {"environment": {"AWS_SECRET_ACCESS_KEY": "sesame"}}}
    site.write(cluster={**cluster(), **backup}, nodes=NODES, partitions=PARTITIONS, users=USERS)
    refusal = site.refusal("w1")
    assert "backup: a mapping is not allowed: in backup.sls, which only the master gets" in refusal
    assert "sesame" not in refusal


@pytest.mark.parametrize("stranger", ["*", "w*", "w1,w2", "w1 or *", "master_master", "evil"])
def test_an_unlisted_id_gets_nothing(site, stranger):
    site.write(nodes=NODES)
    assert site.pillar(stranger) == {}


def test_what_a_minion_says_of_itself_counts_for_nothing(site):
    site.write(nodes=NODES, users=USERS)
    honest = site.pillar("w1")
    assert site.pillar("w1", grains={"roles": ["master"], "host": "master", "fqdn": "master"}) == honest
    claim = {"cluster": {"master": {"id": "w1"}}, "nodes": {"evil": {"address": "10.0.0.66"}}}
    assert {"users", "members"}.isdisjoint(site.pillar("w1", override=claim))
    claim["cluster"]["master"]["id"] = "evil"
    assert site.pillar("evil", override=claim) == claim


def test_a_site_file_shadows_the_default_for_the_top_file_too(site):
    site.write(cluster=cluster(master={"id": "head", "address": "10.0.0.1"}))
    assert site.pillar("master") == {}
    assert site.pillar("head")["cluster"] == {
        "name": "qhub",
        "domain": "cluster.internal",
        "dns_servers": [],
        "master": {"id": "head", "address": "10.0.0.1"},
        "network": "10.0.0.0/24",
        "public_name": "head.cluster.internal",
        "people_name": "people.head.cluster.internal",
        "ids": {"min": 10000, "max": 60000},
    }


def test_members_are_the_listed_nodes_with_an_accepted_key(site):
    site.write(nodes=NODES)
    site.accept("w2", "stranger")
    assert site.pillar()["members"] == {
        "master": {"address": "10.0.0.10", "roles": ["master"], "features": [], "weight": 1, "power": False},
        "w2": {"address": "10.0.0.12", "roles": ["worker"], "features": ["cpu", "gpu"], "weight": 10, "power": False},
    }


def test_a_master_can_be_a_worker_too(site):
    site.write(nodes={"nodes": {"master": {"address": "10.0.0.10", "features": ["cpu"]}}})
    assert site.pillar()["members"] == {
        "master": {
            "address": "10.0.0.10", "roles": ["master", "worker"], "features": ["cpu"], "weight": 1, "power": False,
        }
    }  # fmt: skip


def test_an_orchestration_about_a_node_takes_its_name(site):
    pillar = site.pillar(override={"node": "w2"})
    assert pillar["node"] == "w2"
    assert "_errors" not in pillar
    assert "node: '*' is not allowed: a host name" in "".join(site.pillar(override={"node": "*"})["_errors"])


# What cannot be read at all

UNREADABLE = [
    (
        "a-tab",
        "users:\n  ada:\n\t  uid: 20001\n",
        "users.sls, line 3, column 1: a tab is not allowed: indent with spaces",
    ),
    (
        "a-tab-after-spaces",
        "users:\n  ada:\n    uid: 1\n  \tfull_name: A\n",
        "users.sls, line 4, column 3: a tab is not",
    ),
    (
        "a-key-that-is-false",
        "users:\n  no: {uid: 20001}\n",
        "users.sls, line 2, column 3: the key no is not allowed: YAML reads a bool; write it in quotes",
    ),
    (
        "a-key-that-is-a-number",
        "users: {1: {uid: 20001}}",
        "users.sls, line 1, column 9: the key 1 is not allowed: YAML reads a int; write it in quotes",
    ),
    (
        "a-key-twice",
        "users:\n  ada: {uid: 20001}\n  bob: {uid: 20002}\n  ada: {uid: 20003}\n",
        "users.sls, line 4, column 3: the key ada is there already, in line 2",
    ),
    (
        "a-second-colon",
        "users:\n  ada: uid: 1\n",
        "users.sls, line 2, column 11: a colon is not allowed here: put the text in quotes",
    ),
    (
        "an-open-quote",
        'users:\n  ada: {uid: 20001, full_name: "sesame}\n',
        "users.sls, line 2, column 32: a quotation mark is not closed",
    ),
    (
        "an-expression-of-jinja",
        "realm: {ldap: {{ sesame }}}\n",
        "users.sls, line 1, column 16: { or [ is not allowed in a key: put the text in quotes (Jinja is not read",
    ),
    (
        "a-statement-of-jinja",
        "users:\n{% for n in [1] %}\n  u{{ n }}: {uid: 2}\n{% endfor %}\n",
        "users.sls, line 2, column 2: text that begins with one of @ ` % has to be in quotes (Jinja is not read",
    ),
    ("a-comment-of-jinja", "users:\n{# ada #}\n  bob: {uid: 20002}\n", "(Jinja is not read in pillar files)"),
    ("an-alias", "realm: {password: *sesame}\n", "users.sls, line 1, column 19: found undefined alias"),
    (
        "a-tag",
        "realm: {password: !sesame x}\n",
        "users.sls, line 1, column 19: could not determine a constructor for the tag **",
    ),
    (
        "a-number-that-is-none",
        "realm: {password: 0b_}\n",
        "users.sls, line 1, column 19: this number cannot be read: put the text in quotes",
    ),
    (
        "a-control-character",
        "users:\n  ada: {uid: 20001, full_name: sesame\x07}\n",
        "users.sls, line 2, column 38: a control character is not",
    ),
    (
        "not-utf-8",
        b"users:\n  ada: {uid: 20001, full_name: sesam\xe9}\n",
        "users.sls, line 2, column 37: a character is not UTF-8",
    ),
    ("two-documents", "users: {}\n---\nusers: {}\n", "users.sls, line 2, column 1: but found another document"),
    ("a-list", "- users\n", "users.sls, line 1, column 1: the file has to be a mapping ({} for none)"),
]


@pytest.mark.parametrize(("text", "line"), [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_a_mistake_in_a_file_is_reported_with_its_place(site, caplog, text, line):
    caplog.set_level("DEBUG")
    site.write(cluster=cluster(), nodes=NODES, backup="backup: {}\n")
    (site.directory / "users.sls").write_bytes(text if isinstance(text, bytes) else text.encode())
    refusal = site.refusal()
    assert refusal.startswith("Failed to load ext_pillar qhub: the pillar has 1 problem; nothing was changed:")
    assert line in refusal
    assert "sesam" not in refusal + caplog.text, "values are neither in the answer nor in the log"
    assert site.refusal("w1") == "", "that file is not for workers"


def test_unreadable_files_are_reported_together(site):
    site.write(users="users: [", realm="realm: ]", nodes=NODES)
    refusal = site.refusal()
    assert "the pillar has 2 problems" in refusal
    assert "users.sls, line" in refusal
    assert "realm.sls, line" in refusal


def test_values_are_read_as_they_are_written(site, caplog):
    caplog.set_level("DEBUG")
    users = """users:
  ada: {uid: 20001, full_name: "Ada {#1} L"}
  bob: {uid: 20002, full_name: "Bob"}
  carl: {uid: 020003, full_name: "C #} {{ x }}"}
"""
    realm = 'realm: {representation: {smtpServer: {host: mail.example.org, password: "hunter{%2"}}}\n'
    site.write(cluster=cluster(), nodes=NODES, users="\ufeff" + users.replace("\n", "\r\n"), realm=realm)
    pillar = site.pillar()
    assert "_errors" not in pillar
    assert {name: user["full_name"] for name, user in pillar["users"].items()} == {
        "ada": "Ada {#1} L", "bob": "Bob", "carl": "C #} {{ x }}",
    }  # fmt: skip
    assert pillar["users"]["carl"]["uid"] == 20003
    assert pillar["realm"]["representation"]["smtpServer"].popitem() == ("password", "hunter{%2")
    assert "hunter" not in caplog.text


def test_a_top_file_is_refused(site):
    site.write(top="base: {'*': [users]}", cluster=cluster())
    assert f"{site.directory}/top.sls: not allowed: delete the file" in site.refusal()


def test_a_cluster_without_a_master_is_refused(site):
    site.write(cluster="cluster: [1]")
    assert "cluster.master.id: missing: the Salt minion id of the master" in site.refusal()


# What is refused

REFUSED = yaml.safe_load(Path(__file__).with_name("refused.yaml").read_text())


@pytest.mark.parametrize(("path", "value", "line"), REFUSED, ids=[f"{path}={value}" for path, value, _ in REFUSED])
def test_refused(site, path, value, line):
    files = {"cluster": cluster(), "nodes": NODES, "partitions": PARTITIONS, "users": USERS}
    files["environments"] = {"environments": {}}
    section = path.split(".")[0]
    file = section if section in files else "users"
    files[file] = changed(files[file], path, value)
    site.write(**files)
    refusal = site.refusal()
    assert refusal.startswith("Failed to load ext_pillar qhub: the pillar has ")
    assert line in refusal


SWITCHES = {"resume": "power {node} on", "suspend": "power '{node}' off"}


@pytest.mark.parametrize(
    ("power", "line"),
    [
        (SWITCHES, ""),
        ({}, "slurm.power.resume: null is not allowed: a command with {node} in it, as nodes.w2.power is true"),
        (
            {**SWITCHES, "suspend": "power off"},
            "slurm.power.suspend: 'power off' is not allowed: a command with {node} in",
        ),
        ({**SWITCHES, "suspend": "power '{node} off"}, "is not allowed: a command whose quotes are closed"),
        ({**SWITCHES, "idle": "long"}, "slurm.power.idle: 'long' is not allowed: a whole number"),
    ],
)
def test_a_node_is_switched_off_where_it_is_said_how(site, power, line):
    nodes = changed(NODES, "nodes.w2.power", True)
    site.write(cluster=cluster(), nodes=nodes, partitions=PARTITIONS, users={**USERS, "slurm": {"power": power}})
    refusal = site.refusal()
    assert line in refusal
    assert bool(refusal) == bool(line)
    assert site.refusal("w2") == "", "that is nothing to workers"


def test_a_name_of_the_systems_own_is_nobody_elses(monkeypatch, tmp_path, site):
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    passwd.write_text("debian:x:1000:1000::/home/debian:/bin/bash\nbob:x:20002:20002::/home/bob:/bin/bash\n")
    group.write_text("physics:x:998:\n")
    monkeypatch.setattr(qhub, "SYSTEM_NAMES", (passwd, group))
    schema = qhub.load_schema([ROOT / "salt", ROOT / "formulas"])
    users = changed(USERS, "users.debian", {"uid": 20005})
    allowed = "another name: a user or group of the system has this one"
    assert qhub.problems({**cluster(), **NODES, **PARTITIONS, **users}, schema) == [
        f"users.debian: 'debian' is not allowed: {allowed}",
        f"groups.physics: 'physics' is not allowed: {allowed}",
    ], "bob has the id of one of the people"


RENAMED = {
    "person": (
        "users",
        "bob",
        "robert",
        20002,
        "users.robert.uid: 20002 is not allowed: another uid, as {} has this one",
    ),
    "group": (
        "groups",
        "physics",
        "optics",
        20000,
        "groups.optics.gid: 20000 is not allowed: another gid, as {} has this",
    ),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_who_is_renamed_takes_home_and_folder_along(site, tmp_path, kind):
    section, old, new, number, line = RENAMED[kind]
    places = {"users": tmp_path / "home", "groups": tmp_path / "home/groups"}
    places["groups"].mkdir(parents=True)
    folder = places[section] / old
    folder.mkdir()
    os.chown(folder, number if section == "users" else 0, number)
    (places[section] / "file").touch()
    os.chown(places[section] / "file", number, number)
    people = {"people": {"homes": str(places["users"]), "group_folders": str(places["groups"])}}
    site.write(cluster={**cluster(), **people}, nodes=NODES, partitions=PARTITIONS, users=USERS)
    assert site.refusal() == ""
    site.write(users=json.dumps(USERS).replace(f'"{old}"', f'"{new}"'))
    refusal = site.refusal()
    assert line.format(folder) in refusal
    assert f"{new} would get an empty {'home' if section == 'users' else 'folder'}" in refusal
    assert f"(if {old} is renamed, run first: mv {folder} {places[section] / new})" in refusal
    assert site.refusal("w1") == ""
    folder.rename(places[section] / new)
    assert site.refusal() == ""


def test_the_same_pillar_without_a_mistake_is_accepted(site):
    site.write(cluster=cluster(), nodes=NODES, partitions=PARTITIONS, users=USERS)
    assert site.refusal() == site.refusal("w1") == ""


def test_one_message_names_every_problem(site):
    users = changed(changed(USERS, "users.ada.acounts", []), "users.bob.uid", 20001)
    site.write(nodes=changed(NODES, "nodes.w1.weight", 0), partitions=PARTITIONS, users=users)
    refusal = site.refusal()
    assert "the pillar has 3 problems; nothing was changed" in refusal
    assert refusal.count("\n  - ") == 3


def test_a_worker_is_refused_for_what_it_gets_only(site):
    site.write(nodes=NODES, users=changed(USERS, "users.ada.uid", 1))
    assert site.refusal() != ""
    assert site.refusal("w1") == ""
    site.write(nodes=changed(NODES, "nodes.w2.weight", 0))
    assert "nodes.w2.weight: 0 is not allowed" in site.refusal("w1")


def test_ids_may_have_another_range(site):
    site.write(cluster=cluster(ids={"min": 1234}), nodes=NODES, partitions=PARTITIONS)
    site.write(users=changed(USERS, "users.ada.uid", 1234))
    assert site.refusal() == ""


@pytest.mark.parametrize(
    "files",
    [
        {"users": "secrets: {slurm_key: [sesame]}\nsecretz: {slurm_key: sesame}"},
        {"users": "secrets: sesame"},
        {"users": "users: {ada: {uid: 20001, password: sesame}}"},
        {"users": 'users: {ada: {uid: 20001, ssh_keys: ["-----BEGIN OPENSSH PRIVATE KEY----- sesame"]}}'},
        {"cluster": {**cluster(), "slurm_key": "sesame"}},
    ],
)
def test_no_secret_is_in_a_message(site, files):
    site.write(**files)
    refusal = site.refusal()
    assert refusal == "" or "the pillar has" in refusal or "Unable to merge" in refusal
    assert "sesame" not in refusal


def test_channels_of_the_site_have_no_credentials(site):
    channels = ["conda-forge", "https://user:sesame@conda.example.org/x"]
    settings = {"channels": channels, "channel_alias": "https://conda.example.org/t/sesame"}
    site.write(cluster={**cluster(), "conda_store": settings})
    refusal = site.refusal()
    allowed = "is not allowed: a channel such as conda-forge, without a password or token in its address"
    assert f"conda_store.channels[1]: 'https://**@conda.example.org/x' {allowed}" in refusal
    assert f"conda_store.channel_alias: 'https://conda.example.org/t/**' {allowed}" in refusal
    assert "sesame" not in refusal


# Settings of formulas follow from their defaults

DEFAULTS = {
    "default": {
        "port": 22,
        "rate": 0.5,
        "on": True,
        "name": "x",
        "any": None,
        "list": [],
        "free": {},
        "in": {"a": 1},
    },
    "RedHat": {"in": {"b": "x"}},
    "free_form": ["in"],
}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {
                "port": 23,
                "rate": 2,
                "on": False,
                "name": "y",
                "any": 3,
                "list": [1],
                "free": {"x": [1]},
                "in": {"c": 1},
            },
            "",
        ),
        ({"port": None, "any": "text", "in": {"a": None}}, ""),
        (
            {"prot": 1},
            "web.prot: unknown key: did you mean 'port'? one of any, free, in, list, name, on, port, rate",
        ),
        ({"port": "22"}, "web.port: '22' is not allowed: a whole number"),
        ({"on": "yes"}, "web.on: 'yes' is not allowed: true or false"),
        ({"name": 5}, "web.name: 5 is not allowed: text (in quotes if it looks like a number)"),
        ({"list": "x"}, "web.list: 'x' is not allowed: a list"),
        ({"free": []}, "web.free: a list is not allowed: a mapping ({} for none)"),
        ({"any": []}, "web.any: a list is not allowed: a single value"),
        ([], "web: a list is not allowed: a mapping ({} for none)"),
    ],
)
def test_settings_of_a_formula(settings, line):
    schema = {"type": "object", "properties": {"web": qhub.formula_schema(DEFAULTS)}}
    assert qhub.problems({"web": settings}, schema) == ([line] if line else [])


def test_families_and_nesting_of_a_formulas_defaults():
    schema = {"type": "object", "properties": {"web": qhub.formula_schema({**DEFAULTS, "free_form": []})}}
    assert qhub.problems({"web": {"in": {"a": 2, "b": "y"}}}, schema) == []
    assert qhub.problems({"web": {"in": {"c": 2}}}, schema) == ["web.in.c: unknown key: one of a, b"]


def test_every_formulas_defaults_are_settings():
    for path in sorted((ROOT / "formulas").glob("*/defaults.yaml")):
        defaults = yaml.safe_load(path.read_text())
        schema = {"type": "object", "properties": {"formula": qhub.formula_schema(defaults)}}
        assert qhub.problems({"formula": defaults["default"]}, schema) == [], path


# Messages say everything: each rule a description


def test_every_rule_of_the_schema_says_what_is_allowed():
    def rules(rule, path):
        if rule.get("type") != "object":
            assert rule.get("description"), f"{path}: a description is missing"
        for name, inner in rule.get("properties", {}).items():
            rules(inner, f"{path}.{name}")
        for key in ("items", "additionalProperties", "propertyNames"):
            if isinstance(rule.get(key), dict):
                rules(rule[key], f"{path}.{key}")

    for name, rule in qhub.load_schema([ROOT / "salt"])["properties"].items():
        rules(rule, name)


def test_slurm_keys_are_those_that_slurm_account_takes():
    slurm_account = load("_modules/slurm_account.py", "slurm_account_module")
    sections = qhub.load_schema([ROOT / "salt"])["properties"]

    def keys(*path):
        rule = sections
        for step in path:
            rule = rule[step]
        return set(rule["properties"])

    def fields(entity):
        return set(slurm_account.fields(entity))

    entry = "additionalProperties"
    unix = {"uid", "full_name", "email", "shell", "groups", "ssh_keys"}
    assert keys("users", entry) == fields("user") | unix | {"role", "locked"}
    assert keys("users", entry, "properties", "accounts", entry) == fields("association")
    assert keys("accounts", entry) == fields("account")
    assert keys("qos", entry) == fields("qos")
    assert keys("slurm_accounting") == fields("settings")
    assert keys("slurm_accounting", "properties", "resources", entry) == fields("resource")
    assert keys("slurm_accounting", "properties", "reservations", entry) == fields("reservation")


def test_ten_thousand_users_are_checked_in_a_second():
    schema = qhub.load_schema([ROOT / "salt", ROOT / "formulas"])
    user = {"full_name": "A Person", "groups": ["physics"], "accounts": ["physics"], "max_jobs": 3}
    users = {f"u{n}": {**user, "uid": 20100 + n} for n in range(10000)}
    pillar = {**cluster(), **NODES, **PARTITIONS, **USERS, "users": users}
    start = time.process_time()
    assert qhub.problems(pillar, schema) == []
    assert time.process_time() - start < 1


# As an administrator meets it


def run(program, config, *arguments):
    """Run one of Salt's programs, ``salt_call`` or ``salt_run``, and return the finished process."""
    command = [sys.executable, "-c", f"import salt.scripts; salt.scripts.{program}()", "--config-dir", config]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=120)


def test_state_apply_is_refused_before_anything_is_touched(site, options, tmp_path):
    states, touched = tmp_path / "states", tmp_path / "touched"
    states.mkdir()
    (states / "touch.sls").write_text(yaml.safe_dump({str(touched): {"file.touch": []}}))
    opts = options("minion", tmp_path / "minion", site.directory)
    roots = {"base": [*opts["file_roots"]["base"], str(states)]}
    (tmp_path / "minion/minion.d").mkdir()
    (tmp_path / "minion/minion.d/states.conf").write_text(yaml.safe_dump({"file_roots": roots}))
    apply = ("--local", "--retcode-passthrough", "state.apply", "touch")
    site.write(users="users: {ada: {uid: 1}}")
    refused = run("salt_call", tmp_path / "minion", *apply)
    assert refused.returncode != 0
    assert "users.ada.uid: 1 is not allowed: 10000 to 60000 (cluster.ids)" in refused.stdout
    assert not touched.exists()
    site.write(users="users: {ada: {uid: 20001}}")
    applied = run("salt_call", tmp_path / "minion", *apply)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert touched.exists()


def test_one_command_validates_without_a_master(site, tmp_path):
    (Path(site.opts["cachedir"]) / "proc").mkdir(parents=True)  # as a master that ran once leaves it
    site.write(nodes=NODES, partitions=PARTITIONS, users=USERS)
    valid = run("salt_run", tmp_path / "salt", "cluster.validate")
    counts = "2 nodes, 2 partitions, 2 users, 1 groups, 2 accounts, 1 qos"
    assert (valid.returncode, valid.stdout.strip()) == (0, f"pillar is valid: {counts}")
    site.write(users="users: {ada: {uid: 1}}", nodes="nodes: {w1: {}")
    refused = run("salt_run", tmp_path / "salt", "cluster.validate")
    assert refused.returncode == 1
    assert "nodes.sls, line 2, column 1: did not find expected" in refused.stdout
    site.write(nodes=NODES)
    refused = run("salt_run", tmp_path / "salt", "cluster.validate")
    assert refused.returncode == 1
    assert "- users.ada.uid: 1 is not allowed: 10000 to 60000 (cluster.ids)" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr
