"""What it takes to get a notebook: one person beside starting it by hand, and fifty at once beside five."""

import concurrent.futures
import contextlib
import datetime
import re
import statistics
import tempfile
import time
from pathlib import Path

from tests.lab import hub as the_hub
from tests.lab.browser import chromium, signed_in
from tests.lab.conftest import Lab
from tests.lab.harness import lab as the_lab
from tests.lab.harness.shell import wait_for

RUNS = 3
SOCKET = "qhub-jobs.socket"
# A notebook server's stand-in: reports to the Hub as one does, and answers. All of them have one certificate.
STAND_IN = """#!/usr/bin/python3
import http.server, json, os, random, ssl, sys, urllib.request
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
while True:
    try:
        server = http.server.ThreadingHTTPServer(("", random.randint(int(sys.argv[1]), int(sys.argv[2]))), Answer)
        break
    except OSError:
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[0] + ".pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
certificate = open(sys.argv[0] + ".pem").read().partition("-----BEGIN CERT")
report = {"port": server.server_port, "certificate": certificate[1] + certificate[2]}
headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}
url = os.environ["JUPYTERHUB_API_URL"] + "/notebook"
urllib.request.urlopen(urllib.request.Request(url, json.dumps(report).encode(), headers), timeout=60).close()
server.serve_forever()
"""
STAND_IN_PATH = "/opt/qhub/shared/bin/stand-in"
CERTIFICATE = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
CERTIFICATE += ["-subj", "/CN=notebook.internal", "-addext", "subjectAltName=DNS:notebook.internal"]
CERTIFICATE += ["-keyout", f"{STAND_IN_PATH}.pem"]
# By hand, as a person on the master: the same JupyterLab by srun; prints seconds until it answers.
BY_HAND = """
import subprocess, sys, time, urllib.request
address, port = sys.argv[1], "63500"
words = ["srun", "--job-name=by-hand", "--partition=highmem", "--account=physics", "--mem=500", "--time=30", "--quiet",
         "/opt/qhub/shared/jupyterlab/bin/jupyter-lab", "--no-browser", "--ip=0.0.0.0", "--port=" + port,
         "--IdentityProvider.token=known"]
start = time.monotonic()
job = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while time.monotonic() < start + 120:
    try:
        urllib.request.urlopen(f"http://{address}:{port}/lab?token=known", timeout=5).close()
        break
    except OSError:
        time.sleep(0.05)
print(time.monotonic() - start)
subprocess.run(["scancel", "--me", "--name=by-hand"])
job.wait()
"""


def main():
    the_lab.up()
    lab = Lab()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        with the_hub.driven(lab, home) as hub:
            click(lab, hub, home)
        with (
            crowded(lab),
            the_hub.driven(lab, home, f'c.NotebookSpawner.batchspawner_singleuser_cmd = "{STAND_IN_PATH}"\n') as hub,
        ):
            crowd(lab, hub)


# -- one person --------------------------------------------------------------------------------------


def click(lab, hub, home):
    """From the button to a JupyterLab that can be used, all caches warm, beside srun of the same."""
    worker = lab.node("w2")
    rows, hand = [], []
    with chromium(home, home / "ca.crt") as browser, signed_in(lab, browser, "marie") as shown:
        for attempt in range(RUNS + 1):
            row = one_click(hub, shown, worker)
            hub.stop_server("marie")
            by_hand = lab.as_user("marie", ["python3", "-c", BY_HAND, worker.address], timeout=180, cwd="/").stdout
            if attempt:  # the first warms up
                rows.append(row)
                hand.append(float(by_hand))
    middle = {phase: statistics.median(row[phase] for row in rows) for phase in rows[0]}
    print(f"One person, median of {RUNS}:")
    for phase, seconds in middle.items():
        print(f"  {seconds:6.2f} s  {phase}")
    total, page = sum(middle.values()), middle["browser: the page is loaded"]
    answers, alone = total - page, statistics.median(hand)
    print(f"  {total:6.2f} s  in all; without the browser {answers:.2f} s")
    print(f"  {alone:6.2f} s  by hand (srun jupyter-lab), until it answers")
    print(f"  {answers / alone:.2f}x until it answers, {total / (alone + page):.2f}x with the page loaded in both")


def one_click(hub, shown, worker):
    """Return the seconds of each phase of one start."""
    shown.goto(f"{the_hub.ROOT}/hub/spawn")
    shown.locator("select#account").select_option("physics")
    shown.locator("select#partition").select_option("highmem")
    shown.locator("#memory").fill("500")
    marks = [time.time()]
    shown.get_by_role("button", name="Start").click()
    the_hub.lab_is_there(shown)
    usable = time.time()
    words = ["journalctl", "--quiet", "--output=short-iso-precise", "--unit=jupyterhub", f"--since=@{marks[0]:.3f}"]
    journal = hub.master.run(words).stdout
    job = hub.jobs()["marie"]["id"]
    marks += [
        logged(journal, rf"marie is job {job}"),
        started(worker, job),
        logged(journal, r"marie is at "),
        logged(journal, r"marie took .* to start"),
        usable,
    ]
    phases = (
        "hub: checked and submitted", "Slurm: the job begins", "notebook process: listens",
        "hub: has seen it and has its route", "browser: the page is loaded",
    )  # fmt: skip
    return {phase: end - start for phase, start, end in zip(phases, marks, marks[1:], strict=False)}


