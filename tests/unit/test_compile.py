"""Every SLS, for every role, with the smallest and the fullest pillar: it compiles and keeps our rules."""

import contextlib
import copy
import functools
import inspect
import re
import shutil

import pytest
import salt.loader
import salt.state
import salt.utils.templates
import yaml

from tests.unit.conftest import ROOT

FOLDERS = (ROOT / "salt", ROOT / "formulas")
#: role -> the id of the minion that has it, by pillar
ROLES = {
    "master": {"minimal": "master", "full": "head"},
    "worker": {"minimal": "w1", "full": "w2"},
    "both": {"minimal": "master", "full": "head"},
}
GRAINS = {"master": ["master"], "worker": ["worker"], "both": ["master", "worker"]}
KEYWORDS = {
    *salt.state.STATE_INTERNAL_KEYWORDS,
    *salt.state.STATE_RUNTIME_KEYWORDS,
    *salt.state.STATE_REQUISITE_KEYWORDS,
    *salt.state.STATE_REQUISITE_IN_KEYWORDS,
}
GUARDS = {"unless", "onlyif", "creates", "stateful", "onchanges", "onchanges_any"}


#: Served files that are not in the repository.
MADE_ON_THE_MASTER = ("salt://generated/", "salt://ca/", "salt://salt/next_master.pub")
#: What is in no role and is for the master.
MASTERS = {"bootstrap.master"}


def sls_names():
    """Return the name of every SLS: what Salt calls ``formulas/slurm/init.sls`` is ``slurm``."""
    paths = (path.relative_to(folder) for folder in FOLDERS for path in folder.rglob("*.sls"))
    names = (".".join(path.with_suffix("").parts) for path in paths)
    return sorted(name.removesuffix(".init") for name in names if name not in ("top", "roles.refused"))


def included(name):
    """Return ``name`` and all SLS that its file names in a plain ``include``."""
    found = {name}
    path = ROOT / "salt" / f"{name.replace('.', '/')}.sls"
    for inner in yaml.safe_load(path.read_text())["include"]:
        found.add(inner)
    return found


def cases():
    """Return ``[(role, sls)]``: each role with what it includes; what no role does, with its own or all."""
    by_role = {role: included(f"roles.{role}") for role in ("master", "worker")}
    by_role["both"] = by_role["master"] | by_role["worker"]

    def applies(role, name):
        if name in by_role["both"]:
            return name in by_role[role]
        return role == "master" or name not in MASTERS

    names = [name for name in sls_names() if not name.startswith("orch.")]
    return [(role, name) for name in names for role in ROLES if applies(role, name)]


@pytest.fixture(scope="module")
def compilers(options, tmp_path_factory):
    """
    Return a function ``(role, size, claim=None, node=None)`` -> an open HighState of that minion, made once.

    ``claim`` is a role whose grain it has instead; ``node`` a worker that it is an orchestration about.
    """
    base = tmp_path_factory.mktemp("compile")
    # A wrapper of salt-ssh is called by the states that salt-ssh applies.
    shutil.copytree(ROOT / "salt/_wrapper", base / "wrappers/_modules")
    pki = base / "salt/etc/salt/pki/minion"
    (pki / "minions").mkdir(parents=True)
    for name in ("master.pub", "minions/w1", "minions/w2"):
        (pki / name).write_text("a public key")
    grains = {}
    with contextlib.ExitStack() as stack:

        @functools.cache
        def compiler(role, size, claim=None, node=None):
            site = base / f"{role}-{size}-{claim}-{node}"
            site.mkdir()
            if size == "full":
                shutil.copytree(ROOT / "tests/unit/full", site, dirs_exist_ok=True)
            nodes = yaml.safe_load((site / "nodes.sls").read_text())["nodes"] if size == "full" else {}
            if role == "both":
                address = {"minimal": "10.0.0.10", "full": "10.20.0.1"}[size]
                nodes[ROLES[role][size]] = {"address": address}
            elif size == "minimal" and (role == "worker" or node):
                nodes["w1"] = {"address": "10.0.0.11"}
            (site / "nodes.sls").write_text(yaml.safe_dump({"nodes": nodes}))
            opts = options("minion", base / "salt", site)
            opts["module_dirs"] = [*opts["module_dirs"], str(base / "wrappers")]
            opts["__master_opts__"] = {"pki_dir": str(pki), "cachedir": str(base), "keysize": opts["keysize"]}
            grains.update(grains or salt.loader.grains(opts))
            opts["id"] = ROLES[role][size]
            opts["grains"] = {
                **copy.deepcopy(grains),
                "id": opts["id"],
                "roles": GRAINS[claim or role],
                "os_family": "Debian",
            }
            return stack.enter_context(salt.state.HighState(opts, pillar_override=node and {"node": node}))

        yield compiler


