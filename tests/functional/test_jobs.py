"""What services offer, and what a notebook's job passes on, with a real Slurm: formulas/jobs, formulas/jupyterhub."""

import json
import re
import shlex

import jinja2
import pytest

from tests.functional.slurm import CLUSTER, SLURM_CONF
from tests.lab.harness.settings import REPOSITORY
from tests.lab.harness.shell import wait_for

NODES = """\
NodeName=slurm CPUs=8 RealMemory=8000
NodeName=wide CPUs=16 RealMemory=32000 MemSpecLimit=1000 Gres=gpu:a100:2 State=CLOUD
NodeName=deep CPUs=4 RealMemory=64000 CoreSpecCount=1 State=CLOUD
PartitionName=debug Nodes=slurm Default=YES DefMemPerCPU=50 MaxTime=INFINITE State=UP
PartitionName=uneven Nodes=wide,deep MaxTime=1-00:00:00 State=UP
PartitionName=GPU Nodes=wide MaxTime=INFINITE State=UP
PartitionName=capped Nodes=wide,deep MaxCPUsPerNode=2 MaxMemPerCPU=700 AllowAccounts=Physics MaxTime=90 State=UP
PartitionName=hidden Nodes=wide Hidden=YES State=UP
PartitionName=closed Nodes=wide RootOnly=YES State=UP
"""
OFFER = """
import asyncio, json, sys
from qhub_jobs import limits, slurm
answer = asyncio.run(slurm.ask("limits"))
cluster = limits.Cluster.read(**answer)
user, asked = sys.argv[1], json.loads(sys.argv[2])
offer = limits.Offer(cluster, {"default": {"time": 1}}, user, [user])
try:
    found = {"choices": offer.choices(), "unread": cluster.unread, "got": asked and offer.checked(asked)}
except limits.Refused as refusal:
    found = {"refused": str(refusal)}
print(json.dumps(found))
"""
FILES = REPOSITORY / "formulas"


@pytest.fixture(scope="module")
def slurm(slurm_machine):
    """The machine with nodes that are not equal, qhub-jobs, and what a notebook's job needs on a worker."""
    machine, node = slurm_machine, slurm_machine.node
    common = "".join(f"{line}\n" for line in SLURM_CONF.splitlines() if not line.startswith(("NodeName", "Partition")))
    node.write("/etc/slurm/slurm.conf", common + NODES)
    node.write("/etc/qhub/people.json", json.dumps({"cluster": CLUSTER, "people": {"ada": 20001, "bob": 20002}}))
    for name in ("__init__.py", "limits.py", "parse.py", "people.py", "slurm.py"):
        if (source := FILES / "jobs/files/qhub_jobs" / name).exists():
            node.write(f"/usr/local/lib/qhub/qhub_jobs/{name}", source.read_text())
    node.write("/usr/local/sbin/qhub-jobs", (FILES / "jobs/files/qhub-jobs").read_text(), "0755")
    for name in ("qhub-job-environment", "qhub-notebook-failed"):
        if (source := FILES / "jupyterhub/files" / name).exists():
            node.write(f"/usr/local/libexec/{name}", source.read_text(), "0755")
    node.run(["groupadd", "--system", "--force", "qhub-jobs"])
    for name in ("qhub-jobs.socket", "qhub-jobs@.service"):
        node.write(f"/etc/systemd/system/{name}", (FILES / "jobs/files" / name).read_text())
    machine.reset()
    machine.sacctmgr("add", "account", "physics", "description=physics", "organization=qhub")
    machine.sacctmgr("add", "account", "chemistry", "description=chemistry", "organization=qhub")
    machine.sacctmgr("add", "user", "ada", "account=physics")
    machine.sacctmgr("add", "user", "bob", "account=chemistry", "partition=GPU", "maxwall=02:00:00")
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "reset-failed"])
    node.run(["systemctl", "start", "slurmctld", "slurmd", "qhub-jobs.socket"])
    wait_for("the node is in service", lambda: "idle" in node.run(["sinfo", "-hN", "-n", "slurm", "-o%T"]).stdout)
    yield machine
    node.run(["systemctl", "stop", "qhub-jobs.socket"])
    node.write("/etc/slurm/slurm.conf", SLURM_CONF)
    machine.reset()


def offer(slurm, user, **asked):
    """Return what somebody is offered, and gets of what they ask for."""
    program = ["env", "PYTHONPATH=/usr/local/lib/qhub", "python3", "-c", OFFER, user, json.dumps(asked)]
    return json.loads(slurm.node.run(program).stdout)


