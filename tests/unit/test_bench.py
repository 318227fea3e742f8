"""Figures are printed whichever of the programs they are compared with can be had."""

from types import SimpleNamespace

import pytest

from tests.bench import keycloak_realm

SIZES = (100, 100, 100)


class Recorded(keycloak_realm.Bench):
    """Takes a second and ten requests for each run, without running anything."""

    def __init__(self, tmp_path):
        node = SimpleNamespace(root=tmp_path, write=lambda *_: None, command=lambda words: words)
        keycloak = SimpleNamespace(admin=lambda *_, **__: None, node=node, connection={})
        super().__init__(keycloak, tmp_path, 1)

    def measure(self, name, words, **options):
        self.rows[name] = (1.0, 10, True)
        return "0" if name.endswith("no-op") else "1"


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """Neither of the two programs can be had, and nothing is cached."""
    monkeypatch.setattr(keycloak_realm, "CONFIG_CLI", (tmp_path / "no-such.jar").as_uri())
    monkeypatch.setattr(keycloak_realm, "ANSIBLE", str(tmp_path / "no-such.whl"))
    monkeypatch.setattr(keycloak_realm.settings, "CACHE", tmp_path / "cache")


def test_what_cannot_be_had_is_named_and_the_rest_is_measured(nothing, tmp_path, capsys):
    missing = {}
    programs = {"keycloak-config-cli": keycloak_realm.config_cli, "Ansible": keycloak_realm.ansible}
    had = keycloak_realm.available({**programs, "another": lambda: tmp_path}, missing)
    assert had == {"another": tmp_path}
    assert "No such file or directory" in missing["keycloak-config-cli"]
    assert "no-such.whl" in missing["Ansible"]
    rows = keycloak_realm.measure(Recorded(tmp_path), SIZES, {})
    assert set(rows) == set(keycloak_realm.COMPARED)
    keycloak_realm.show(SIZES, rows, missing)
    shown = capsys.readouterr().out
    assert "keycloak_realm: first apply" in shown
    assert "not compared with Ansible, which is missing: " in shown


def test_with_both_programs_everything_is_compared(tmp_path, capsys):
    (tmp_path / "srv").mkdir()
    (tmp_path / "cli.jar").touch()
    programs = {"keycloak-config-cli": tmp_path / "cli.jar", "Ansible": tmp_path}
    keycloak_realm.show(SIZES, keycloak_realm.measure(Recorded(tmp_path), SIZES, programs), {})
    shown = capsys.readouterr().out
    for ours, others in keycloak_realm.COMPARED.items():
        for other in others:
            assert f"{ours}: 1.0 times as fast as {other}" in shown or "extrapolated" in other
    assert "missing" not in shown