def compiled(highstate, name):
    """Return the low data of one SLS and a list of everything that is wrong with it."""
    state = highstate.state
    highstate.building_highstate = {}  # what was rendered before
    assert "_errors" not in state.opts["pillar"], state.opts["pillar"]["_errors"]
    high, errors = highstate.render_highstate({"base": [name]})
    high, found = state.reconcile_extend(high)
    errors += found + state.verify_high(high)
    high, found = state.requisite_in(high)
    chunks, more = state.compile_high_data(high)
    errors += found + more
    for chunk in chunks:
        function = f"{chunk['state']}.{chunk['fun']}"
        if function not in state.states:
            errors.append(f"{chunk['__id__']}: no state function {function}")
            continue
        parameters = inspect.signature(state.states[function]).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            taken = KEYWORDS | set(parameters)
            unknown = [key for key in chunk if key not in taken and not key.startswith("__")]
            errors += [f"{chunk['__id__']}: {function} takes no {key}" for key in unknown]
    chunks, found = state.order_chunks(chunks)
    return chunks, errors + found


def every(chunks, state, *functions):
    """Yield the chunks of some functions of a state module."""
    yield from (chunk for chunk in chunks if chunk["state"] == state and chunk["fun"] in functions)


def rule_breakers(chunks, secrets):
    """Yield what in low data is against the house rules."""
    for chunk in every(chunks, "cmd", "run", "script", "wait", "call"):
        if GUARDS.isdisjoint(chunk):
            yield f"{chunk['__id__']}: cmd.{chunk['fun']} without {', '.join(sorted(GUARDS))}"
    for chunk in chunks:
        text = repr({key: value for key, value in chunk.items() if not key.startswith("__")})
        secret = any(value in text for value in secrets) or "secrets:" in str(chunk.get("contents_pillar"))
        if secret and chunk["state"] == "file" and chunk.get("show_changes") is not False:
            yield f"{chunk['__id__']}: a secret without show_changes: false"
        if secret and chunk["state"] == "cmd":
            yield f"{chunk['__id__']}: a secret in a command line"
        for key in ("verify", "verify_ssl", "gpgcheck"):
            if chunk.get(key) is False:
                yield f"{chunk['__id__']}: {key}: false"
        if chunk.get("skip_verify"):
            yield f"{chunk['__id__']}: skip_verify"


def test_rule_breakers_are_found():
    run = {"state": "cmd", "fun": "run", "__id__": "A", "name": "echo sesame"}
    key = {"state": "file", "fun": "managed", "__id__": "B", "contents_pillar": "secrets:slurm_key"}
    fetch = {"state": "file", "fun": "managed", "__id__": "C", "skip_verify": True, "verify_ssl": False}
    found = list(rule_breakers([run, key, fetch], {"sesame"}))
    assert [line.split(": ", 1)[0] for line in found] == ["A", "A", "B", "C", "C"]
    assert (
        list(rule_breakers([{**run, "name": "true", "creates": "/x"}, {**key, "show_changes": False}], {"sesame"}))
        == []
    )


