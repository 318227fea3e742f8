"""What it costs to keep the lab as it is, to let a machine join, and to have many people in the pillar."""

import copy
import json
import statistics
import time

from tests.lab.harness import lab, settings, site

# Runs salt-call in process on a node, and prints what it took: seconds of wall and CPU, and requests by kind.
PROBE = """
import collections, json, os, resource, sys, time
import salt.channel.client, salt.scripts
sent, original = collections.Counter(), salt.channel.client.AsyncReqChannel.send
def send(self, load, *args, **kwargs):
    sent[load.get("cmd", "?")] += 1
    return original(self, load, *args, **kwargs)
salt.channel.client.AsyncReqChannel.send = send
start = time.monotonic()
sys.argv = ["salt-call", "--log-level=quiet", "--out=quiet", "--retcode-passthrough", *sys.argv[1:]]
try:
    salt.scripts.salt_call()
except SystemExit as end:
    code = end.code or 0
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"status": code, "wall": time.monotonic() - start,
                  "cpu": sum(u.ru_utime + u.ru_stime for u in usage), "memory": usage[0].ru_maxrss / 1024,
                  "files": sum(n for cmd, n in sent.items() if cmd.startswith(("_file", "_serve")))}))
"""
ONE_STATE = ["state.single", "test.succeed_without_changes", "name=floor"]


def probe(node, words):
    """Run ``salt-call WORDS`` on a node and return the probe's figures."""
    out = node.run(["/opt/qhub/salt/bin/python", "-c", PROBE, *words], timeout=900).stdout
    figures = json.loads(out.splitlines()[-1])
    if figures["status"]:
        raise RuntimeError(f"{node.name}: salt-call {' '.join(words)} failed")
    return figures


def median(node, words, times=5):
    """Return the median of each figure over some runs, after one to warm up."""
    probe(node, words)
    rows = [probe(node, words) for _ in range(times)]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def highstate():
    """A highstate that changes nothing, beside one state through the same master in the same run."""
    lab.up()
    print(f"{'':8} {'wall s':>7} {'CPU s':>7} {'MiB':>5} {'file requests':>14}   of the floor: wall, CPU")
    for name in ("w1", "master"):
        node = lab.node(name)
        floor, full = median(node, ONE_STATE), median(node, ["state.apply"])
        for title, row in (("floor", floor), ("full", full)):
            ratio = "" if row is floor else f"   {row['wall'] / floor['wall']:.2f}x, {row['cpu'] / floor['cpu']:.2f}x"
            figures = f"{row['wall']:6.2f} {row['cpu']:7.2f} {row['memory']:5.0f} {row['files']:14.0f}"
            print(f"{name:6} {title:6} {figures}{ratio}", flush=True)


def join():
    """A bare machine, packages in the mirror, until its first job is done; beside booting it alone."""
    lab.up()
    master = lab.node("master")
    site.write(master, nodes=site.nodes((*settings.NODES, "w3")))
    marks = [("", time.monotonic())]

    def mark(phase):
        marks.append((phase, time.monotonic()))

    node = lab.boot("w3")
    mark("boot")
    site.trust(master, node)
    master.run(["salt-ssh", "w3", "state.apply", "bootstrap.minion"], timeout=300)
    mark("salt-ssh: Salt installed, minion started")
    lab.wait_for("w3 registers", lambda: "w3" in master.run(["sinfo", "-hN", "-o", "%N"]).stdout.split(), timeout=300)
    mark("event, names and exports, highstate until slurmd registers")
    lab.wait_for("w3 is in service", lambda: lab.in_service(master, "w3"), timeout=300, interval=0.1)
    mark("rest of the highstate, Slurm idle, proven by a job")
    master.run(["runuser", "-u", "ada", "--", "srun", "--chdir=/tmp", "-w", "w3", "true"])
    mark("a user's job")
    for (_, start), (phase, end) in zip(marks, marks[1:], strict=False):
        print(f"  {end - start:6.1f} s  {phase}")
    boot, total = marks[1][1] - marks[0][1], marks[-1][1] - marks[0][1]
    print(f"  {total:6.1f} s  in all: {total / boot:.0f} times its boot alone")
    master.run(["salt-run", "state.orchestrate", "orch.remove", 'pillar={"node": "w3"}'], timeout=300)
    site.write(master, nodes=site.nodes())
    node.destroy()


def users():
    """A highstate that changes nothing with 10 to 10,000 people in the pillar, beside that with 10."""
    lab.up()
    master = lab.node("master")
    first = {}
    print(f"{'people':>7} {'node':7} {'first s':>8} {'wall s':>7} {'CPU s':>7}   of 10 people: wall, CPU")
    for size in (10, 100, 1000, 10000):
        pillar = copy.deepcopy(site.USERS)
        pillar["users"] |= {
            f"u{n}": {"uid": 40000 + n, "full_name": f"User {n}", "accounts": ["physics"]} for n in range(size)
        }
        site.write(master, users=pillar)
        for name in ("master", "w1"):
            node = lab.node(name)
            applied = probe(node, ["state.apply"])
            row = median(node, ["state.apply"], times=3)
            base = first.setdefault(name, row)
            ratios = f"{row['wall'] / base['wall']:.2f}x, {row['cpu'] / base['cpu']:.2f}x"
            print(
                f"{size:7} {name:7} {applied['wall']:8.1f} {row['wall']:7.2f} {row['cpu']:7.2f}   {ratios}", flush=True
            )
    print("The lab now has all these people: make lab-down to be rid of them.")