def taken(slurm, user, account, partition, *, cpus, memory, gpus=0):
    """Return whether Slurm would start such a job."""
    words = ["sbatch", "--test-only", f"--account={account}", f"--partition={partition}", "--nodes=1", "--ntasks=1"]
    words += [f"--cpus-per-task={cpus}", f"--mem={memory}M", "--wrap=true", "--chdir=/", "--time=60"]
    words += [f"--gpus={gpus}"] if gpus else []
    return not slurm.node.run(words, user=user, check=False).returncode


def nodes_of(found, partition):
    return next(choice["nodes"] for choice in found["choices"] if choice["partition"] == partition)


def test_a_person_is_offered_what_slurm_would_start_on_any_one_node(slurm):
    nodes = nodes_of(offer(slurm, "ada"), "uneven")
    assert nodes == [{"cpus": 16, "memory": 31000, "gpus": 2}, {"cpus": 3, "memory": 64000, "gpus": 0}]
    for node in nodes:
        assert taken(slurm, "ada", "physics", "uneven", **node)
        assert offer(slurm, "ada", partition="uneven", **node)["got"].items() >= node.items()
    assert not taken(slurm, "ada", "physics", "uneven", cpus=4, memory=31001)
    assert "together is too much" in offer(slurm, "ada", partition="uneven", cpus=4, memory=31001)["refused"]


def test_limits_of_a_partition_are_those_of_slurm(slurm):
    found = offer(slurm, "ada")
    assert nodes_of(found, "capped") == [{"cpus": 2, "memory": 1400, "gpus": 2}]
    times = {choice["partition"]: choice["time"] for choice in found["choices"]}
    assert times == {"debug": None, "uneven": 24.0, "GPU": None, "capped": 1.5}, "neither hidden nor closed"


def test_an_association_in_a_partition_with_capitals_is_the_persons(slurm):
    assert slurm.show("assoc", "user=bob", "format=partition") == [["gpu"]], "slurmdbd keeps small letters"
    assert taken(slurm, "bob", "chemistry", "GPU", cpus=1, memory=100)
    choices = offer(slurm, "bob")["choices"]
    assert {(choice["account"], choice["partition"], choice["time"]) for choice in choices} == {
        ("chemistry", "GPU", 2.0)
    }


def test_a_name_with_a_separator_in_it_is_reported_and_left_alone(slurm):
    before = offer(slurm, "ada")
    slurm.sacctmgr("add", "account", "fusion|plasma", "description=a|b", "organization=c|d")
    slurm.sacctmgr("add", "qos", "big|one")
    try:
        found = offer(slurm, "ada")
    finally:
        slurm.sacctmgr("delete", "qos", "big|one")
        slurm.sacctmgr("delete", "account", "fusion|plasma")
    assert found["choices"] == before["choices"]
    assert sorted(message.split()[0] for message in found["unread"]) == ["QOS", "association"]
    assert all("fusion|plasma" in message or "big|one" in message for message in found["unread"])


# -- a notebook's job ----------------------------------------------------------------------------------

INNER = {
    "memory of a CPU": "--cpus-per-task=2 --mem-per-cpu=100",
    "memory of a node": "--mem=300",
    "tasks": "--ntasks=2 --ntasks-per-node=2 --mem=200",
    "no wish": "",
    "TRES of a task": "--ntasks=2 --tres-per-task=cpu=2",
}
#: What differs in any two jobs, and where a job was submitted from.
OWN = re.compile(r"SLURM_(JOB_?ID|JOB_(START|END)_TIME|TASK_PID|LOCALID|PROCID|STEP_LAUNCHER_PORT|SRUN_COMM_PORT)")


def script(command, **words):
    """Return the batch script of a notebook whose server is ``command``."""
    template = jinja2.Template((FILES / "jupyterhub/files/job.sh.jinja").read_text())
    most = {"server": "", "account": "physics", "partition": "debug", "qos": "", "minutes": 60, "gpus": 0, "log": "log"}
    most |= {"homedir": "/home/ada", "profile_timeout": 5, "cmd": shlex.join(command)}
    return template.render(**most, **{"cpus": 3, "memory": 500} | words)


def run_job(slurm, text, log="/home/ada/log", until=lambda: False):
    """Run a batch script as ada, to its end or ``until`` something is so, and return what it printed."""
    slurm.node.run(["env", "HOME=/home/ada", "sbatch", "--chdir=/home/ada"], user="ada", input=text)
    wait_for("it is so, or the job ends", lambda: until() or not queue(slurm), timeout=60)
    slurm.node.run(["scancel", "--user=ada"])
    finished(slurm)
    return slurm.node.read(log)


def queue(slurm):
    """Return the numbers of the jobs that wait or run."""
    return slurm.node.run(["squeue", "--noheader", "--format=%A"]).stdout.split()


def finished(slurm):
    """Wait until no job is left."""
    wait_for("all jobs end", lambda: not queue(slurm), timeout=120)


