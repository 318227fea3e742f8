"""The lab as tests see it: what an administrator and a user can do, and nothing else."""

import contextlib
import copy
import json

import pytest
import yaml

from tests.lab import hub as the_hub
from tests.lab.browser import chromium
from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings, site
from tests.lab.harness.node import machines
from tests.lab.harness.shell import wait_for


class Lab:
    """The running lab. ``node(name)`` is a machine; the methods are what its administrator does."""

    node = staticmethod(the_lab.node)
    wait_for = staticmethod(wait_for)

    @property
    def master(self):
        """The master."""
        return self.node("master")

    @property
    def workers(self):
        """The workers that every test finds."""
        return [self.node(name) for name in settings.NODES if name != "master"]

    def highstate(self, name, check=True, test=False):
        """Apply a node's states through the master; return ``{state: result}``, and raise if one failed."""
        return self.apply(name, [], check=check, test=test)

    def apply(self, name, sls, *, check=True, test=False):
        """Apply some SLS to a node through the master."""
        words = [
            "salt",
            "--out=json",
            "--static",
            "--timeout=120",
            name,
            "state.apply",
            *([",".join(sls)] if sls else []),
            "queue=5",
        ]
        result = self.master.run([*words, *(["test=true"] if test else [])], check=False, timeout=300)
        states = parse(result.stdout).get(name, "no answer")
        failed = states if not isinstance(states, dict) else failures(states)
        if check and failed:
            raise AssertionError(f"{name}: {failed}")
        return states

    def orchestrate(self, sls, check=True, **pillar):
        """Run an orchestration on the master; return the ``CompletedProcess``, and raise with what failed."""
        words = ["salt-run", "--out=json", "state.orchestrate", sls, f"pillar={json.dumps(pillar)}"]
        done = self.master.run(words, check=False, timeout=300)
        if check and done.returncode:
            failed = failures(parse(done.stdout)) if "{" in done.stdout else []
            raise AssertionError(f"{sls}: {'; '.join(failed) or done.stdout + done.stderr}")
        return done

    def sacctmgr(self, *words):
        """Return sacctmgr's rows as lists."""
        out = self.master.run(["sacctmgr", "--noheader", "--parsable2", "show", *words]).stdout
        return [line.split("|") for line in out.splitlines()]

    def as_user(self, user, words, **options):
        """Run a command on the master as a user would after signing in."""
        return self.master.run(["runuser", "-u", user, "--", *words], **options)

    def job(self, user, *words, timeout=60):
        """Submit a batch job as ``user`` from home, wait for its end; return ``(job id, output)``."""
        script = "#!/bin/sh\n" + words[-1] + "\n"
        submit = ["runuser", "-l", user, "-c", f"sbatch --parsable --output=job-%j {' '.join(words[:-1])}"]
        job = self.master.run(submit, input=script).stdout.strip()
        wait_for(
            f"job {job} ends", lambda: self.state(job) not in ("", "PENDING", "RUNNING", "COMPLETING"), timeout=timeout
        )
        return job, self.master.run(["cat", f"/home/{user}/job-{job}"]).stdout

    def running_job(self, node, seconds):
        """Submit a job of ada's of so many seconds; return its number once it runs and Slurm will not forget it."""
        words = ["sbatch", "--parsable", "--chdir=/tmp", f"--nodelist={node}", "--mem=10", "--output=/dev/null"]
        job = self.as_user("ada", [*words, f"--wrap=sleep {seconds}"]).stdout.strip()
        queued = ["squeue", "-h", "-j", job, "-o", "%T"]
        wait_for("the job runs", lambda: self.master.run(queued).stdout.strip() == "RUNNING")
        self.jobs_are_saved()
        return job

    def jobs_are_saved(self):
        """Wait until slurmctld's saved state has the jobs that run now.

        It writes that some seconds after a change, such as the job that is submitted here. One killed before that
        starts a job a second time, which the node refuses ("Duplicate jobid"): Slurm's own limit, not tested.
        """
        now = float(self.master.run(["date", "+%s.%N"]).stdout)
        held = self.as_user("ada", ["sbatch", "--parsable", "--hold", "--chdir=/", "--wrap=true"]).stdout.strip()
        saved = ["stat", "-c", "%.Y", "/var/lib/slurm/slurmctld/job_state"]
        wait_for("slurmctld has saved its state", lambda: float(self.master.run(saved).stdout) > now, timeout=30)
        self.master.run(["scancel", held])

    def state(self, job):
        """Return a job's state from the accounting database; ``""`` while it has none or does not answer."""
        out = self.master.run(["sacct", "-X", "-n", "-P", "-j", job, "-o", "State"], check=False).stdout.split()
        return out[0] if out else ""

    @contextlib.contextmanager
    def pillar(self, **files):
        """Edit pillar files, each from a deep copy of the lab's own: ``pillar(users=function)``; undone at the end."""
        originals = {
            "users": site.USERS,
            "partitions": site.PARTITIONS,
            "cluster": site.CLUSTER,
            "nodes": site.nodes(),
            "realm": {"realm": {}},
            "backup": {"backup": {}},
            "monitoring": site.MONITORING,
        }
        edited = {name: edit(copy.deepcopy(originals[name])) for name, edit in files.items()}
        site.write(self.master, **edited)
        try:
            yield edited
        finally:
            site.write(self.master, **{name: originals[name] for name in files})


