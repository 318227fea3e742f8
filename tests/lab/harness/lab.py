"""The whole lab: up, down, and what is in it."""

import sys
import time

from . import image, network, settings, site
from .node import Node, clear, machines
from .shell import CommandFailed, run, step, wait_for

COMPLETE = settings.STATE / "complete"
BOOTSTRAP = f"{settings.CHECKOUT}/salt/bootstrap/master.sh"
CERTIFICATE_AUTHORITY = "/var/lib/qhub/files/ca/ca.crt"  # on the master
# The two ways to bring a machine in.
SALT_SSH = ("salt-ssh", "{name}", "state.apply", "bootstrap.minion")
SALT_CLOUD = ("salt-cloud", "-p", "worker", "{name}")


def node(name):
    """Return the machine ``name`` of the lab, running or not."""
    if name not in settings.ADDRESSES:
        raise RuntimeError(f"no machine is called {name!r}; there are master, w1, w2, and w3 to w20 for those to come")
    binds: dict[str, object] = {
        path: settings.STATE / "shared" / path.strip("/").replace("/", "-") for path in site.SHARED
    }
    binds[settings.MIRROR] = f"{settings.CACHE / 'mirror'}:ro"
    options: tuple[str, ...] = ()
    if name == "master":
        binds[settings.CHECKOUT] = f"{settings.REPOSITORY}:ro"
        options = ("--system-call-filter=open_by_handle_at",)  # for Ganesha
    return Node(name, settings.ADDRESSES[name], binds, options)


def boot(name):
    """Switch a machine on."""
    machine = node(name)
    for path in site.SHARED:
        (settings.STATE / "shared" / path.strip("/").replace("/", "-")).mkdir(parents=True, exist_ok=True)
    return machine.boot()


def up():
    """Bring the lab up from whatever state it is in; what was left half-way is started over."""
    if COMPLETE.exists() and {name for _, name in machines()} >= set(settings.NODES):
        print("The lab is up already.", file=sys.stderr)
        network.up()
        return
    down()
    settings.STATE.mkdir(parents=True, exist_ok=True)
    image.base()
    image.mirror()
    network.up()
    with step("Booting the machines"):
        nodes = [boot(name) for name in settings.NODES]
    master, *workers = nodes
    site.write_all(master)
    with step("Bootstrapping the master"):
        watched(master, ["salt-master", "salt-minion", "slurmdbd", "slurmctld"],
                [BOOTSTRAP, "--mirror", settings.MIRROR], timeout=900)  # fmt: skip
    for worker in workers:
        with step(f"Adding {worker.name}"):
            add(master, worker)
    print(healthy(master), file=sys.stderr)
    COMPLETE.touch()


def add(master, worker, by=SALT_SSH):
    """Add a booted worker that the pillar names: trust, one command, and wait until it is in service."""
    site.trust(master, worker)
    watched(master, ["salt-master"], [word.format(name=worker.name) for word in by], timeout=300)
    wait_for(f"{worker.name} is in service", lambda: in_service(master, worker.name), timeout=300, interval=0.5)


def in_service(master, name):
    """Whether the node has run the job that proves it, and the orchestration that brought it in is over."""
    joining = master.run(["test", "-e", f"/var/cache/salt/master/joining/{name}"], check=False).returncode == 0
    return not joining and name in master.run(["sinfo", "-h", "-N", "-o", "%N"], check=False).stdout.split()


def healthy(master, timeout=300):
    """Return the doctor's page once it finds nothing wrong; raises ``RuntimeError`` with the page if it still does."""
    deadline = time.monotonic() + timeout
    # A service may be restarting, and an alert about errors of the front door lasts for minutes.
    while (found := master.run(["salt-run", "cluster.doctor"], check=False, timeout=120)).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the lab is not healthy\n{found.stdout}{found.stderr}")
    return found.stdout


def watched(machine, units, words, **options):
    """Run a command on a machine; if it fails, add the journals of the units that may tell why."""
    try:
        return machine.run(words, **options)
    except CommandFailed as error:
        failed = machine.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"], check=False).stdout
        units = {*units, *(line.split()[0] for line in failed.splitlines() if line.strip())}
        journals = "\n".join(f"--- {unit}\n{machine.journal(unit)}" for unit in sorted(units))
        raise CommandFailed(f"{error}\n{journals}") from None


def down():
    """Stop the lab and remove all that it made on this machine, but for the caches."""
    COMPLETE.unlink(missing_ok=True)
    network.down()
    if settings.STATE.exists() or any(machines()):
        with step("Taking the lab down"):
            clear(Node)


def status():
    """Return a line for each running machine, then what Slurm says."""
    running = sorted(name for _, name in machines())
    lines = [f"{name:8} {settings.ADDRESSES.get(name, '')}" for name in running]
    if "master" in running:
        lines.append(node("master").run(["sinfo"], check=False).stdout)
    return "\n".join(lines) or "The lab is down."


def summary():
    """Return one screen: the address to open in a browser, and the commands for the next steps."""
    master = node("master")
    domain = site.CLUSTER["cluster"]["domain"]
    name, address = f"master.{domain}", settings.ADDRESSES["master"]
    (settings.STATE / "ca.crt").write_text(master.read(CERTIFICATE_AUTHORITY))
    prefix = f"QHUB_LAB_NUMBER={settings.NUMBER} " if settings.NUMBER else ""
    on_master = f"{prefix}make lab-shell NODE=master"
    return f"""
The lab is up: https://{name}/

{run(master.command(["sinfo", "-o", "%12P %5a %11l %5D %6t %N"])).stdout}
Open it in a browser on this machine:
  1. the name                   echo '{address} {name} people.{name}' >> /etc/hosts
  2. the certificate authority  {settings.STATE}/ca.crt (import the file into the browser)
  3. a first password for Ada   {on_master} CMD='qhub-keycloak password ada'
From another machine: {prefix}QHUB_LAB_PUBLISH=1 make lab opens the ports {doors()} of this machine to it.
Give the browser there the same file, and the names {name} and people.{name} for this machine's address.

Next:
  run a job as Ada              {on_master} CMD='runuser -u ada -- srun hostname'
  open a shell on a machine     {on_master}
  edit the pillar               /etc/qhub/pillar on the master, and then apply it:
                                {on_master} CMD='salt-run state.orchestrate orch.apply'
  check every service           {on_master} CMD='salt-run cluster.doctor'
  list the machines             {prefix}make lab-status
  stop the lab and remove it    {prefix}make lab-down
"""


def doors():
    """Return the ports that QHUB_LAB_PUBLISH opens, as text."""
    *others, last = network.PUBLISHED
    return f"{', '.join(map(str, others))} and {last}"