def slurm_variables(text):
    """Return Slurm's variables among the lines of ``env``, but those that differ in any two jobs."""
    pairs = dict(line.split("=", 1) for line in text.splitlines() if line.startswith(("SLURM", "SBATCH", "SRUN")))
    return {name: value for name, value in pairs.items() if not OWN.fullmatch(name)}


def submit_all(directory):
    """Return a command that submits a job for each of INNER, whose outputs go into a directory."""
    jobs = [
        f"sbatch {wish} --output={directory}/{number} --chdir=/ --wrap='env; srun env'"
        for number, wish in enumerate(INNER.values())
    ]
    return f"cd /home/ada; mkdir -p {directory}; {'; '.join(jobs)}"


def test_a_job_from_a_notebook_is_as_from_the_login_node(slurm):
    slurm.node.run(["env", "HOME=/home/ada", "sh", "-c", submit_all("/home/ada/login")], user="ada")
    finished(slurm)
    outer = run_job(slurm, script(["sh", "-c", f"env; {submit_all('/home/ada/notebook')}"]))
    for number, wish in enumerate(INNER):
        found = [slurm_variables(slurm.node.read(f"/home/ada/{place}/{number}")) for place in ("notebook", "login")]
        assert found[0] == found[1], wish
        assert "SLURM_STEP_ID" in found[0], f"{wish}: srun has run"
    for line in ("SLURM_JOB_ID=", "SLURM_JOB_NODELIST=slurm", "SLURM_JOB_CPUS_PER_NODE=3"):
        assert line in outer, "a notebook knows where it is"


@pytest.fixture
def hub(slurm):
    """Where the job reports a failure: ``hub()`` returns it, ``None`` before that."""
    receiver = (
        "import http.server\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        open('/run/report', 'wb').write(self.rfile.read(int(self.headers['Content-Length'])))\n"
        "        self.send_response(204); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', 8081), Handler).serve_forever()\n"
    )
    slurm.node.run(["rm", "-f", "/run/report"])
    slurm.node.run(["systemd-run", "--unit=receiver", "python3", "-c", receiver])
    wait_for("it listens", lambda: ":8081" in slurm.node.run(["ss", "-Hltn"]).stdout)

    def reported():
        text = slurm.node.run(["cat", "/run/report"], check=False).stdout
        return json.loads(text)["failure"] if text else None

    yield reported
    slurm.node.run(["systemctl", "stop", "receiver"])
    slurm.node.run(["rm", "-f", "/run/report"])


@pytest.fixture
def profile(slurm):
    """A function that writes ada's profile, which is put back."""
    before = slurm.node.read("/home/ada/.profile")
    yield lambda text: slurm.node.write("/home/ada/.profile", text)
    slurm.node.write("/home/ada/.profile", before)


ADDRESS = "export JUPYTERHUB_API_URL=http://127.0.0.1:8081/hub/api JUPYTERHUB_API_TOKEN=x\n"
LINES = {
    "an end": ("exit 1", "ends", "exit 1"),
    "another shell": ("exec cat", "ends", "exec cat"),
    "a question": ("sleep 1000", "waits", "sleep 1000"),
    "a library": ("export LD_PRELOAD=/no/such.so LD_LIBRARY_PATH=/none", "changes", "LD_LIBRARY_PATH=/none"),
}


@pytest.mark.parametrize("line", LINES)
def test_the_line_of_a_profile_that_stops_the_server_is_reported(slurm, hub, profile, line):
    text, kind, shown = LINES[line]
    profile(f"A=1\nif true; then\n  {text}\nfi\n")
    job = script(["sh", "-c", "false"]).replace("unset XDG_RUNTIME_DIR\n", ADDRESS)
    log = run_job(slurm, job, until=hub)
    assert hub() == {"kind": kind, "file": "~/.profile", "line": 3, "text": shown}
    assert f"~/.profile, line 3: {shown}" in log


def test_without_own_files_no_profile_is_read(slurm, profile):
    profile("export MINE=1\nexit 1\n")
    log = run_job(slurm, script(["sh", "-c", "echo served; env; cat $JUPYTER_CONFIG_DIR/*"], without_own_files=True))
    assert "served" in log
    assert "MINE" not in log
    assert "PYTHONNOUSERSITE=1" in log
    assert "noprofile" in log


def test_a_profile_that_is_in_order_is_read_and_reports_nothing(slurm, hub, profile):
    profile("set -eu\nexport MINE=1\numask 027\n")
    log = run_job(slurm, script(["sh", "-c", "env; umask"]).replace("unset XDG_RUNTIME_DIR\n", ADDRESS))
    assert "MINE=1" in log
    assert "0027" in log
    assert hub() is None
