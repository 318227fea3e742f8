"""Rotation of secrets: what there is to do, and that one which was interrupted is completed and not begun anew."""

import json

import pytest
from salt.exceptions import CommandExecutionError

from tests.unit.conftest import ROOT
from tests.unit.load import load

bootstrap = load("salt/bootstrap/secrets.py", "bootstrap_secrets")


@pytest.fixture
def rotation(tmp_path):
    """The runner, on secrets of its own."""
    module = load("salt/_runners/rotation.py", "rotation_runner")
    module.__opts__ = {"id": "master"}
    module.__salt__ = {"membership.connected": lambda: ["master", "w1"]}
    module.PILLAR, module.PATIENCE = tmp_path, 0
    (tmp_path / "secrets").mkdir()
    for audience, generators in bootstrap.GENERATE.items():
        bootstrap.write(tmp_path / f"secrets/{audience}.sls", {name: f"old {name}" for name in generators})
    return module


def secrets(rotation):
    return bootstrap.read(rotation.PILLAR / "secrets/master.sls")


def test_each_secret_is_in_one_class_or_said_to_be_in_none(rotation):
    known = [name for generators in bootstrap.GENERATE.values() for name in generators]
    listed = [name for each in rotation.CLASSES.values() for name in each.get("secrets", [])]
    assert sorted([*listed, *rotation.BY_HAND]) == sorted(known)
    assert set(rotation.TAKES) == set(listed)


def test_what_there_is_to_do(rotation):
    assert rotation.plan("slurm") == {
        "classes": ["slurm"], "master": ["slurm.controller"], "workers": ["slurm.worker"], "orch": [],
        "connected": ["w1"],
    }  # fmt: skip
    both = rotation.plan(["hub", "clients"])
    assert both["classes"] == ["clients", "hub"]
    assert both["master"].count("jupyterhub") == 1
    assert rotation.plan("all")["classes"] == list(rotation.CLASSES)


@pytest.mark.parametrize("asked", [None, [], "munge", ["hub", "munge"], {"hub": 1, "x": 2}])
def test_an_unknown_class_is_refused_with_those_that_there_are(rotation, asked):
    with pytest.raises(CommandExecutionError) as refused:
        rotation.plan(asked)
    assert "is not allowed: dask, database, keycloak, clients, hub" in str(refused.value)
    assert "grafana_admin_password is not rotated by this" in str(refused.value)


def test_only_the_class_is_renewed_and_what_was_is_kept(rotation):
    assert rotation.renew(["conda-store"]) == ["conda_store_token_key", "conda_store_salt_token"]
    changed = {name for name, value in secrets(rotation).items() if not value.startswith("old ")}
    assert changed == {"conda_store_token_key", "conda_store_salt_token"}
    kept = json.loads((rotation.PILLAR / rotation.REPLACED).read_text())
    assert kept == {name: f"old {name}" for name in changed}
    for path in ((rotation.PILLAR / rotation.REPLACED), rotation.PILLAR / "secrets/master.sls"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_an_interrupted_rotation_is_completed(rotation):
    rotation.renew(["conda-store"])
    once = secrets(rotation)
    rotation.renew(["conda-store"])
    assert secrets(rotation) == once
    # and one that came to keep the old value, but not to write the new one
    name = "conda_store_token_key"
    bootstrap.write(rotation.PILLAR / "secrets/master.sls", once | {name: f"old {name}"})
    rotation.renew(["conda-store"])
    assert not secrets(rotation)[name].startswith("old ")
    assert secrets(rotation)["conda_store_salt_token"] == once["conda_store_salt_token"]
    assert json.loads((rotation.PILLAR / rotation.REPLACED).read_text())[name] == f"old {name}"


def test_what_was_is_forgotten_once_the_new_is_proved(rotation, monkeypatch):
    rotation.renew(["conda-store", "keycloak"])
    taken = secrets(rotation)
    for name in ("conda_store_token_key", "conda_store_salt_token"):
        monkeypatch.setitem(rotation.TAKES, name, lambda secret, name=name: secret == taken[name])
    told = rotation.prove(["conda-store"])
    assert sorted(json.loads((rotation.PILLAR / rotation.REPLACED).read_text())) == ["keycloak_salt_secret"]
    assert not any(value in " ".join(told) for value in taken.values())
    monkeypatch.setitem(rotation.TAKES, "keycloak_salt_secret", lambda secret: True)
    with pytest.raises(CommandExecutionError, match="keycloak_salt_secret: that of before still works"):
        rotation.prove(["keycloak"])
    assert (rotation.PILLAR / rotation.REPLACED).exists()


def test_a_fault_does_not_tell_the_secret(rotation, monkeypatch):
    def refuses(secret):
        raise OSError(f"no such password: {secret}")

    for taker, said in (
        (lambda secret: False, "the new one does not work"),
        (lambda secret: True, "that of before still works"),
        (refuses, "cannot be tried: OSError"),
    ):
        monkeypatch.setitem(rotation.TAKES, "slurm_key", taker)
        assert rotation._fault("slurm_key", "old", "sesame") == said


def test_no_hint_is_a_command_that_is_not_on_the_path(rotation):
    """Grafana's program is below /opt/qhub, and a bare ``grafana`` is no command."""
    page = (ROOT / "docs/operations/rotation.md").read_text()
    for text in (page, *rotation.BY_HAND.values()):
        assert "grafana cli" not in text.replace("/opt/qhub/grafana/bin/grafana cli", "")
    assert "runuser -u grafana -- /opt/qhub/grafana/bin/grafana cli" in page
