"""kitchen.yml: everything it names is there, and each suite gets its role's states with a valid pillar."""

import shutil

import pytest
import salt.config
import salt.loader
import salt.state
import yaml

from tests.unit.conftest import ROOT

KITCHEN = yaml.safe_load((ROOT / "kitchen.yml").read_text())
PROVISIONER = KITCHEN["provisioner"]
SUITES = {suite["name"]: suite for suite in KITCHEN["suites"]}
MINION = (ROOT / PROVISIONER["salt_minion_config_template"]).read_text()
#: Where kitchen puts its files on a machine.
THERE = yaml.safe_load(MINION)["file_roots"]["base"][0].removesuffix("/srv/salt")
DRIVERS = {"docker", "vagrant", "proxy", "exec"}


def test_suites_platforms_and_drivers():
    assert set(SUITES) == {"master", "worker", "single-node"}
    drivers = {KITCHEN["driver"]["name"]}
    drivers |= {platform["driver"].get("name", "docker") for platform in KITCHEN["platforms"]}
    assert drivers == DRIVERS
    assert PROVISIONER["name"] == "salt_solo"


@pytest.fixture
def sandbox(tmp_path, secrets):
    """Return a function that lays a suite's files out as kitchen-salt does, and returns their root."""

    def lay_out(suite):
        root = tmp_path / "sandbox"
        skip = shutil.ignore_patterns(*PROVISIONER["salt_copy_filter"])
        pairs = [(PROVISIONER["state_collection"], "srv/salt"), (PROVISIONER["data_path"], "data")]
        pairs += [(each["source"], each["dest"]) for each in PROVISIONER["pillars_from_directories"]]
        for source, dest in pairs:
            path = secrets if source == ".kitchen/secrets" else ROOT / source
            shutil.copytree(path, root / dest, ignore=skip, dirs_exist_ok=True)
        for name, content in suite["provisioner"].get("pillars", {}).items():
            (root / "srv/pillar" / name).write_text(yaml.safe_dump(content))
        config = MINION.replace(THERE, str(root)).replace("root_dir: /", f"root_dir: {tmp_path}/salt")
        (root / "minion").write_text(config)
        (root / "grains").write_text(yaml.safe_dump(suite["provisioner"]["grains"]))
        return root

    return lay_out


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_compiles(sandbox, name):
    suite = SUITES[name]
    root = sandbox(suite)
    opts = salt.config.minion_config(str(root / "minion"), minion_id=suite["provisioner"]["salt_minion_id"])
    opts["grains"] = salt.loader.grains(opts)
    with salt.state.HighState(opts) as highstate:
        pillar = highstate.state.opts["pillar"]
        assert "_errors" not in pillar, pillar["_errors"]
        assert pillar["roles"] == suite["provisioner"]["grains"]["roles"]
        matches = highstate.top_matches(highstate.get_top())
        assert matches == {"base": [f"roles.{role}" for role in pillar["roles"]]}
        _, errors = highstate.render_highstate(matches)
        assert errors == []


@pytest.mark.parametrize("name", SUITES)
def test_a_suites_machine_has_the_address_that_its_pillar_says(sandbox, name):
    suite = SUITES[name]
    root = sandbox(suite)
    cluster = yaml.safe_load((root / "srv/pillar/cluster.sls").read_text())["cluster"]
    nodes = yaml.safe_load((root / "srv/pillar/nodes.sls").read_text())["nodes"]
    minion = suite["provisioner"]["salt_minion_id"]
    address = cluster["master"]["address"] if minion == cluster["master"]["id"] else nodes[minion]["address"]
    assert f"--ip {address} --hostname {minion}" in suite["driver"]["run_options"]
    assert suite["driver"]["network"] == [["private_network", {"ip": address}]]
    docker = next(platform for platform in KITCHEN["platforms"] if platform["name"] == "debian-13")
    assert f"--subnet {cluster['network']} " in docker["lifecycle"]["pre_create"][0]["local"]


def test_programs_and_paths_are_there():
    words = " ".join(hook["local"] for hook in KITCHEN["lifecycle"]["pre_converge"]).split()
    words += PROVISIONER["prepare_salt_environment"].replace(f"{THERE}/srv/", "").split()
    named = [word for word in words if word.startswith("salt/")]
    assert len(named) == 3
    for path in named:
        assert (ROOT / path).is_file(), path
