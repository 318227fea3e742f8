"""Monitoring: everything is asked how it is, strangers are told nothing, and alerts reach somebody."""

import json

import pytest
import requests

from tests.lab.browser import ROOT, page, signed_in
from tests.lab.harness import settings
from tests.lab.hub import CA
from tests.lab.prometheus import ask

PAGE = f"{ROOT}/monitoring/"


def test_everything_is_scraped(lab, master):
    """What Prometheus cannot reach would be missed only when it is needed."""
    scraped = {
        "alertmanager",
        "conda-store",
        "jupyterhub",
        "keycloak",
        "node",
        "prometheus",
        "salt",
        "sshgate",
        "traefik",
    }

    def unhealthy():
        targets = ask(master, "targets?state=active")["activeTargets"]
        bad = {t["scrapeUrl"]: t["lastError"] for t in targets if t["health"] != "up"}
        return bad | dict.fromkeys(scraped - {t["labels"]["job"] for t in targets}, "is not scraped")

    lab.wait_for("all targets are up", lambda: not unhealthy(), timeout=60)
    nodes = {sample["metric"]["instance"] for sample in ask(master, 'query?query=up{job="node"}')["result"]}
    assert nodes == set(settings.NODES)


def test_rules_do_what_they_say(master):
    master.run(["promtool", "check", "rules", "/etc/prometheus/rules.d/nodes.yml", "/etc/prometheus/rules.d/site.yml"])
    tests = master.run(["sh", "-c", "cd /srv/qhub/tests/unit/rules && promtool test rules *.yml"], check=False)
    assert tests.returncode == 0, tests.stdout + tests.stderr


def test_every_rule_has_a_test(master):
    """A rule without one is a rule that nobody has seen fire."""
    rules = [rule for group in ask(master, "rules")["groups"] for rule in group["rules"]]
    alerts = {rule["name"] for rule in rules if rule["type"] == "alerting"}
    text = master.run(["sh", "-c", "cat /srv/qhub/tests/unit/rules/*.yml"]).stdout
    assert not {name for name in alerts if f"alertname: {name}\n" not in text}
    for rule in rules:
        if rule["type"] == "alerting":
            assert rule["labels"].get("severity") in ("warning", "critical"), rule["name"]
            assert set(rule["annotations"]) >= {"summary", "description"}, rule["name"]


def test_people_see_it_after_they_signed_in(lab, browser):
    with signed_in(lab, browser, "marie") as shown:
        shown.goto(PAGE)
        shown.get_by_role("heading", name="Alerts").wait_for()
        shown.goto(f"{PAGE}targets")
        shown.get_by_role("heading", name="Targets").wait_for()
        for name in settings.NODES:
            assert shown.get_by_text(f'instance="{name}"').count()
        shown.goto(f"{PAGE}graph?g0.expr=node_load1&g0.tab=1")  # as an alert's message leads there
        shown.get_by_text('instance="w1"').first.wait_for()


def test_who_is_not_signed_in_is_told_nothing(browser, tmp_path, master):
    with page(browser) as shown:
        shown.goto(PAGE)
        shown.get_by_label("Username").wait_for()
        assert shown.url.startswith(f"{ROOT}/auth/realms/")
    ca = tmp_path / "ca.crt"
    ca.write_text(master.read(CA))
    address = f"https://{settings.ADDRESSES['master']}/monitoring/"
    forged = {"X-Remote-User": "ada", "OIDC_CLAIM_roles": "admin", "Cookie": "mod_auth_openidc_session=ada"}
    for path in ("api/v1/query?query=up", "metrics", "federate?match[]=up", "login/../metrics", "-/healthy", "LOGIN/"):
        for more in ({}, forged):
            headers = {"Host": "master.cluster.internal", **more}
            answer = requests.get(address + path, verify=ca, timeout=30, allow_redirects=False, headers=headers)
            assert answer.status_code in (302, 401, 404), (path, answer.status_code)
            assert answer.headers.get("Location", f"{ROOT}/auth/").startswith(f"{ROOT}/auth/")
            assert "up{" not in answer.text
    answer = requests.get(address, verify=ca, timeout=30, allow_redirects=False)
    assert answer.headers["Location"].startswith(PAGE), "another name"


def test_nobody_changes_anything_through_the_page(lab, browser):
    with signed_in(lab, browser, "ada") as shown:
        shown.goto(f"{PAGE}status")
        for path in ("-/reload", "-/quit", "api/v1/admin/tsdb/delete_series?match[]=up"):
            status = shown.evaluate("async address => (await fetch(address, {method: 'POST'})).status", f"{PAGE}{path}")
            assert status >= 400, path


@pytest.mark.parametrize("name", ["scrape.d/site.yml", "rules.d/removed.yml"])
def test_what_no_formula_declares_goes(lab, master, name):
    """So does what a formula that is no longer there declared."""
    master.write(f"/etc/prometheus/{name}", json.dumps({"groups" if "rules" in name else "scrape_configs": []}))
    lab.highstate("master")
    assert master.run(["test", "-e", f"/etc/prometheus/{name}"], check=False).returncode
