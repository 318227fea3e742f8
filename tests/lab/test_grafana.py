"""Grafana's formula, with a stand-in for Grafana's program (tests/lab/stand_in): everything around the program itself.

Grafana can be had from no registry, so that neither its pages nor its own behaviour are tested here.
"""

import contextlib
import copy
import hashlib
import json
import re
import shutil

import pytest
import requests

from tests.lab import stand_in
from tests.lab.browser import ROOT, page, signed_in
from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings, site
from tests.lab.harness.shell import wait_for
from tests.lab.hub import CA
from tests.lab.prometheus import ask

PAGE = f"{ROOT}/monitoring/"
VERSIONS = ("13.2.2", "13.2.3")
#: On the master: the mirror's programs and the list of them, as this test has them, over the lab's own.
PROGRAMS, LIST = "/root/stand-in", "/root/stand-in.json"
OVER = {PROGRAMS: f"{settings.MIRROR}/artifacts", LIST: f"{settings.CHECKOUT}/salt/artifacts.json"}
UNIT = "grafana-server"
NAME = ROOT.removeprefix("https://")


class Site:
    """The lab's master with the stand-in in place of Grafana's archive."""

    def __init__(self, lab, directory):
        self.lab, self.master = lab, lab.master
        self.ca = directory / "ca.crt"
        self.ca.write_text(lab.master.read(CA))
        self.directory = directory

    def release(self, version):
        """Let the list of programs name this version of the stand-in, which the mirror has."""
        listed = json.loads((settings.REPOSITORY / "salt/artifacts.json").read_text())
        archive = self.directory / f"grafana-{version}.tar.gz"
        stand_in.grafana(archive, version)
        shutil.copy(archive, self.master.root / PROGRAMS[1:])
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        listed["grafana"] = {
            "version": version,
            "file": "grafana-{version}.tar.gz",
            "url": "https://grafana.invalid/grafana-{version}.tar.gz",
            "sha256": {"any": digest},
        }
        # The file itself: another one would not be the one that is mounted.
        self.master.run(["tee", LIST], input=json.dumps(listed))

    @contextlib.contextmanager
    def mounted(self):
        """Have the lab's master find the stand-in."""
        self.master.run(["mkdir", "-p", PROGRAMS])
        self.release(VERSIONS[0])
        try:
            for ours, theirs in OVER.items():
                self.master.run(["mount", "--bind", ours, theirs])
            yield
        finally:
            for theirs in OVER.values():
                self.master.run(["umount", "--lazy", theirs], check=False)
            self.master.run(["rm", "-rf", PROGRAMS, LIST])

    def get(self, path, host=NAME, method="GET", cookie="", **options):
        """Return the answer of the front door to a request for a name; redirections are answers."""
        session = requests.Session()
        session.trust_env = False
        url = f"https://{settings.ADDRESSES['master']}/monitoring/{path}"
        headers = {"Host": host, **({"Cookie": cookie} if cookie else {})}
        options = {"verify": str(self.ca), "timeout": 30, "allow_redirects": False, **options}
        return session.request(method, url, headers=headers, **options)

    def ini(self, key):
        """Return the value of a key of grafana.ini."""
        text = self.master.read("/etc/grafana/grafana.ini")
        return re.search(rf"^{key} = (.*)$", text, re.MULTILINE)[1]

    def journal(self):
        """Return what the program has logged since its last start."""
        words = ["systemctl", "show", "--property=InvocationID", "--value", UNIT]
        number = self.master.run(words).stdout.strip()
        return self.master.run(["journalctl", "-q", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={number}"]).stdout

    def sql(self, statement):
        words = ["psql", "-XAt", "-c", statement, "grafana"]
        return self.master.run(words, user="postgres").stdout.split()

    def is_active(self, unit):
        return self.master.run(["systemctl", "is-active", unit], check=False).stdout.strip() == "active"


def one_address(users):
    """Give ada and marie the same mail address."""
    users["users"]["marie"]["email"] = users["users"]["ada"]["email"]
    return users


@pytest.fixture(scope="module")
def grafana(lab, tmp_path_factory):
    """The lab with ``page: grafana``, which had ``page: prometheus`` before; changed back at the end."""
    changed = Site(lab, tmp_path_factory.mktemp("grafana"))
    to_grafana = {"monitoring": lambda _: {"monitoring": {"page": "grafana"}}, "users": one_address}
    try:
        with changed.mounted(), lab.pillar(**to_grafana):
            lab.highstate("master")
            yield changed
    finally:
        lab.highstate("master")
        lab.master.run(["sh", "-c", "rm -rf /opt/qhub/grafana /opt/qhub/grafana-*"])
        lab.master.run(["runuser", "-u", "postgres", "--", "dropdb", "--if-exists", "grafana"], check=False)


@contextlib.contextmanager
def at_grafana(lab, browser, name):
    """Yield a page of somebody who has signed in at the Hub and comes to Grafana."""
    with signed_in(lab, browser, name) as shown:
        shown.goto(PAGE)
        shown.wait_for_url(PAGE)
        shown.get_by_text("The tests' stand-in for Grafana").wait_for()
        yield shown


def asked(shown, path):
    """Return ``[status, text]`` of what a page of somebody's asks Grafana."""
    script = "async url => { const a = await fetch(url); return [a.status, await a.text()] }"
    return shown.evaluate(script, PAGE + path)


def test_it_is_fetched_unpacked_and_running(grafana, master):
    home = f"/opt/qhub/grafana-{VERSIONS[0]}"
    assert master.run(["readlink", "/opt/qhub/grafana"]).stdout.strip() == home
    wrong = ["find", home, "-not", "-user", "root", "-o", "-perm", "/022", "-o", "-not", "-perm", "-444"]
    assert master.run(wrong).stdout == ""
    assert grafana.is_active(UNIT)
    health = grafana.get("api/health").json()
    assert health == {"database": "ok", "version": VERSIONS[0]}
    assert "level=error" not in grafana.journal()


def test_a_second_highstate_changes_nothing(grafana, lab):
    assert not {state: each for state, each in lab.highstate("master").items() if each["changes"]}


def test_its_process_is_confined(grafana, master):
    number = master.run(["systemctl", "show", "--property=MainPID", "--value", UNIT]).stdout.strip()
    status = master.read(f"/proc/{number}/status")
    user = master.run(["id", "-u", "grafana"]).stdout.strip()
    assert re.search(rf"^Uid:\s+{user}\s", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    probe = "touch /opt/qhub/grafana/x /etc/grafana/x /home/x; ls /home /root; cat /etc/grafana/secrets/*"
    inside = ["nsenter", "-t", number, "-m", "setpriv", f"--reuid={user}", "--clear-groups", "sh", "-c", probe]
    refused = master.run(inside, check=False)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) >= 5
    assert master.run(["stat", "-c", "%U %a", "/var/lib/grafana"]).stdout.split() == ["grafana", "700"]


def test_its_secrets_are_its_own(grafana, master):
    """No secret is in its configuration, its arguments or its environment."""
    secrets = json.loads(master.read("/var/lib/qhub/pillar/secrets/master.sls"))["secrets"]
    values = [value for name, value in secrets.items() if name.startswith("grafana_")]
    number = master.run(["systemctl", "show", "--property=MainPID", "--value", UNIT]).stdout.strip()
    shown = master.read("/etc/grafana/grafana.ini") + grafana.journal()
    shown += master.run(["sh", "-c", f"cat /proc/{number}/cmdline /proc/{number}/environ"]).stdout
    assert len(values) == 3
    assert not [value for value in values if value in shown]
    assert not set(values) & set(grafana.sql("""SELECT password FROM "user" """))


def test_only_the_front_door_and_prometheus_reach_it(grafana, lab, master):
    script = "import urllib.request as r; r.urlopen('http://127.0.0.1:3000/monitoring/api/health', timeout=5)"
    words = ["python3", "-c", script]
    assert not master.run(words, check=False).returncode
    assert lab.as_user("ada", words, check=False).returncode
    for path in ("metrics", "metrics/", "login/../metrics", "%6Detrics"):
        assert "grafana_build_info" not in grafana.get(path).text, path


def test_prometheus_scrapes_it(grafana, lab, master):
    def value(query):
        return [each["value"][1] for each in ask(master, f"query?query={query}")["result"]]

    wait_for("Grafana is scraped", lambda: value('up{job="grafana"}') == ["1"], timeout=60)
    found = ask(master, "query?query=grafana_plugin_build_info")["result"]
    assert {each["metric"]["plugin_id"] for each in found} == {"prometheus"}, "others are disabled"


def test_people_sign_in_and_have_their_roles(grafana, lab, browser):
    """Also two with one mail address."""
    for name, role in {"ada": "Admin", "marie": "Viewer"}.items():
        with at_grafana(lab, browser, name) as shown:
            person = json.loads(asked(shown, "api/user")[1])
            assert person == {"login": name, "email": f"{name}@cluster.internal", "role": role}
            found = {each["uid"] for each in json.loads(asked(shown, "api/search")[1])}
            assert {"qhub-overview", "qhub-alerts", "qhub-slurm"} <= found
            assert asked(shown, "api/datasources/uid/prometheus/health") == [200, '{"status": "success"}']


def test_who_is_not_signed_in_is_told_nothing(grafana, browser):
    assert grafana.get("api/search").status_code == 401
    assert grafana.get("api/user").status_code == 401
    with page(browser) as shown:
        shown.goto(f"{PAGE}d/qhub-alerts")
        shown.get_by_label("Username").wait_for()
        assert shown.url.startswith(f"{ROOT}/auth/realms/")


def test_somebody_else_s_code_signs_nobody_in(grafana):
    """The state is in a cookie of the browser that began."""
    answer = grafana.get("login/generic_oauth?code=x&state=y")
    assert "missing%20state%20cookie" in answer.headers["Set-Cookie"]
    assert "grafana_session" not in answer.headers["Set-Cookie"]


def test_another_name_of_the_master_leads_to_the_page(grafana):
    for host in (settings.ADDRESSES["master"], "master"):
        answer = grafana.get("d/qhub-alerts?from=now-1h", host=host)
        assert answer.headers["Location"] == f"{PAGE}d/qhub-alerts?from=now-1h", host
        assert grafana.get("login/generic_oauth", host=host).headers["Location"] == f"{PAGE}login/generic_oauth"


def test_a_link_in_an_alert_leads_to_a_page(grafana, lab, browser, master):
    root = ask(master, "status/flags")["web.external-url"].rstrip("/")
    link = f"{root}/graph?g0.expr=up%7Bjob%3D%22node%22%7D+%3D%3D+0&g0.tab=1"
    with at_grafana(lab, browser, "marie") as shown:
        assert shown.goto(link).status == 200
        assert shown.url == f"{PAGE}d/qhub-alerts"
        assert shown.goto(f"{root}/#/alerts?receiver=site").status == 200
        assert shown.goto(f"{root}/nosuch").status == 404


def test_signing_out_ends_the_session_in_keycloak_too(grafana, lab, browser):
    with at_grafana(lab, browser, "marie") as shown:
        shown.goto(f"{PAGE}logout")
        shown.get_by_label("Username").wait_for()
        shown.goto(PAGE)
        shown.get_by_label("Username").wait_for()


def test_signing_out_works_without_a_valid_token(grafana, lab, browser):
    """Grafana names no person then; Keycloak asks, instead of refusing."""
    with at_grafana(lab, browser, "marie") as shown:
        shown.context.clear_cookies(name="grafana_session")
        shown.goto(grafana.ini("signout_redirect_url"))
        shown.get_by_role("button", name="Logout").click()
        shown.get_by_label("Username").wait_for()


def test_the_emergency_account_signs_in_with_its_password(grafana, master):
    assert "Sign in with a password" in grafana.get("login?disableAutoLogin=true").text
    password = master.read("/etc/grafana/secrets/admin_password")
    right, wrong = ({"user": "break-glass", "password": each} for each in (password, "wrong"))
    assert grafana.get("login", method="POST", json=wrong).status_code == 401
    answer = grafana.get("login", method="POST", json=right)
    assert answer.status_code == 200
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    assert grafana.get("api/user", cookie=cookie).json()["role"] == "Admin"


def test_a_dashboard_of_the_site_is_shown_whatever_mode_it_was_copied_with(grafana, lab, browser, master):
    try:
        text = json.dumps({"uid": "own", "title": "Our own"})
        master.write("/etc/grafana/site/own.json", text, mode="0600")
        lab.apply("master", ["grafana"])
        with at_grafana(lab, browser, "marie") as shown:
            assert shown.goto(f"{PAGE}d/own").status == 200
            shown.get_by_role("heading", name="Our own").wait_for()
    finally:
        master.run(["rm", "-f", "/etc/grafana/site/own.json"])


def test_its_client_s_secret_is_rotated(grafana, lab, browser, master):
    """Prometheus's page was there before, and its file with the old secret would be taken for the one in use."""
    before = master.read("/etc/grafana/secrets/client_secret")
    assert master.run(["test", "-e", "/etc/qhub/page/secrets.conf"], check=False).returncode
    lab.orchestrate("orch.rotate", **{"class": "clients"})
    assert master.read("/etc/grafana/secrets/client_secret") != before
    with at_grafana(lab, browser, "ada") as shown:
        assert json.loads(asked(shown, "api/user")[1])["role"] == "Admin"


def test_all_is_well_with_it(grafana, lab):
    the_lab.healthy(lab.master)


def test_a_new_version_takes_the_place_of_the_old_one(grafana, lab, master):
    people = grafana.sql('SELECT login FROM "user" ORDER BY login')
    grafana.release(VERSIONS[1])
    lab.apply("master", ["grafana"])
    assert master.run(["sh", "-c", "ls -d /opt/qhub/grafana-*"]).stdout.split() == [f"/opt/qhub/grafana-{VERSIONS[1]}"]
    assert grafana.get("api/health").json()["version"] == VERSIONS[1]
    assert grafana.sql("SELECT version FROM migration_log ORDER BY version") == list(VERSIONS)
    assert grafana.sql('SELECT login FROM "user" ORDER BY login') == people
    assert {"ada", "marie", "break-glass"} <= set(people)


def test_the_page_is_changed_back(grafana, lab, browser, master):
    """Last of all."""
    site.write(master, monitoring=copy.deepcopy(site.MONITORING))
    lab.highstate("master")
    assert not grafana.is_active(UNIT)
    for gone in ("/etc/grafana/secrets", "/etc/traefik/dynamic/grafana.yml", "/etc/prometheus/scrape.d/grafana.yml"):
        assert master.run(["test", "-e", gone], check=False).returncode, gone
    with signed_in(lab, browser, "marie") as shown:
        shown.goto(f"{PAGE}graph?g0.expr=node_load1&g0.tab=1")
        shown.get_by_text('instance="w1"').first.wait_for()
    the_lab.healthy(master)
