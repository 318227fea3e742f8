"""A headless browser that trusts the cluster's CA, as a user's would after the administrator handed it out; and what
people do in it at the front door."""

import base64
import contextlib
import hmac
import itertools
import struct
import time

from playwright.sync_api import sync_playwright

from tests.lab.harness import settings
from tests.lab.harness.shell import run

OPTIONS = (
    "--no-sandbox",  # as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What a name server outside would say.
    f"--host-resolver-rules=MAP *master.cluster.internal {settings.ADDRESSES['master']}",
)
#: The last parts of addresses on the lab's network that nothing else has.
NUMBERS = itertools.cycle(range(201, 241))
PAGE_TIMEOUT = 30_000  # milliseconds
ROOT = "https://master.cluster.internal"
#: The origin of people's own web servers.
PEOPLE = "https://people.master.cluster.internal"
CHOSEN = "a Password of 3 words"


@contextlib.contextmanager
def chromium(directory, ca):
    """Run Chromium with a fresh home in ``directory`` that trusts the CA in PEM file ``ca``; yield Playwright's object.

    A certificate that is wrong in any way is an error of the page, never passed over.
    """
    database = directory / ".pki/nssdb"
    database.mkdir(parents=True)
    run(["certutil", "-N", "-d", f"sql:{database}", "--empty-password"])
    run(["certutil", "-A", "-d", f"sql:{database}", "-n", "cluster", "-t", "C,,", "-i", ca])
    program = directory / "chromium"
    with own_network() as network, sync_playwright() as playwright:
        program.write_text(f'#!/bin/sh\nexec nsenter --net={network} /usr/bin/chromium "$@"\n')
        program.chmod(0o755)
        browser = playwright.chromium.launch(
            executable_path=program, args=OPTIONS, env={"HOME": str(directory), "PATH": "/usr/bin:/bin"}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def own_network():
    """Yield the path of a network namespace that is on the lab's switch.

    A browser breaks off what it does when an interface beside it comes or goes, such as that of a machine that another
    test boots.
    """
    number = next(NUMBERS)
    name, inner, outer = f"qhub{settings.NUMBER}-desk{number}", "desk0", f"qhub{settings.NUMBER}-d{number}"
    remove = (["ip", "netns", "delete", name], ["ip", "link", "delete", outer])
    for words in remove:  # what a run that was killed left
        run(words, check=False)
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name])
        run(["ip", "link", "set", outer, "up", "master", settings.BRIDGE])
        # The same hardware address whenever it comes: nodes remember it. And no address of IPv6, which would come late.
        hardware = f"02:00:0a:62:{settings.NUMBER:02x}:{number:02x}"
        run(["ip", "-n", name, "link", "set", inner, "address", hardware, "addrgenmode", "none"])
        run(["ip", "-n", name, "link", "set", inner, "up"])
        run(["ip", "-n", name, "address", "add", f"{settings.NETWORK[number]}/24", "dev", inner])
        yield f"/run/netns/{name}"
    finally:
        for words in remove:
            run(words, check=False)


@contextlib.contextmanager
def page(browser):
    """Yield a page of a person who comes for the first time: no cookie, nothing remembered."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PAGE_TIMEOUT)
    try:
        yield context.new_page()
    finally:
        context.close()


def first_password(lab, name):
    """Return the password that the administrator is shown, once."""
    out = lab.master.run(["qhub-keycloak", "password", name]).stdout
    return next(line.split()[-1] for line in out.splitlines() if "assword" in line)


def fill(shown, name, password):
    """Fill in the page that people sign in at."""
    shown.get_by_label("Username").fill(name)
    shown.locator("#password").fill(password)
    shown.get_by_role("button", name="Sign In").click()


def choose_password(shown, password=CHOSEN):
    """Choose another password, as everybody is asked who signs in with a first one."""
    shown.locator("#password-new").fill(password)
    shown.locator("#password-confirm").fill(password)
    shown.get_by_role("button", name="Submit").click()


@contextlib.contextmanager
def signed_in(lab, browser, name, address="/hub/home", back="/hub/**"):
    """Yield a page of somebody who comes to ``address``, signs in with a first password and chooses another."""
    first = first_password(lab, name)
    with page(browser) as shown:
        shown.goto(ROOT + address)
        fill(shown, name, first)
        choose_password(shown)
        shown.wait_for_url(ROOT + back)
        yield shown


def one_time_password(secret, now=None):
    """Return the six digits that an authenticator app shows for a base32 ``secret`` (RFC 6238)."""
    padded = secret.replace(" ", "").upper()
    key = base64.b32decode(padded + "=" * (-len(padded) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(now or time.time()) // 30), "sha1")
    start = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[start : start + 4])[0] & 0x7FFFFFFF) % 10**6:06}"