def templates(highstate, chunks):
    """Render every file that states manage, as they would; yield what goes wrong."""
    state = highstate.state
    for chunk in every(chunks, "file", "managed", "blockreplace", "append"):
        source = str(chunk.get("source"))
        if not source.startswith("salt://") or source.startswith(MADE_ON_THE_MASTER):
            continue
        path = state.functions["cp.cache_file"](source)
        if not path:
            yield f"{chunk['__id__']}: there is no {source}"
        elif chunk.get("template") == "jinja":
            rendered = salt.utils.templates.JINJA(
                path,
                to_str=True,
                context={**chunk.get("defaults", {}), **chunk.get("context", {})},
                opts=state.opts,
                salt=state.functions,
                pillar=state.opts["pillar"],
                grains=state.opts["grains"],
                saltenv="base",
            )
            if not rendered["result"]:
                yield f"{chunk['__id__']}: {source}: {rendered['data']}"


@pytest.mark.parametrize("size", ["minimal", "full"])
@pytest.mark.parametrize(("role", "name"), cases())
def test_compiles(compilers, role, size, name):
    highstate = compilers(role, size)
    chunks, errors = compiled(highstate, name)
    secrets = {str(value) for value in highstate.state.opts["pillar"].get("secrets", {}).values()}
    errors += [*rule_breakers(chunks, secrets), *templates(highstate, chunks)]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("size", ["minimal", "full"])
@pytest.mark.parametrize("name", [name for name in sls_names() if name.startswith("orch.")])
def test_an_orchestration_compiles(compilers, size, name):
    highstate = compilers("master", size, node="w1")
    state, runners = highstate.state, salt.loader.runner(highstate.opts)
    # What the cluster would answer; there is none.
    answers = {
        "membership.members": state.opts["pillar"]["members"],
        "membership.joining": ["w1"],
        "membership.asleep": ["w2"],
        "manage.up": [state.opts["id"], "w1"],
        "rotation.plan": {
            "master": ["slurm.controller"], "workers": ["slurm.worker"], "connected": ["w1"], "classes": ["slurm"],
            "orch": ["orch.rotate.authority", "orch.rotate.salt"],
        },
        "upgrade.preflight": {
            "backup": True, "others": ["w2"], "reason": "not yet", "timeout": 60,
            "batches": [
                {"nodes": [state.opts["id"]], "prove": [], "sls": ["slurm.controller"]},
                {"nodes": ["w1"], "prove": ["w1"], "sls": []},
            ],
            "stages": [{"name": "traefik", "sls": ["traefik"], "checks": ["certificates"]}],
        },
    }  # fmt: skip
    state.functions["saltutil.runner"] = lambda name, **_: answers[name]
    chunks, errors = compiled(highstate, name)
    errors += rule_breakers(chunks, set())
    for chunk in every(chunks, "salt", "runner"):
        arguments = set(chunk) - KEYWORDS - {"name"}
        arguments = {key for key in arguments if not key.startswith("__")}
        if chunk["name"] not in runners:
            errors.append(f"{chunk['__id__']}: no runner {chunk['name']}")
        elif unknown := arguments - set(inspect.signature(runners[chunk["name"]]).parameters):
            errors.append(f"{chunk['__id__']}: {chunk['name']} takes no {unknown}")
    for chunk in every(chunks, "salt", "state"):
        errors += [f"{chunk['__id__']}: no SLS {sls}" for sls in set(chunk.get("sls", ())) - set(sls_names())]
    assert not errors, "\n".join(errors)
    assert chunks


@pytest.mark.parametrize("size", ["minimal", "full"])
@pytest.mark.parametrize("role", ROLES)
def test_a_minion_gets_the_states_of_its_roles(compilers, role, size):
    highstate = compilers(role, size)
    top = highstate.get_top()
    assert highstate.verify_tops(top) == []
    assert highstate.top_matches(top) == {"base": [f"roles.{each}" for each in GRAINS[role]]}


