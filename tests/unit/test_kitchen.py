"""Test Kitchen's files: each suite compiles, and each driver makes the machine that the suite's pillar describes."""

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import salt.config
import salt.loader
import salt.state
import yaml

from tests.unit.conftest import ROOT

#: Files of one platform each: Docker's is read always, another one in its place with KITCHEN_LOCAL_YAML.
FILES = ["kitchen.yml", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/kitchen/*.yml"))]
TEXTS = {name: (ROOT / name).read_text() for name in FILES}
PLATFORMS = {name: yaml.safe_load(text)["platforms"] for name, text in TEXTS.items()}
KITCHEN = yaml.safe_load(TEXTS["kitchen.yml"])
PROVISIONER = KITCHEN["provisioner"]
SUITES = {suite["name"]: suite for suite in KITCHEN["suites"]}
MINION = (ROOT / PROVISIONER["salt_minion_config_template"]).read_text()
CLUSTER = yaml.safe_load((ROOT / "tests/kitchen/pillar/cluster.sls").read_text())["cluster"]
#: Where kitchen-salt copies its files on a machine.
SANDBOX = yaml.safe_load(MINION)["file_roots"]["base"][0].removesuffix("/srv/salt")
#: The drivers that test-kitchen itself has; each other one is a gem.
BUILT_IN = {"exec", "proxy"}


def lay_out(suite, secrets, directory):
    """Write a suite's files below ``directory`` as kitchen-salt does; return their root."""
    root = directory / "sandbox"
    skip = shutil.ignore_patterns(*PROVISIONER["salt_copy_filter"])
    pairs = [(PROVISIONER["state_collection"], "srv/salt"), (PROVISIONER["data_path"], "data")]
    pairs += [(each["source"], each["dest"]) for each in PROVISIONER["pillars_from_directories"]]
    for source, destination in pairs:
        path = secrets if source == ".kitchen/secrets" else ROOT / source
        shutil.copytree(path, root / destination, ignore=skip, dirs_exist_ok=True)
    for name, content in suite["provisioner"].get("pillars", {}).items():
        (root / "srv/pillar" / name).write_text(yaml.safe_dump(content))
    config = MINION.replace(SANDBOX, str(root)).replace("root_dir: /", f"root_dir: {directory}/salt")
    (root / "minion").write_text(config)
    (root / "grains").write_text(yaml.safe_dump(suite["provisioner"]["grains"]))
    return root


def minion_id(suite):
    """Return the Salt minion id of a suite's machine."""
    return {**PROVISIONER, **suite["provisioner"]}["salt_minion_id"]


@pytest.fixture(scope="module", params=SUITES)
def compiled(request, secrets, tmp_path_factory):
    """Compile a suite's highstate; return its suite, pillar, matching SLS, low chunks, errors and file roots."""
    suite = SUITES[request.param]
    root = lay_out(suite, secrets, tmp_path_factory.mktemp(request.param))
    opts = salt.config.minion_config(str(root / "minion"), minion_id=minion_id(suite))
    opts["grains"] = salt.loader.grains(opts)
    with salt.state.HighState(opts) as highstate:
        pillar = highstate.state.opts["pillar"]
        assert "_errors" not in pillar, pillar["_errors"]
        matches = highstate.top_matches(highstate.get_top())
        high, errors = highstate.render_highstate(matches)
        chunks, more = highstate.state.compile_high_data(high)
    roots = [Path(path) for path in opts["file_roots"]["base"]]
    return SimpleNamespace(
        suite=suite, pillar=pillar, matches=matches, chunks=chunks, errors=errors + more, roots=roots
    )


# Suites


def test_suites_are_of_one_machine_each():
    assert set(SUITES) == {"master", "single-node"}
    assert {minion_id(suite) for suite in SUITES.values()} == {CLUSTER["master"]["id"]}


def test_a_suite_compiles(compiled):
    assert compiled.errors == []
    assert compiled.pillar["roles"] == compiled.suite["provisioner"]["grains"]["roles"]
    assert compiled.matches == {"base": [f"roles.{role}" for role in compiled.pillar["roles"]]}


def test_each_source_of_a_suite_is_in_its_file_roots(compiled):
    """No Salt master renders files for a suite's machine."""
    sources = {value for chunk in compiled.chunks for value in chunk.values() if str(value).startswith("salt://")}
    assert len(sources) > 10
    missing = {source for source in sources if not any((root / source[7:]).exists() for root in compiled.roots)}
    assert not missing


STAND_IN = """#!/bin/sh
# As systemctl does: one active unit among several makes is-active succeed.
[ "$1" = is-active ] || exit 1
status=3
for name; do case " $ACTIVE " in *" $name "*) status=0 ;; esac; done
exit $status
"""


def verify(suite, active, directory):
    """Return the status of a suite's verifier command where only the units ``active`` are active; the rest succeeds."""
    for name in ("scontrol", "sudo", "timeout", "systemctl"):
        program = directory / name
        program.write_text(STAND_IN if name == "systemctl" else "#!/bin/sh\n")
        program.chmod(0o755)
    environment = {"PATH": str(directory), "ACTIVE": " ".join(active)}
    words = ["/bin/sh", "-c", suite["verifier"]["command"]]
    return subprocess.run(words, env=environment, capture_output=True, check=False, timeout=10).returncode


def test_a_suite_verifies_each_unit_that_its_states_run(compiled, tmp_path):
    states = {(chunk["state"], chunk["fun"]) for chunk in compiled.chunks}
    assert ("service", "running") in states
    running = {chunk["name"] for chunk in compiled.chunks if (chunk["state"], chunk["fun"]) == ("service", "running")}
    assert verify(compiled.suite, running, tmp_path) == 0, "it needs a unit that no state starts"
    unseen = {unit for unit in running if verify(compiled.suite, running - {unit}, tmp_path) == 0}
    assert not unseen


# Provisioner


def test_salt_is_installed_by_the_project_alone():
    assert PROVISIONER["name"] == "salt_solo"
    assert PROVISIONER["salt_install"] is False, "kitchen-salt takes any text for true"


def test_programs_and_paths_are_in_the_repository():
    words = " ".join(hook["local"] for hook in KITCHEN["lifecycle"]["pre_converge"]).split()
    words += PROVISIONER["prepare_salt_environment"].replace(f"{SANDBOX}/srv/", "").split()
    named = [word for word in words if word.startswith("salt/")]
    assert len(named) == 3
    for path in named:
        assert (ROOT / path).is_file(), path


# Platforms


def drivers(name):
    """Return the names of the drivers that a file's platforms use."""
    common = KITCHEN.get("driver", {}).get("name")
    return [platform["driver"].get("name", common) for platform in PLATFORMS[name]]


def test_a_file_has_one_platform():
    """Test Kitchen loads the driver of each platform before any command; one missing program ends them all."""
    assert {name: drivers(name) for name in FILES} == {
        "kitchen.yml": ["docker"],
        "tests/kitchen/here.yml": ["exec"],
        "tests/kitchen/host.yml": ["proxy"],
        "tests/kitchen/vm.yml": ["vagrant"],
    }


@pytest.mark.parametrize("name", FILES)
def test_commands_in_a_header_name_whole_instances(name):
    """A name that is no whole instance's is a regular expression, which matches other instances too."""
    header = "\n".join(re.findall(r"^#(.*)$", TEXTS[name], re.M))
    named = re.findall(r"\bkitchen (?:create|converge|verify|destroy|test|login) (\S+)", header)
    instances = {f"{suite}-{platform['name']}" for suite in SUITES for platform in PLATFORMS[name]}
    assert named
    assert set(named) <= instances
    if name != "kitchen.yml":
        assert f"KITCHEN_LOCAL_YAML={name} " in header


def driver(name, suite):
    """Return the driver's settings of a suite's machine on a file's platform, merged as Test Kitchen does."""
    (platform,) = PLATFORMS[name]
    return {**KITCHEN.get("driver", {}), **platform["driver"], **SUITES[suite].get("driver", {})}


@pytest.mark.parametrize("suite", SUITES)
def test_a_machine_has_the_name_and_the_address_of_its_pillar(suite):
    address, name = CLUSTER["master"]["address"], minion_id(SUITES[suite])
    nodes = SUITES[suite]["provisioner"].get("pillars", {}).get("nodes.sls", {}).get("nodes", {})
    assert nodes.get(name, {"address": address})["address"] == address
    docker = driver("kitchen.yml", suite)
    assert (docker.get("hostname"), docker["run_options"].split("--ip ")[1]) == (name, address)
    vm = driver("tests/kitchen/vm.yml", suite)
    assert (vm.get("vm_hostname"), vm["network"]) == (name, [["private_network", {"ip": address}]])
    assert driver("tests/kitchen/host.yml", suite).get("host") == address


def test_the_network_is_one_that_virtualbox_allows():
    network = ipaddress.IPv4Network(CLUSTER["network"])
    assert network.subnet_of(ipaddress.IPv4Network("192.168.56.0/21"))
    nodes = yaml.safe_load((ROOT / "tests/kitchen/pillar/nodes.sls").read_text())["nodes"]
    for machine in (CLUSTER["master"], *nodes.values()):
        assert ipaddress.IPv4Address(machine["address"]) in network


def test_the_containers_network_is_made_and_removed():
    (platform,) = PLATFORMS["kitchen.yml"]
    hooks = {when: " ".join(hook["local"] for hook in found) for when, found in platform["lifecycle"].items()}
    network = re.search(r"--network (\S+)", driver("kitchen.yml", "master")["run_options"])[1]
    assert f"docker network create --subnet {CLUSTER['network']} {network}" in hooks["pre_create"]
    assert f"docker network rm {network}" in hooks.get("post_destroy", "")


def test_services_in_the_container_get_their_credentials():
    """systemd passes credentials by a mount, which no service sees where mounts are private, as Docker makes them."""
    settings = driver("kitchen.yml", "master")
    assert settings["privileged"] is True
    assert "mount --make-rshared / && exec /lib/systemd/systemd" in settings["run_command"]


def test_the_containers_image_is_built_without_the_checkout():
    assert driver("kitchen.yml", "master").get("build_context") is False


# Gems


def test_each_driver_and_provisioner_has_a_gem_of_a_known_version():
    gems = dict(re.findall(r'^ *gem "([^"]+)", "([^"]+)"', (ROOT / "Gemfile").read_text(), re.M))
    plugins = {f"kitchen-{each}" for name in FILES for each in drivers(name) if each not in BUILT_IN}
    assert set(gems) == {"test-kitchen", "kitchen-salt", *plugins}
    assert gems["test-kitchen"].startswith("~> 3."), "kitchen-docker excludes test-kitchen 4"


def test_git_ignores_a_developers_own_settings():
    assert "kitchen.local.yml" in (ROOT / ".gitignore").read_text().splitlines()
