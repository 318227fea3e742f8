"""A person who is locked or removed is out within a minute of the apply; running jobs go on; unlocking restores all."""

import contextlib
import subprocess

import pytest

from tests.lab.browser import ROOT, signed_in
from tests.lab.harness import settings
from tests.lab.harness.shell import run
from tests.lab.security.test_dask_dashboards import gateway

MINUTE = 60  # seconds
PACKAGES = ("at", "cron", "libpam-systemd")  # what gives people timers, lingering and sessions
JOB = ("--parsable", "--account=physics", "--nodelist=w1", "--mem=10", "--chdir=/", "--output=/dev/null")
STATE = "Locked and removed people have nothing running but jobs"


class Marie:
    """A person with all that somebody may have open."""

    def __init__(self, lab, directory, shown=None):
        self.lab, self.directory, self.shown, self.shells = lab, directory, shown, {}
        self.job = self.waiting = ""  # the numbers of a job that runs and of one that waits

    def ssh(self, host, command):
        """Return the command line of ssh."""
        options = ("-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.directory}/known_hosts")
        identity = ("-o", "IdentitiesOnly=yes", "-i", str(self.directory / "key"))
        return ["ssh", *options, *identity, f"marie@{settings.ADDRESSES[host]}", command]

    def on_master(self, command):
        """Run a shell command on the master in a session of SSH."""
        return run(self.ssh("master", command), check=False, timeout=60)

    def submit(self, *words, check=True):
        """Submit a job, as a process of marie's would that nobody has ended."""
        return self.lab.as_user("marie", ["sbatch", *JOB, *words], check=check)

    def queued(self, job):
        """Return the state of a job, and Slurm's reason."""
        words = ["squeue", "--noheader", "--format=%T %r", f"--jobs={job}"]
        return self.lab.master.run(words, check=False).stdout.split()

    def jobs(self, name):
        """Return the numbers of marie's jobs with a name."""
        words = ["squeue", "--noheader", "--user=20002", f"--name={name}", "--format=%A"]
        return self.lab.master.run(words).stdout.split()

    def open_shell(self, host):
        """Open a shell on a machine, and leave it open."""
        shell = subprocess.Popen(
            self.ssh(host, "echo in; exec sh"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.shells[host] = shell
        assert shell.stdout.readline() == "in\n"

    def has_shell(self, host):
        """Whether the shell on a machine is still open."""
        return self.shells[host].poll() is None

    def runs(self):
        """Return the command lines of marie's processes on the master."""
        return self.lab.master.run(["ps", "-u", "20002", "-o", "args="], check=False).stdout.splitlines()

    def sees_monitoring(self):
        """Whether the monitoring page opens in the browser without asking to sign in."""
        self.shown.goto(f"{ROOT}/monitoring/targets")
        return not self.shown.url.startswith(f"{ROOT}/auth/")

    def close(self):
        """Take away whatever is left."""
        for shell in self.shells.values():
            shell.kill()
            shell.communicate()
        for words in (["scancel", "--user=20002"], ["crontab", "-r", "-u", "marie"]):
            self.lab.master.run(words, check=False)


@pytest.fixture(scope="module")
def key(lab, tmp_path_factory):
    """The directory with marie's key and the machines' host keys."""
    home = tmp_path_factory.mktemp("ssh")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key"])
    nodes = [lab.node(name) for name in ("master", "w1")]
    hosts = [f"{node.address} {node.read('/etc/ssh/ssh_host_ed25519_key.pub')}" for node in nodes]
    (home / "known_hosts").write_text("".join(hosts))
    return home


@pytest.fixture(scope="module")
def apply(lab, key):
    """A context in which marie has a key and this entry, ``None`` for no entry, and all is applied.

    At the end, the lab's own pillar is applied and no job of marie runs.
    """

    @contextlib.contextmanager
    def apply(entry):
        def edit(users):
            users["users"]["marie"]["ssh_keys"] = [(key / "key.pub").read_text().strip()]
            users["users"]["marie"] |= entry or {}
            if entry is None:
                del users["users"]["marie"]
            return users

        with lab.pillar(users=edit):
            lab.orchestrate("orch.apply")
            yield

    yield apply
    lab.orchestrate("orch.apply")
    lab.master.run(["scancel", "--user=marie"])


@pytest.fixture(scope="module")
def marie(lab, hub, browser, key, apply):
    """Marie, with everything open that a person may have open."""
    master = lab.master
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "--no-install-recommends"]
    master.run([*install, "install", *PACKAGES])
    with apply({}), signed_in(lab, browser, "marie", "/monitoring/targets", "/monitoring/**") as shown:
        marie = Marie(lab, key, shown)
        try:
            marie.job = marie.submit("--wrap=sleep 1000").stdout.strip()
            lab.wait_for("the job runs", lambda: marie.queued(marie.job)[:1] == ["RUNNING"])
            marie.waiting = marie.submit("--hold", "--wrap=sleep 1000").stdout.strip()
            master.run(["systemd-run", "--quiet", "--wait", "loginctl", "enable-linger", "marie"])
            for host in ("master", "w1"):
                marie.open_shell(host)
            timer = "systemd-run --user --on-active=1 --on-unit-active=2 --timer-property=AccuracySec=1s --unit=again"
            for command in (
                "setsid -f sleep 7001 >/dev/null 2>&1",
                "echo '* * * * * sleep 7002' | crontab -",
                "echo 'sleep 7003' | at now",
                f"XDG_RUNTIME_DIR=/run/user/20002 {timer} sleep 7004",
                "setsid -f salloc --job-name=allocated --account=physics --mem=10 sleep 7005 >/dev/null 2>&1",
            ):
                done = marie.on_master(command)
                assert not done.returncode, done.stderr
            started = {f"sleep 700{number}" for number in (1, 3, 5)} | {"/usr/bin/sleep 7004"}
            lab.wait_for("all of it runs", lambda: started <= set(marie.runs()), timeout=30)
            gateway(hub, "POST", "clusters/", "marie", {"cluster_options": {"account": "physics"}})
            lab.wait_for("the Dask cluster has a job", lambda: marie.jobs("dask"), timeout=60)
            assert marie.sees_monitoring()
            yield marie
        finally:
            marie.close()
            master.run([*install, "purge", *PACKAGES])
    lab.orchestrate("orch.apply")


@pytest.fixture(scope="module")
def locked(marie, apply):
    """Marie, who has just been locked."""
    with apply({"locked": True}):
        yield marie


@pytest.mark.parametrize("host", ["master", "w1"])
def test_an_open_shell_ends(lab, locked, host):
    lab.wait_for("the shell ends", lambda: not locked.has_shell(host), timeout=MINUTE)
    assert locked.on_master("true").returncode == 255, "and no other is opened"


def test_nothing_is_left_on_the_master(lab, locked):
    lab.wait_for("all processes have ended", lambda: not locked.runs(), timeout=MINUTE)
    assert not locked.jobs("allocated")
    assert lab.master.run(["systemctl", "is-active", "user@20002"], check=False).stdout.strip() == "inactive"


def test_neither_cron_nor_at_starts_anything(lab, locked):
    lab.master.run(["runuser", "-u", "marie", "--", "at", "now"], input="sleep 7006\n")
    # By message: the journal often has no unit for a process that ends as soon as it has logged its only line.
    log = ["journalctl", "-q", "--no-pager", "-o", "cat", "--grep=account marie has expired", "--since=-90s"]

    def refused():
        lines = lab.master.run(log, check=False).stdout  # status 1 if there is none
        return all(f"pam_unix({program}:account): account marie has expired" in lines for program in ("cron", "atd"))

    lab.wait_for("both were asked and refused", refused, timeout=2 * MINUTE)
    assert not locked.runs()


def test_slurm_takes_no_new_job_and_the_running_one_goes_on(lab, locked):
    for account in ("physics", "chemistry"):
        refused = locked.submit(f"--account={account}", "--wrap=true", check=False)
        assert (refused.returncode, "violates accounting/QOS policy" in refused.stderr) == (1, True), refused.stderr
    lab.master.run(["scontrol", "release", locked.waiting])
    lab.wait_for(
        "Slurm has looked at the job that waits", lambda: "Limit" in locked.queued(locked.waiting)[-1], timeout=90
    )
    assert locked.queued(locked.job)[:1] == ["RUNNING"]


def test_monitoring_asks_to_sign_in_again(lab, locked):
    lab.wait_for("it asks", lambda: not locked.sees_monitoring(), timeout=MINUTE)


def test_dask_clusters_end(lab, locked):
    lab.wait_for("no job of theirs is left", lambda: not locked.jobs("dask"), timeout=MINUTE)


def test_a_second_run_changes_nothing_and_test_mode_tells(lab, locked):
    def found(**options):
        return next(each for each in lab.apply("master", ["people"], **options).values() if each["__id__"] == STATE)

    assert found()["changes"] == {}
    with locked_process(lab) as process:
        foretold = found(test=True)
        assert (foretold["result"], process.poll()) == (None, None)
        assert "sleep" in found()["changes"]["stdout"]
        lab.wait_for("the process ends", lambda: process.poll() is not None, timeout=10)


@contextlib.contextmanager
def locked_process(lab):
    """Start a process as marie, as root may."""
    process = subprocess.Popen(lab.master.command(["sleep", "7007"], "marie"))
    try:
        lab.wait_for("it runs", lambda: lab.master.run(["pgrep", "-f", "sleep 7007"], check=False).stdout)
        yield process
    finally:
        process.kill()
        process.wait()


def test_unlocking_restores_all(lab, locked, apply):
    with apply({}):
        assert not locked.on_master("true").returncode
        lab.wait_for(
            "the job that waited runs", lambda: locked.queued(locked.waiting)[:1] == ["RUNNING"], timeout=MINUTE
        )
        assert not locked.submit("--wrap=true", check=False).returncode
        assert "sleep 7002" in locked.on_master("crontab -l").stdout
        linger = lab.master.run(["loginctl", "show-user", "--property=Linger", "marie"]).stdout
        assert linger.strip() == "Linger=yes"
        limits = lab.sacctmgr("assoc", "user=marie", "format=maxjobs,maxsubmit,grpjobs,grpsubmit,comment")
        assert {tuple(row) for row in limits} == {("", "", "", "", "managed by salt")}


def test_a_removed_person_is_out_too(lab, locked, apply):
    # Where there are no control groups, pam_slurm_adopt lets in a person with one job on the worker only.
    lab.master.run(["scancel", locked.waiting])
    lab.wait_for("one job is left", lambda: not locked.queued(locked.waiting))
    with apply({}):
        for host in ("master", "w1"):
            locked.open_shell(host)
        locked.on_master("setsid -f sleep 7001 >/dev/null 2>&1")
        with apply(None):
            for host in ("master", "w1"):
                lab.wait_for("the shell ends", lambda host=host: not locked.has_shell(host), timeout=MINUTE)
            lab.wait_for("all processes have ended", lambda: not locked.runs(), timeout=MINUTE)
            assert locked.queued(locked.job)[:1] == ["RUNNING"]