def test_a_minion_that_claims_another_role_is_refused(compilers):
    liar = compilers("worker", "minimal", "master")
    matches = liar.top_matches(liar.get_top())
    assert matches == {"base": ["roles.refused"]}
    _, errors = liar.render_highstate(matches)
    assert "w1 claims the roles ['master'], but the pillar gives it ['worker']" in errors[0]
    assert "users" not in liar.state.opts["pillar"]


@pytest.mark.parametrize("role", ["master", "worker"])
def test_people_cannot_have_a_name_that_a_formula_gives_to_a_service(compilers, role):
    schema = yaml.safe_load((ROOT / "salt/schema/pillar.yaml").read_text())
    taken = set(schema["$defs"]["unix_name"]["not"]["enum"])
    names = {
        chunk.get("name", chunk["__id__"])
        for each, sls in cases()
        if each == role
        for chunk in compiled(compilers(role, "minimal"), sls)[0]
        if (chunk["state"], chunk["fun"]) in (("user", "present"), ("group", "present"))
    }
    assert sorted(names - taken) == []


# The shape of a formula

FORMULAS = sorted(path for path in (ROOT / "formulas").iterdir() if path.is_dir())


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda path: path.name)
def test_a_formula_has_the_house_shape(formula):
    name = formula.name
    variable = "salt_settings" if name == "salt" else name  # salt is Salt's own
    assert (formula / "map.jinja").read_text().splitlines() == [
        f'{{% import_yaml "{name}/defaults.yaml" as defaults %}}',
        f'{{% set {variable} = salt["grains.filter_by"](defaults, base="default", merge=pillar.get("{name}")) %}}',
    ]
    for path in (formula / "defaults.yaml", *formula.glob("*.sls")):
        start = "\n".join(path.read_text().split("\n")[:8])
        assert re.search(r"^(#|\{#) ?\w", start, re.MULTILINE), f"{path} does not say what it is for"


def sources():
    """Yield every text file of the product."""
    for folder in (*FOLDERS, ROOT / "_modules", ROOT / "_states", ROOT / "pillar"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".lock", ".gz", ".pyc"):
                yield path


UNSAFE = re.compile(
    r"verify\s*=\s*False|verify_ssl:\s*false|InsecureRequestWarning|--no-check-certificate|--insecure\b|curl\b.*\s-k\b"
    r"|StrictHostKeyChecking[ =]no|auto_accept:\s*true|open_mode:\s*true|shell=True|python_shell=True",
    re.IGNORECASE,
)


