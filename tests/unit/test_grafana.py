"""Grafana's configuration: settings that it has, who may do what, and no secret in it."""

import configparser
import re

import jinja2
import jmespath
import pytest
import salt.loader
import salt.state
import yaml

from tests.unit.conftest import ROOT
from tests.unit.load import load

#: section -> the settings that Grafana has there; see the file.
KNOWN = yaml.safe_load((ROOT / "tests/unit/grafana_settings.yaml").read_text())
TOKEN = {"sub": "1", "preferred_username": "ada", "name": "Ada Lovelace"}


@pytest.fixture(scope="module")
def rendered(options, tmp_path_factory):
    """Return a function: ``(states, errors)`` of some SLS on a master, ``{id: {module: {argument: value}}}``."""

    def render(*sls, **monitoring):
        base = tmp_path_factory.mktemp("grafana")
        (base / "pillar").mkdir()
        (base / "pillar/monitoring.sls").write_text(
            yaml.safe_dump({"monitoring": {"page": "grafana"}, "accounts": {}, "users": {}} | monitoring)
        )
        opts = options("minion", base / "salt", base / "pillar")
        opts["grains"] = {**salt.loader.grains(opts), "id": "master", "roles": ["master"], "os_family": "Debian"}
        with salt.state.HighState(opts) as highstate:
            high, errors = highstate.render_highstate({"base": list(sls)})
        return {
            name: {
                module: {key: value for each in arguments if isinstance(each, dict) for key, value in each.items()}
                for module, arguments in entry.items()
                if not module.startswith("__")
            }
            for name, entry in high.items()
            if not name.startswith("__")
        }, errors

    return render


@pytest.fixture(scope="module")
def states(rendered):
    """Return the formula's states as a master has them: ``{id: {module: {argument: value}}}``."""
    high, errors = rendered("grafana")
    assert not errors
    return high


@pytest.fixture(scope="module")
def routes(states):
    """Return Traefik's routers and middlewares for Grafana: ``{"routers": {name: router}, "middlewares": {...}}``."""
    return yaml.safe_load(states["Routes of grafana are in place"]["file"]["contents"])["http"]


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
        ("cloud_migration", "enabled"),
        ("provisioning", "enabled"),
    ):
        assert not settings.getboolean(section, key), key
    oauth = settings["auth.generic_oauth"]
    assert all(oauth.getboolean(key) for key in ("enabled", "auto_login", "use_pkce", "role_attribute_strict"))
    assert oauth["auth_url"] == "https://master.cluster.internal/auth/realms/qhub/protocol/openid-connect/auth"
    assert oauth["signout_redirect_url"].endswith(
        "/logout?client_id=grafana&post_logout_redirect_uri=https%3A//master.cluster.internal/monitoring/"
    )


def test_secrets_are_files_that_only_the_service_has(settings, states):
    kept = {"security": ("admin_password", "secret_key"), "auth.generic_oauth": ("client_secret",)}
    unit = jinja2.Template((ROOT / "formulas/grafana/files/grafana-server.service.jinja").read_text())
    text = unit.render(states["Grafana has a unit"]["file"]["context"])
    sealed = settings["secrets_manager.encryption.secret_key.v1"]["secret_key"]
    assert sealed == settings["security"]["secret_key"], "another key is the one that Grafana publishes"
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


def test_two_people_with_one_mail_address_are_two_people_in_grafana(settings):
    """Grafana has one person for each address, and takes the claim ``email`` before the path."""
    oauth = settings["auth.generic_oauth"]
    path = oauth["email_attribute_path"]
    people = [{**TOKEN, "preferred_username": name, "email": "group@example.org"} for name in ("ada", "bob")]
    assert [jmespath.search(path, one) for one in people] == ["ada@cluster.internal", "bob@cluster.internal"]
    assert "email" not in oauth["scopes"].split()
    realm = load("_modules/qhub_realm.py", "qhub_realm")
    assert "email" not in realm.SCOPES["grafana"]


