"""One machine with MariaDB, slurmdbd, slurmctld and slurmd, and this repository's modules against it.

The modules run here, as on a master. sacctmgr and its like are reached through one-line programs on ``PATH``
that enter the machine: a longer way to the same program, nothing in its place.
"""

import os
import shlex

from tests.lab.harness import image, settings
from tests.lab.harness.node import LoneNode
from tests.lab.harness.shell import step, wait_for

CLUSTER = "lab"
PROGRAMS = ("getent", "sacctmgr", "sacct", "scancel", "scontrol")
INSTALL = ("apt-get", "-qq", "-y", "--no-install-recommends", "install")
PACKAGES = ("mariadb-server", "slurmdbd", "slurmctld", "slurmd", "slurm-client")

SLURM_CONF = f"""\
ClusterName={CLUSTER}
SlurmctldHost=slurm
SlurmUser=slurm
AuthType=auth/slurm
CredType=cred/slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=slurm
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
TrackWCKey=yes
PreemptType=preempt/qos
PreemptMode=requeue
GresTypes=gpu
NodeName=slurm CPUs=64
SlurmdParameters=config_overrides
PartitionName=debug Nodes=slurm Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=slurm MaxTime=INFINITE State=UP
"""
SLURMDBD_CONF = """\
AuthType=auth/slurm
DbdHost=slurm
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
TrackWCKey=yes
PidFile=/run/slurmdbd.pid
LogFile=/var/log/slurm/slurmdbd.log
"""
MARIADB_CONF = "[mariadbd]\ninnodb_buffer_pool_size=1G\ninnodb_log_file_size=64M\ninnodb_lock_wait_timeout=900\n"
# Slurm resolves names only where there is an address beside loopback's.
NETWORK = (
    "ip link add slurm0 type veth peer name slurm1 && ip address add 192.0.2.1/24 dev slurm0 "
    "&& ip link set slurm0 up && ip link set slurm1 up && echo 192.0.2.1 slurm >> /etc/hosts"
)
USERS = ("ada", "bob", "cat")


class Slurm:
    """The machine: ``start`` it once, ``fill`` a directory of programs, ``reset`` its database, ``destroy`` it."""

    def __init__(self):
        self.node = LoneNode("slurm", binds={settings.MIRROR: f"{settings.CACHE / 'mirror'}:ro"})

    def start(self):
        """Boot, install and configure."""
        image.mirror()
        self.node.destroy()
        with step("Booting a machine with slurmdbd"):
            self.node.boot()
            run = self.node.run
            run(["sh", "-c", NETWORK])
            run(["systemctl", "mask", "--now", "systemd-networkd-wait-online"])  # that network is all there will be
            self.node.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "0755")
            self.node.write(
                "/etc/apt/sources.list.d/mirror.list", f"deb [trusted=yes] file:{settings.MIRROR}/debs ./\n"
            )
            run(["apt-get", "-qq", "update"])
            run(
                ["env", "DEBIAN_FRONTEND=noninteractive", *INSTALL, *PACKAGES],
                timeout=300,
            )  # fmt: skip
            self.node.write("/etc/mysql/mariadb.conf.d/90-slurm.cnf", MARIADB_CONF)
            self.node.write("/etc/slurm/slurm.conf", SLURM_CONF)
            self.node.write("/etc/slurm/cgroup.conf", "CgroupPlugin=disabled\n")
            self.node.write("/etc/slurm/gres.conf", "")
            self.node.write("/etc/slurm/plugstack.conf", "")
            self.node.write("/etc/slurm/slurmdbd.conf", SLURMDBD_CONF, "0600")
            run(["sh", "-c", "umask 077; head -c 1024 /dev/urandom > /etc/slurm/slurm.key"])
            run(["chown", "slurm:slurm", "/etc/slurm/slurm.key", "/etc/slurm/slurmdbd.conf"])
            for uid, user in enumerate(USERS, 20001):
                run(["useradd", "-m", "-u", uid, user])
            run(["systemctl", "start", "mariadb"])
            self.sql(
                "create user slurm@localhost identified via unix_socket;grant all on slurm_acct_db.* to slurm@localhost"
            )
            self.reset()

    def fill(self, programs):
        """Fill the directory ``programs`` with what enters the machine."""
        for program in PROGRAMS:
            path = programs / program
            enter = shlex.join(self.node.command([program]))
            path.write_text(f'#!/bin/sh\necho {program} >> {programs}/started\nexec {enter} "$@"\n')
            path.chmod(0o755)

    def destroy(self):
        self.node.destroy()

    def sql(self, statements):
        return self.node.run(["mariadb", "-e", statements]).stdout

    def sacctmgr(self, *words, check=True, **options):
        """Run sacctmgr as an administrator would, by hand."""
        return self.node.run(["sacctmgr", "-i", *words], check=check, **options)

    def show(self, *words):
        """Return the rows that ``sacctmgr show`` prints."""
        return [line.split("|") for line in self.sacctmgr("-nP", "show", *words).stdout.splitlines()]

    # -- daemons --------------------------------------------------------------------------------

    def stop(self, *units):
        self.node.run(["systemctl", "stop", *units])

    def start_database(self):
        self.node.run(["systemctl", "reset-failed"])  # starting it as often as tests do is not a failure
        self.node.run(["systemctl", "start", "mariadb", "slurmdbd"])
        self.wait_database()

    def wait_database(self, timeout=300):
        def answers():
            if "slurmdbd" in self.node.run(["systemctl", "--failed", "--plain"]).stdout:
                raise RuntimeError(self.node.journal("slurmdbd"))
            return not self.sacctmgr("-nP", "show", "cluster", check=False).returncode

        wait_for("slurmdbd answers", answers, timeout=timeout)

    def start_controller(self):
        """Start slurmctld and slurmd and wait until a job could run."""
        self.node.run(["systemctl", "reset-failed"])
        self.node.run(["systemctl", "start", "slurmctld", "slurmd"])

        def serves():
            states = set(self.node.run(["sinfo", "-h", "-o", "%T"], check=False).stdout.split())
            return states and states <= {"idle", "mixed"}  # mixed: with a job from before

        wait_for("the node is in service", serves, timeout=60)

    def reset(self, cluster=True):
        """Empty the database and forget slurmctld's state; ``cluster``: register it, as sacctmgr does."""
        self.stop("slurmctld", "slurmd", "slurmdbd")
        self.node.run(
            [
                "sh",
                "-c",
                "cd /var/lib/slurm && rm -rf slurmctld slurmd && install -d -o slurm -g slurm slurmctld",
            ]
        )
        self.sql("create or replace database slurm_acct_db")
        self.start_database()
        if cluster:
            self.sacctmgr("add", "cluster", CLUSTER)

    def submit(self, user, *words):
        """Start a job that sleeps and return its id."""
        job = self.node.run(
            ["sbatch", "--parsable", "-o", "/dev/null", "-D", "/", *words, "--wrap=sleep 600"], user=user
        ).stdout
        return job.strip()


def search_path(programs):
    """Return ``PATH`` with the programs that enter the machine first."""
    return os.pathsep.join([str(programs), os.environ["PATH"]])
