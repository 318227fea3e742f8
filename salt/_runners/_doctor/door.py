"""
Checks of the front door: that it is there, its certificate, and that behind each path is who belongs there.
"""

import datetime
import html
import re
import socket
import ssl
from pathlib import Path
from urllib.parse import urljoin

from cryptography import x509

from .ask import TRUSTED, exchange, fetch, fetch_json, reason, words
from .engine import Absent, Fault, Warned

#: Days that a certificate has to be valid still.
DAYS = 14
#: Its ports with TLS; that of Dask is the same to who names no cluster.
PORTS = (443, 8786)
#: How often a service may send a browser on before it is at the realm.
REDIRECTIONS = 5
#: What to do about the host name of people's servers.
PEOPLE_NAME = "cluster.people_name in cluster.sls, and the DNS; docs/security.md"
#: Others than browsers are refused instead of being sent to sign in.
BROWSER = {"Accept": "text/html"}
#: The certificates of the authority and of services, where they are.
AUTHORITY, SERVICES = Path("/var/lib/qhub/files/ca/ca.crt"), Path("/etc/qhub/tls")


def traefik(site):
    """The front door runs, and has routes that are sound."""
    fetch("http://127.0.0.1:8082/ping")
    found = fetch_json("http://127.0.0.1:8082/api/http/routers") + fetch_json("http://127.0.0.1:8082/api/tcp/routers")
    wrong = [
        f"{each['name']}: {'; '.join(each.get('error', [each['status']]))}"
        for each in found
        if each["status"] != "enabled"
    ]
    if wrong:
        raise Fault(*wrong)
    return f"{len(found)} routes"


def certificates(site):
    """Every certificate is for its name, from whom the nodes trust, and valid; people's servers have their own name."""
    ends = {f"port {port}, {name}": presented(site, port, name) for port in PORTS for name in host_names(site)}
    for path in (AUTHORITY, *sorted(SERVICES.glob("*.crt"))):
        ends[str(path)] = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    now = datetime.datetime.now(datetime.timezone.utc)
    wrong = [line for line in (soon(name, end, now) for name, end in ends.items()) if line]
    if wrong:
        raise Fault(*wrong)
    people(site)
    return f"valid until {min(ends.values()):%Y-%m-%d} at least"


def host_names(site):
    """Return the host names that people's browsers use: the front door's, and one of people's own servers."""
    return sorted({site.public_name, site.people_name.replace("*", "any")})


def presented(site, port, name):
    """Return when the certificate ends that the front door shows at a port for a host name, once it is verified."""
    context = ssl.create_default_context(cafile=TRUSTED)
    try:
        with socket.create_connection((site.address, port), 10) as plug, context.wrap_socket(
            plug, server_hostname=name
        ) as tls:  # fmt: skip
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").not_valid_after_utc
    except OSError as error:
        raise Fault(f"port {port}, {name}: {reason(error)}") from None


def soon(name, end, now):
    """Return that something ends soon, ``None`` if it does not."""
    days = (end - now).total_seconds() / 86400
    if days > DAYS:
        return None
    return f"{name}: its certificate " + (f"ended on {end:%Y-%m-%d}" if days < 0 else f"ends in {days:.0f} days")


def people(site):
    """The host name of people's servers leads to the front door, and to no page at which people sign in."""
    if site.people_name == site.public_name:
        raise Warned(
            f"people's servers have the front door's name {site.public_name}: "
            "a page of one person can act as its readers",
            advice=PEOPLE_NAME,
        )
    *_, name = sorted(host_names(site), key=lambda each: each != site.public_name)
    try:
        found = {each: {str(info[4][0]) for info in socket.getaddrinfo(each, 443)} for each in (site.public_name, name)}
    except OSError as error:
        raise Fault(
            f"{name} has no address ({reason(error)}): add the name to the DNS, beside {site.public_name}",
            advice=PEOPLE_NAME,
        ) from None
    if not found[name] & found[site.public_name]:
        raise Fault(
            f"{name} has the address {', '.join(sorted(found[name]))}, which is not that of {site.public_name}",
            advice=PEOPLE_NAME,
        )
    answer = fetch(f"https://{name}/", expect=(302,))
    if answer.headers.get("Location", "") != f"https://{site.public_name}/":
        raise Fault(f"https://{name}/: another service's answer: {words(answer.text)}")
    return site.people_name


