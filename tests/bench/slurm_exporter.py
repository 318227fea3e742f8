"""What it costs Slurm to be asked for metrics, beside what prometheus-slurm-exporter 0.20 starts per scrape.

    python -m tests.bench.slurm_exporter

Held jobs in the queue of one slurmctld on this machine: as one array, and each with a record of its own.
"""

import json

from tests.functional.slurm import INSTALL, Slurm
from tests.lab.harness.settings import REPOSITORY

SIZES = (10, 1000, 10000)
TIMES = 10  # of each: the median of the seconds is shown, and the mean of CPU
EXPORTER = REPOSITORY / "formulas/slurm_exporter/files/qhub_slurm_exporter"
# As its source has them; it starts all of them at once.
COUNTERPART = [
    ["squeue", "-a", "-r", "-h", "-o %A|%a|%T|%C"],
    ["squeue", "-a", "-r", "-h", "-o %A|%u|%T|%C"],
    ["squeue", "-a", "-r", "-h", "-o %A,%T,%r", "--states=all"],
    ["squeue", "-a", "-r", "-h", "-o%P", "--states=PENDING"],
    ["sinfo", "-h", "-o %C"],
    ["sinfo", "-h", "-o %D,%T"],
    ["sinfo", "-h", "-o%R,%C"],
    ["sinfo", "-h", "-N", "-O", "NodeList,AllocMem,Memory,CPUsState,StateLong"],
    ["sdiag"],
    ["sshare", "-n", "-P", "-o", "account,fairshare"],
]
# Runs on Slurm's machine; prints seconds until all is known, and seconds of CPU in slurmctld and in all else.
PROBE = """
import json, os, resource, statistics, subprocess, sys, time
from qhub_slurm_exporter.__main__ import Exporter

given = json.load(sys.stdin)
exporter = Exporter(timeout=60)

def ours():
    exporter.refresh()
    assert not exporter.error, exporter.error

def counterpart():
    started = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for words in given["commands"]]
    for process in started:
        assert process.wait() == 0, process.args

def cpu():
    with open(f"/proc/{given['pid']}/stat") as stat:
        ticks = stat.read().rpartition(")")[2].split()[11:13]
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    controller = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return controller, sum(each.ru_utime + each.ru_stime for each in usage)

looks = {"ours": ours, "counterpart": counterpart}
took = {name: [] for name in looks}
for _ in range(given["times"] + 1):  # the first is to warm up
    for name, look in looks.items():  # in turn, so that whatever else this machine does is in both
        begun, before = time.monotonic(), cpu()
        look()
        took[name].append((time.monotonic() - begun, *(after - was for after, was in zip(cpu(), before))))

def row(figures):
    seconds, controller, clients = zip(*figures[1:])
    return [statistics.median(seconds), statistics.mean(controller), statistics.mean(clients)]

rows = {name: row(figures) for name, figures in took.items()}
rows["ours"].append(sum(exporter.commands.values()) / (given["times"] + 1))
rows["counterpart"].append(len(given["commands"]))
jobs = next(family for family in exporter.seen if family.name == "slurm_jobs")
rows["jobs"] = sum(sample.value for sample in jobs.samples)
print(json.dumps(rows))
"""


def prepare(slurm):
    """Let the machine have many jobs, and the exporter."""
    slurm.node.run(["sh", "-c", "printf 'MaxJobCount=50000\\nMaxArraySize=20001\\n' >> /etc/slurm/slurm.conf"])
    slurm.node.run(["env", "DEBIAN_FRONTEND=noninteractive", *INSTALL, "python3-prometheus-client"], timeout=120)
    for path in EXPORTER.glob("*.py"):
        slurm.node.write(f"/usr/local/lib/qhub/qhub_slurm_exporter/{path.name}", path.read_text())
    slurm.sacctmgr("add", "account", "physics")
    slurm.sacctmgr("add", "user", "ada", "account=physics")
    slurm.start_controller()


def fill(slurm, size, single):
    """Replace the queue by held jobs; ``single``: each has a record of its own, as if submitted alone."""
    slurm.node.run(["scancel", "--user=ada"], timeout=300)
    slurm.node.run(["systemctl", "restart", "slurmctld"])
    slurm.start_controller()
    job = slurm.submit("ada", "--hold", "--mem=1", f"--array=1-{size}")
    if single:
        # What is changed of one task alone takes it out of its array.
        changes = "".join(f"update jobid={job}_{task} nice=1\n" for task in range(1, size + 1))
        slurm.node.run(["scontrol"], input=changes, timeout=900)


def probe(slurm):
    """Return ``{"ours" and "counterpart": [seconds, slurmctld's CPU, other CPU, processes], "jobs": number}``."""
    pid = slurm.node.run(["systemctl", "show", "-P", "MainPID", "slurmctld"]).stdout.strip()
    told = {"pid": pid, "times": TIMES, "commands": COUNTERPART}
    words = ["env", "PYTHONPATH=/usr/local/lib/qhub", "python3", "-c", PROBE]
    return json.loads(slurm.node.run(words, input=json.dumps(told), timeout=600).stdout)


def show(title, rows):
    for name, (seconds, controller, clients, processes) in rows.items():
        figures = f"{seconds:7.3f} {controller:12.3f} {clients:10.3f} {processes:10.0f}"
        ratio = ""
        if name == "ours":
            whole = [a / b if b else 0 for a, b in zip(rows["ours"], rows["counterpart"], strict=True)]
            ratio = "   " + ", ".join(f"{each:.2f}" for each in whole)
        print(f"  {title:24} {name:12} {figures}{ratio}", flush=True)


def main():
    slurm = Slurm()
    try:
        slurm.start()
        prepare(slurm)
        print(f"  {'':37} {'seconds':>7} {'slurmctld':>12} {'other CPU':>10} {'processes':>10}   ours of theirs")
        for single in (False, True):
            for size in SIZES:
                fill(slurm, size, single)
                rows = probe(slurm)
                assert rows.pop("jobs") == size
                show(f"{size} {'jobs' if single else 'tasks of an array'}", rows)
    finally:
        slurm.destroy()


if __name__ == "__main__":
    main()