def test_nothing_goes_unchecked():
    found = [
        f"{path}:{n}"
        for path in sources()
        for n, line in enumerate(path.read_text().split("\n"), 1)
        if UNSAFE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("role", ["master", "worker"])
def test_a_node_watches_services_that_its_roles_run(compilers, role):
    highstate = compilers(role, "minimal")
    names = [name for each, name in cases() if each == role and not name.startswith("bootstrap")]
    running = {
        chunk.get("name", chunk["__id__"])
        for name in names
        for chunk in every(compiled(highstate, name)[0], "service", "running")
    }
    declared = yaml.safe_load((ROOT / "formulas/salt/defaults.yaml").read_text())["default"]["services"][role]
    assert sorted(set(declared) - running) == []


@pytest.mark.parametrize(
    ("highstate", "message"),
    [
        ({"mode": "yes"}, "salt.highstate.mode: yes is not allowed: test, enforce or 'off'"),
        ({"interval": 5}, "salt.highstate.interval: 5 is not allowed: seconds from 10"),
        ({"interval": None}, "salt.highstate.interval: None is not allowed: seconds from 10"),
        ({"splay": -1}, "salt.highstate.splay: -1 is not allowed: seconds from 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(compilers, highstate, message):
    worker = compilers("worker", "minimal", node=message)  # one of its own: settings are imported once
    worker.state.opts["pillar"]["salt"] = {"highstate": highstate}
    _, errors = worker.render_highstate({"base": ["salt.minion"]})
    assert message in errors[0]


def test_the_documented_ports_are_those_that_are_open(compilers):
    """The table in docs/security.md, against what the firewall lets through on each role."""
    page = ROOT / "docs/security.md"
    rows = re.findall(r"^\| ([^|]+/tcp[^|]*) \| (\w+) \| (\w+)[^|]* \| `(\w+)` \|$", page.read_text(), re.M)
    told = {
        (name, role, who, port)
        for ports, on, who, name in rows
        for role in ("master", "worker")
        if on in ("all", role, f"{role}s")
        for port in ports.split(", ")
    }
    opened = set()
    for role in ("master", "worker"):
        highstate = compilers(role, "minimal")
        for chunk in compiled(highstate, f"roles.{role}")[0]:
            path = re.fullmatch(r"/etc/nftables.d/qhub/(\w+)\.nft", chunk.get("name", ""))
            for line in chunk["contents"] if path and chunk["fun"] == "managed" else ():
                if rule := re.fullmatch(r"(?:ip saddr (\S+) )?(tcp|udp) dport (\S+) accept", line):
                    source, protocol, port = rule.groups()
                    members = "members" if role == "master" else "network"
                    who = {None: "world", "@cluster": members, "10.0.0.0/24": "network", "10.0.0.10": "master"}[source]
                    opened.add((path[1], role, who, f"{port}/{protocol}"))
    assert told == opened


def test_the_documented_local_ports_are_those_that_formulas_declare(compilers):
    """The second table in docs/security.md, against what each role and each kind of monitoring page declares."""
    page = ROOT / "docs/security.md"
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ([^|]+) \| `([\w-]+)` \|$", page.read_text(), re.M)
    told = {
        (name, role, port, frozenset(re.findall(r"`([\w-]+)`", users)))
        for port, on, users, name in rows
        for role in ("master", "worker")
        if on in ("all", role)
    }
    declared = set()
    for role, size in (("master", "minimal"), ("master", "full"), ("worker", "minimal")):
        for chunk in compiled(compilers(role, size), f"roles.{role}")[0]:
            path = re.fullmatch(r"/etc/nftables.d/qhub-local/([\w-]+)\.nft", chunk.get("name", ""))
            for line in chunk["contents"] if path and path[1] != "site" else ():
                if elements := re.fullmatch(r"add element inet qhub_local (\w+) { (.*) }", line):
                    if elements[1] == "ports":
                        ports = {port: set() for port in elements[2].split(", ")}
                    for pair in elements[2].split(", ") if elements[1] == "users" else ():
                        user, port = pair.split(" . ")
                        ports[port].add(user)
            if path and path[1] != "site":
                declared |= {(path[1], role, port, frozenset(users)) for port, users in ports.items()}
    assert told == declared


def test_a_service_on_a_port_that_people_may_take_is_refused(compilers):
    master = compilers("master", "minimal", node="port")  # one of its own: settings are imported once
    master.state.opts["pillar"]["slurm_exporter"] = {"port": 19341}
    _, errors = master.render_highstate({"base": ["slurm_exporter"]})
    limit = "below firewall.unprivileged_port_start (10000)"
    assert f"slurm-exporter: port 19341 is not allowed: {limit}" in errors[0]


def test_slurmctld_may_run_the_programs_that_switch_nodes(compilers):
    """slurmctld sets the user of each program that it runs, which the filter of the other daemons does not let it."""
    chunks, errors = compiled(compilers("master", "full"), "slurm.controller")
    assert errors == []
    unit = "/etc/systemd/system/slurmctld.service.d/confined.conf"
    (confined,) = (chunk for chunk in chunks if chunk["state"] == "file" and chunk.get("name") == unit)
    assert confined["context"]["settings"]["SystemCallFilter"] == ["@system-service", "~@privileged", "@setuid"]