def parse(text):
    """Return the JSON that a Salt command printed, whatever warnings it printed around it."""
    return json.loads(text[text.index("{") :])


def failures(found):
    """Return ``[state: comment]`` of what failed in what Salt returned, be it an orchestration of several machines.

    What failed only for another's sake comes last.
    """
    if not isinstance(found, dict):
        return []
    lines = [line for value in found.values() for line in failures(value)]
    if found.get("result") is False and not lines:
        lines = [f"{found.get('__id__')}: {found.get('comment')}"]
    return sorted(lines, key=lambda line: "One or more requisite failed" in line)


@pytest.fixture(scope="session")
def lab():
    """The lab, brought up if it is not, and then taken down at the end."""
    found = the_lab.COMPLETE.exists()
    the_lab.up()
    yield Lab()
    if not found:
        the_lab.down()


@pytest.fixture(scope="session")
def master(lab):
    """The lab's master."""
    return lab.master


@pytest.fixture(scope="session")
def verifiers():
    """What each of Test Kitchen's suites runs on its machine to see whether all is well, ``{suite: command}``."""
    suites = yaml.safe_load((settings.REPOSITORY / "kitchen.yml").read_text())["suites"]
    return {suite["name"]: suite["verifier"]["command"] for suite in suites}


@pytest.fixture(scope="module")
def hub(lab, tmp_path_factory):
    """JupyterHub, to be asked as its administrator."""
    with the_hub.driven(lab, tmp_path_factory.mktemp("hub")) as driven:
        yield driven


@pytest.fixture(scope="module")
def browser(lab, tmp_path_factory):
    """A browser that trusts the cluster's authority."""
    home = tmp_path_factory.mktemp("browser")
    (home / "ca.crt").write_text(lab.master.read(the_hub.CA))
    with chromium(home, home / "ca.crt") as started:
        yield started


@pytest.fixture(scope="module")
def laptop(lab):
    """A machine that is none of the cluster's, with an environment like the cluster's and its authority."""
    machine = the_lab.boot("w20")
    try:
        machine.run(["useradd", "--create-home", "somebody"])
        machine.write("/etc/ca.crt", lab.master.read(the_hub.CA))
        machine.run(["sh", "-c", f"echo {lab.master.address} master.cluster.internal >> /etc/hosts"])
        yield machine
    finally:
        machine.destroy()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the journals of units that failed or complained to the report of a failed lab test."""
    report = yield
    if report.when == "call" and report.failed and "lab" in item.fixturenames:
        for name in sorted(name for _, name in machines()):
            with contextlib.suppress(Exception):
                journal = the_lab.node(name).run(
                    ["journalctl", "-q", "--no-pager", "-p", "warning", "-n", "25"], check=False
                )
                report.sections.append((f"journal of {name}", journal.stdout))
    return report