def logged(journal, pattern):
    """Return when (seconds since 1970) a line was logged."""
    line = next(line for line in journal.splitlines() if re.search(pattern, line))
    return datetime.datetime.fromisoformat(line.split()[0]).timestamp()


def started(worker, job):
    """Return when the first process of a job's began."""
    pids = [line.split()[0] for line in worker.run(["scontrol", "listpids", job]).stdout.splitlines()[1:]]
    stat = worker.run(["cat", *(f"/proc/{pid}/stat" for pid in pids)], check=False).stdout
    ticks = min(int(line.rpartition(")")[2].split()[19]) for line in stat.splitlines())
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / 100


# -- many --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def crowded(lab, people=50):
    """Fifty people more, and partitions in which that many small jobs share the lab's few CPUs."""

    def users(pillar):
        pillar["users"] |= {
            f"u{n}": {"uid": 40000 + n, "full_name": "U", "accounts": ["physics"]} for n in range(people)
        }
        return pillar

    def partitions(pillar):
        pillar["partitions"]["main"]["oversubscribe"] = "FORCE:50"
        return pillar

    lab.master.write(STAND_IN_PATH, STAND_IN, mode="0755")
    certificate = lab.master.run(CERTIFICATE).stdout
    key = lab.master.read(f"{STAND_IN_PATH}.pem")
    lab.master.write(f"{STAND_IN_PATH}.pem", key + certificate)
    try:
        with lab.pillar(users=users, partitions=partitions):
            lab.orchestrate("orch.apply")
            yield
    finally:
        # That many are not removed without a word of the administrator's.
        with lab.pillar(
            users=lambda pillar: pillar | {"slurm_accounting": {"force": True}},
            realm=lambda pillar: {"realm": {"force": True}},
        ):
            lab.orchestrate("orch.apply")
        lab.master.run(["rm", STAND_IN_PATH, f"{STAND_IN_PATH}.pem"])


def crowd(lab, hub):
    """Many start a server at the same moment: a stand-in that says its port and answers."""
    print(f"\n{'people':>6} {'all served':>10} {'CPU of the Hub':>14} {'processes':>9}   requests to Slurm a minute")
    print(f"{'':6} {'s':>10} {'s':>14} {'':9}   while starting, without sbatch   when all run")
    first = None
    for people in (5, 50):
        names = [f"u{n}" for n in range(people)]
        with concurrent.futures.ThreadPoolExecutor(people) as pool:
            list(pool.map(lambda name: hub.ask("POST", f"users/{name}", check=False), names))
            begun, cpu, asked = time.monotonic(), cpu_seconds(hub), requests(hub)
            list(pool.map(lambda name: hub.request_server(name, memory=50, time=0.5, partition="main"), names))
            wait_for("all are served", lambda names=names: ready(hub) >= set(names), timeout=300, interval=0.5)
            served, cpu, asked = time.monotonic() - begun, cpu_seconds(hub) - cpu, requests(hub) - asked - people
            processes = len(pids(hub))
            begun, steady = time.monotonic(), requests(hub)
            wait_for("a minute is over", lambda begun=begun: time.monotonic() - begun > 60, timeout=90)
            steady = requests(hub) - steady
            list(pool.map(lambda name: hub.ask("DELETE", f"users/{name}/server"), names))
            wait_for("all are gone", lambda: not hub.jobs(), timeout=120)
        figures = (served, cpu, processes, asked / served * 60, steady)
        first = first or figures
        ratios = ", ".join(f"{mine / theirs:.2f}x" for mine, theirs in zip(figures, first, strict=True))
        print(
            f"{people:6} {served:10.1f} {cpu:14.2f} {processes:9}   {figures[3]:30.0f} {steady:14}   {ratios}",
            flush=True,
        )


def ready(hub):
    """Return who has a server that is ready."""
    return {user["name"] for user in hub.ask("GET", "users?state=ready&limit=200").json()}


def requests(hub):
    """Return how many requests root's program has had."""
    return int(hub.master.run(["systemctl", "show", "--property=NAccepted", "--value", SOCKET]).stdout)


def pids(hub):
    """Return the processes of the Hub."""
    return hub.master.run(
        ["systemctl", "show", "--property=ControlGroup", "--value", "jupyterhub"]
    ).stdout.strip() and (
        hub.master.run(
            ["sh", "-c", "cat $(find /sys/fs/cgroup -path '*jupyterhub.service/cgroup.procs')"]
        ).stdout.split()
    )


def cpu_seconds(hub):
    """Return the CPU seconds of the Hub's processes so far."""
    stat = hub.master.run(["cat", *(f"/proc/{pid}/stat" for pid in pids(hub))], check=False).stdout
    return sum(int(word) for line in stat.splitlines() for word in line.rpartition(")")[2].split()[11:13]) / 100
