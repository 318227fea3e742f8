"""Attacks on how the master is set up: by a person with a shell, by a service's user, and from the network."""

import pytest

from tests.lab.harness import settings

pytestmark = pytest.mark.slow

# What root runs


@pytest.fixture
def scratch(master):
    """Return a directory of root's on the master that holds a checkout's bootstrap and an empty mirror."""
    directory = "/srv/qhub-of-tests"
    master.run(["mkdir", "-p", f"{directory}/checkout/salt", f"{directory}/mirror"])
    master.run(["cp", "-r", f"{settings.CHECKOUT}/salt/bootstrap", f"{directory}/checkout/salt/bootstrap"])
    yield directory
    master.run(["rm", "-r", directory])


def bootstrap(master, directory):
    """Run the bootstrap of a checkout with an empty mirror; return what it printed when it refused."""
    words = [f"{directory}/checkout/salt/bootstrap/master.sh", "--mirror", f"{directory}/mirror"]
    done = master.run(words, check=False, timeout=60)
    assert done.returncode
    assert "== " not in done.stdout, "nothing was begun"
    return done.stderr


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("chown marie checkout/salt/bootstrap/secrets.py", "checkout/salt/bootstrap/secrets.py"),
        ("chmod g+w checkout/salt", "checkout/salt"),
        ("chown marie .", ""),
        ("chmod o+w mirror", "mirror"),
        ("touch mirror/forged && chown marie mirror/forged", "mirror/forged"),
    ],
)
def test_the_bootstrap_refuses_what_a_person_can_change(master, scratch, command, path):
    master.run(["sh", "-c", f"cd {scratch} && {command}"])
    said = bootstrap(master, scratch)
    assert f"{scratch}/{path}".rstrip("/") + " can be changed by others than root" in said
    assert "nothing was changed" in said


def test_the_bootstrap_follows_links_to_what_a_person_can_change(master, scratch):
    master.run(["sh", "-c", f"cd {scratch} && mv mirror /home/marie/mirror && ln -s /home/marie/mirror mirror"])
    try:
        assert "/home/marie can be changed by others than root" in bootstrap(master, scratch)
    finally:
        master.run(["rm", "-r", "/home/marie/mirror"])