def test_grafana_leaves_connections_of_the_database_to_other_services(settings):
    assert 0 < settings.getint("database", "max_open_conn") < 50


def test_grafana_has_the_data_source_it_brings_and_starts_no_other(settings):
    assert settings["paths"]["bundled_plugins"] == "/opt/qhub/grafana/data/plugins-bundled"
    assert settings.getboolean("plugins", "preinstall_disabled")
    disabled = settings["plugins"]["disable_plugins"].split(",")
    assert "loki" in disabled
    assert "prometheus" not in disabled


def test_directories_of_provisioning_are_complete(states):
    directories = {
        entry["file"]["name"].rpartition("/")[2]
        for entry in states.values()
        if str(entry.get("file", {}).get("name")).startswith("/etc/grafana/provisioning/")
        and not entry["file"]["name"].endswith(".yaml")
    }
    assert directories == {"access-control", "alerting", "notifiers", "plugins"}


def test_grafana_can_read_the_sites_own_dashboards(states):
    directory = states["Directory of the site's own dashboards is here"]["file"]
    assert (directory["file_mode"], directory["recurse"]) == ("0644", ["mode"])


def test_an_image_renderer_needs_its_token(rendered):
    rendering = {"server_url": "http://127.0.0.1:8083/render"}
    _, errors = rendered("grafana", grafana={"config": {"rendering": rendering}})
    assert "grafana.config.rendering.server_url: http://127.0.0.1:8083/render needs" in str(errors)
    _, errors = rendered("grafana", grafana={"config": {"rendering": {**rendering, "renderer_token": "x"}}})
    assert not errors


# How people get there


@pytest.mark.parametrize("path", ["graph?g0.expr=up+%3D%3D+0&g0.tab=1", "alerts"])
def test_links_in_alerts_lead_to_a_dashboard(routes, path):
    router = routes["routers"]["grafana-alerts"]
    assert f"Path(`/monitoring/{path.partition('?')[0]}`)" in router["rule"]
    assert router["priority"] > max(len(each["rule"]) for each in routes["routers"].values())
    (middleware,) = (routes["middlewares"][name]["redirectRegex"] for name in router["middlewares"])
    there = re.sub(middleware["regex"], middleware["replacement"], f"https://hpc/monitoring/{path}", count=1)
    uid = there.removeprefix("https://master.cluster.internal/monitoring/d/qhub-")
    assert (ROOT / f"formulas/grafana/files/dashboards/{uid}.json").is_file(), there


def test_another_name_of_the_master_leads_to_the_one_where_signing_in_works(routes):
    name = "Host(`master.cluster.internal`)"
    others = dict(routes["routers"])
    elsewhere = others.pop("grafana-elsewhere")
    assert elsewhere["rule"].endswith(f" && !{name}")
    assert all(re.search(rf"(^|&& ){re.escape(name)}", each["rule"]) for each in others.values())
    (middleware,) = (routes["middlewares"][name]["redirectRegex"] for name in elsewhere["middlewares"])
    there = re.sub(
        middleware["regex"], middleware["replacement"].replace("${1}", r"\1"), "https://10.0.0.1/monitoring/d/x?y=1"
    )
    assert there == "https://master.cluster.internal/monitoring/d/x?y=1"


def test_only_paths_below_monitoring_lead_to_grafana(routes):
    assert not [each for each in routes["routers"].values() if "PathPrefix(`/monitoring`)" in each["rule"]]


# Another page


def test_a_page_that_is_not_wanted_keeps_no_secret(rendered):
    """The rotation of its client's secret would leave the old value, and take it for the one in use."""
    grafana, errors = rendered("prometheus.page")
    assert not errors
    assert grafana["Prometheus's page has no secrets"]["file"]["name"] == "/etc/qhub/page/secrets.conf"
    prometheus, errors = rendered("grafana", monitoring={"page": "prometheus"})
    assert not errors
    assert prometheus["Grafana's secrets are removed"]["file"]["name"] == "/etc/grafana/secrets"


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
