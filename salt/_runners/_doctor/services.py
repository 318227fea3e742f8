"""
Checks of the services behind the front door, past it.
"""

import json
from pathlib import Path

from .ask import command, fetch, fetch_json
from .engine import Fault

CELERY = "/opt/qhub/conda_store/bin/celery"
CONDA_STORE = "http://127.0.0.1:5000/conda-store"


def keycloak(site):
    """Keycloak is ready."""
    fetch("http://127.0.0.1:9000/auth/health/ready")
    return "ready"


def rights(site):
    """Salt may administer Keycloak."""
    command("qhub-keycloak", "check", site.pillar["realm"]["name"], timeout=25)  # it is slow when it has just started
    return "Salt administers the realm"


def starter(site):
    """Services get jobs started for people."""
    state = command("systemctl", "is-active", "qhub-jobs.socket", check=False).stdout.strip()
    if state != "active":
        raise Fault(f"qhub-jobs.socket is {state}")
    return "starts jobs for services"


def jupyterhub(site):
    """The Hub's API takes a token that is in its database, and its own services run."""
    token = secret("/etc/jupyterhub/secrets/metrics_token")
    answer = fetch("http://127.0.0.1:8081/hub/metrics", headers={"Authorization": f"token {token}"})
    running = sum(
        float(line.rpartition(" ")[2])
        for line in answer.text.splitlines()
        if line.startswith("jupyterhub_running_servers")
    )
    if not any(b"qhub_hub.keeper" in path.read_bytes() for path in processes("jupyterhub")):
        raise Fault("its service keeper does not run")
    return f"{running:.0f} notebook servers"


def processes(unit):
    """Yield the command line (a file) of each process of a unit."""
    group = command("systemctl", "show", "--property=ControlGroup", "--value", unit).stdout.strip()
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        for listed in Path(root, group.lstrip("/")).rglob("cgroup.procs"):
            for pid in listed.read_text().split():
                if (line := Path("/proc", pid, "cmdline")).exists():
                    yield line


def conda_store(site):
    """conda-store takes Salt's token."""
    found = conda_store_says("v1/permission/")["data"]
    if not found["authenticated"]:
        raise Fault("it does not take Salt's token", advice="salt-call state.apply conda_store")
    return "takes Salt's token"


def builder(site):
    """conda-store's worker answers, and what everybody's environments are to be was built."""
    broker = f"redis+socket://{site.settings('redis')['socket']}"
    # conda-store's own page about this lets everybody wait meanwhile.
    command(CELERY, f"--broker={broker}", "inspect", "ping", "--timeout=3", "--json", timeout=20, cwd="/")
    space = site.settings("conda_store")["shared_namespace"]
    environments = conda_store_says(f"v1/environment/?namespace={space}&size=100")["data"]
    builds = conda_store_says(f"v1/build/?namespace={space}&size=100&sort_by=id&order=desc")["data"]
    current = {each["name"]: each["current_build_id"] for each in environments}
    declared = site.pillar.get("environments") or {}
    wrong = [
        (name, number)
        for name, number in failed_builds(environments, builds)
        if not taken_back(declared.get(f"{space}/{name}"), dependencies(number), dependencies(current[name]))
    ]
    if wrong:
        advice = f"read the log at /conda-store/; salt-call conda_store_env.rebuild {space}/{wrong[0][0]}"
        raise Fault(*(f"{space}/{name}: build {number} failed" for name, number in wrong), advice=advice)
    return f"answers; {len(environments)} environments in {space}"


def failed_builds(environments, builds):
    """Return ``[(environment, build)]`` of those whose newest build failed, after conda-store's lists, newest first."""
    newest = {}
    for build in builds:
        newest.setdefault(build["environment_id"], build)
    found = ((each["name"], newest.get(each["id"])) for each in environments)
    return sorted((name, build["id"]) for name, build in found if build and build["status"] == "FAILED")


def taken_back(declared, failed, current):
    """
    Whether the pillar no longer asks for what failed to be built.

    declared
        The environment in the pillar, or ``None``.
    failed, current
        The dependencies (lists) of the build that failed and of the current one; conda-store adds to those declared.
    """
    if not current or not declared or "dependencies" not in declared:
        return False
    wanted, failed, current = (
        {json.dumps(each) for each in some} for some in (declared["dependencies"], failed, current)
    )
    return not (wanted <= failed and failed - wanted <= current)


def dependencies(build):
    """Return the dependencies (a list) of a build by its number, ``[]`` for no number or a build from a lockfile."""
    if not build:
        return []
    return conda_store_says(f"v1/build/{build}/")["data"]["specification"]["spec"].get("dependencies") or []


def conda_store_says(path):
    """Return what conda-store's API says to Salt."""
    return fetch_json(f"{CONDA_STORE}/api/{path}", headers=credentials())


def credentials():
    return {"Authorization": f"Bearer {secret('/etc/conda-store/secrets/salt_token')}"}


def dask_gateway(site):
    """Dask-Gateway answers through its proxy."""
    status = fetch_json("http://127.0.0.1:8011/gateway/api/health").get("status")
    if status != "pass":
        raise Fault(f"its health is {status}")
    return "healthy"


def secret(path):
    """Return a service's secret, as the service has it."""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise Fault(f"{path}: {error.strerror}") from None
