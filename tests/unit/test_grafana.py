"""Grafana's configuration: settings that it has, who may do what, and no secret in it."""

import configparser

import jinja2
import jmespath
import pytest
import salt.loader
import salt.state
import yaml

from tests.unit.conftest import ROOT

#: section -> the settings that Grafana has there; see the file.
KNOWN = yaml.safe_load((ROOT / "tests/unit/grafana_settings.yaml").read_text())
TOKEN = {"sub": "1", "preferred_username": "ada", "name": "Ada Lovelace"}


@pytest.fixture(scope="module")
def states(options, tmp_path_factory):
    """Return the formula's states as a master has them: ``{id: {module: {argument: value}}}``."""
    base = tmp_path_factory.mktemp("grafana")
    opts = options("minion", base / "salt")
    opts["grains"] = {**salt.loader.grains(opts), "id": "master", "roles": ["master"], "os_family": "Debian"}
    with salt.state.HighState(opts) as highstate:
        high, errors = highstate.render_highstate({"base": ["grafana"]})
    assert not errors
    return {
        name: {
            module: {key: value for each in arguments if isinstance(each, dict) for key, value in each.items()}
            for module, arguments in entry.items()
            if not module.startswith("__")
        }
        for name, entry in high.items()
        if not name.startswith("__")
    }


@pytest.fixture(scope="module")
def settings(states):
    """Return grafana.ini, read as INI."""
    context = states["Grafana is configured"]["file"]["context"]
    text = jinja2.Template((ROOT / "formulas/grafana/files/grafana.ini.jinja").read_text()).render(context)
    parser = configparser.ConfigParser(interpolation=None, delimiters="=")
    parser.read_string(text)
    return parser


def test_grafana_has_every_setting(settings):
    unknown = [f"{section}: {key}" for section in settings.sections() for key in settings[section]]
    assert [each for each in unknown if each.split(": ")[1] not in KNOWN.get(each.split(": ")[0], [])] == []


def test_grafana_is_for_this_machine_and_those_who_sign_in(settings):
    assert settings["server"]["http_addr"] == "127.0.0.1"
    assert settings["server"]["root_url"] == "https://master.cluster.internal/monitoring/"
    assert settings.getboolean("server", "serve_from_sub_path")
    for section, key in (
        ("auth.anonymous", "enabled"),
        ("auth.basic", "enabled"),
        ("users", "allow_sign_up"),
        ("analytics", "reporting_enabled"),
        ("analytics", "check_for_updates"),
        ("analytics", "check_for_plugin_updates"),
        ("news", "news_feed_enabled"),
        ("public_dashboards", "enabled"),
        ("snapshots", "enabled"),
    ):
        assert not settings.getboolean(section, key), key
    oauth = settings["auth.generic_oauth"]
    assert all(oauth.getboolean(key) for key in ("enabled", "auto_login", "use_pkce", "role_attribute_strict"))
    assert oauth["auth_url"] == "https://master.cluster.internal/auth/realms/qhub/protocol/openid-connect/auth"
    assert oauth["signout_redirect_url"].endswith(
        "/logout?post_logout_redirect_uri=https%3A//master.cluster.internal/monitoring/"
    )


def test_secrets_are_files_that_only_the_service_has(settings, states):
    kept = {"security": ("admin_password", "secret_key"), "auth.generic_oauth": ("client_secret",)}
    unit = jinja2.Template((ROOT / "formulas/grafana/files/grafana-server.service.jinja").read_text())
    text = unit.render(states["Grafana has a unit"]["file"]["context"])
    for section, keys in kept.items():
        for key in keys:
            assert settings[section][key] == f"$__file{{/run/credentials/grafana-server.service/{key}}}"
            assert f"LoadCredential={key}:/etc/grafana/secrets/{key}" in text
            assert states[f"Grafana's {key} is in place"]["file"]["mode"] == "0600"


@pytest.mark.parametrize(
    ("roles", "role"),
    [("admin", "Admin"), ("developer", "Viewer"), ("viewer", "Viewer"), ("viewer admin", "Admin"), ("", False)],
)
def test_a_role_of_the_realm_is_one_of_grafanas(settings, roles, role):
    assert (
        jmespath.search(settings["auth.generic_oauth"]["role_attribute_path"], {**TOKEN, "roles": roles.split()})
        == role
    )


def test_who_has_no_mail_has_an_address_of_the_cluster(settings):
    path = settings["auth.generic_oauth"]["email_attribute_path"]
    assert jmespath.search(path, {**TOKEN, "email": "ada@example.org"}) == "ada@example.org"
    assert jmespath.search(path, TOKEN) == "ada@cluster.internal"


def test_grafana_is_told_of_prometheus_and_of_two_folders(states):
    (source,) = states["Grafana is told of its datasources"]["file"]["dataset"]["datasources"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://127.0.0.1:9090")
    folders = states["Grafana is told of its dashboards"]["file"]["dataset"]["providers"]
    assert [(each["folder"], each["options"]["path"]) for each in folders] == [
        ("Cluster", "/etc/grafana/dashboards"),
        ("Site", "/etc/grafana/site"),
    ]


def test_the_home_page_is_one_of_the_dashboards(settings):
    path = settings["dashboards"]["default_home_dashboard_path"]
    assert (ROOT / "formulas/grafana/files/dashboards" / path.rsplit("/", 1)[1]).is_file()