def realm(site):
    """Behind /auth/ is the people's realm."""
    found = fetch_json(f"{site.realm}/.well-known/openid-configuration")
    if found.get("issuer") != site.realm:
        raise Fault(f"{site.realm} says that it is {found.get('issuer')}")
    return site.realm


def hub(site):
    """Behind / is the Hub, which lets people sign in."""
    answer = fetch(f"https://{site.public_name}/", expect=(302,))
    if not answer.headers.get("Location", "").startswith(f"https://{site.public_name}/hub/"):
        raise Fault(f"https://{site.public_name}/: another service's answer: {words(answer.text)}")
    return sign_in(site, "/hub/oauth_login")


def conda_store(site):
    """Behind /conda-store/ is conda-store, which lets people sign in."""
    url = f"https://{site.public_name}/conda-store/api/v1/"
    if fetch_json(url).get("status") != "ok":
        raise Fault(f"{url}: another service's answer")
    return sign_in(site, "/conda-store/login/")


def gateway(site):
    """Behind /gateway/ is Dask-Gateway."""
    url = f"https://{site.public_name}/gateway/api/health"
    if fetch_json(url).get("status") != "pass":
        raise Fault(f"{url}: another service's answer")
    return "answers"


def monitoring(site):
    """Behind /monitoring/ is the page of monitoring, which lets people sign in."""
    page = site.pillar.get("monitoring", {}).get("page")
    if page not in ("prometheus", "grafana"):
        raise Absent
    if page == "grafana":
        data_source(site)
    return sign_in(site, "/monitoring/login/generic_oauth" if page == "grafana" else "/monitoring/")


def data_source(site):
    """Raise a fault unless Grafana has loaded its plugin that asks Prometheus; without it, dashboards are empty."""
    metrics = fetch(f"http://127.0.0.1:{site.settings('grafana')['port']}/monitoring/metrics").text.splitlines()
    if not any(line.startswith("grafana_plugin_build_info{") and 'plugin_id="prometheus"' in line for line in metrics):
        raise Fault(
            "Grafana has not loaded its plugin prometheus: dashboards are empty",
            advice="journalctl -n 30 -u grafana-server; ls -l /opt/qhub/grafana/data/plugins-bundled",
        )


def ssh(site):
    """Behind port 8022 is the SSH gateway."""
    banner = exchange((site.address, 8022)).decode(errors="replace").strip()
    if not banner.startswith("SSH-2.0-"):
        raise Fault(f"port 8022: {words(banner) or 'it hung up'}")
    return banner


def sign_in(site, path):
    """Go where a service sends a browser that signs in, which is to be the realm's page to do that."""
    front = f"https://{site.public_name}"
    there = f"{front}{path}"
    for _ in range(REDIRECTIONS):
        answer = fetch(there, expect=(301, 302, 303, 307), headers=BROWSER)
        there = urljoin(there, answer.headers.get("Location", ""))
        if there.startswith(f"{site.realm}/protocol/openid-connect/auth?"):
            break
        if not there.startswith(f"{front}/"):
            raise Fault(f"{front}{path} leads to {there.partition('?')[0]}")
    else:
        raise Fault(f"{front}{path} does not lead to {site.realm}, but to {there.partition('?')[0]}")
    page = fetch(there, expect=(200, 302, 303, 400, 403, 404, 500), headers=BROWSER)
    if page.status >= 400 or (page.status == 200 and "/login-actions/authenticate" not in page.text):
        advice = "salt-call state.apply keycloak.realm; journalctl -n 30 -u keycloak"
        raise Fault(f"{front}{path}: the realm refuses: {refusal(page.text)}", advice=advice)
    return "lets people sign in"


def refusal(page):
    """Return what a page of Keycloak's says is wrong."""
    found = re.search(r'class="[^"]*instruction[^"]*"[^>]*>(.*?)<', page, re.DOTALL)
    return html.unescape(words(found[1] if found else re.sub(r"<[^>]*>", " ", page)))
