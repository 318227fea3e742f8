"""What Dask-Gateway costs: a cluster beside the same processes by sbatch, a task beside one without the gateway."""

import json
import statistics
import tempfile
from pathlib import Path

from tests.lab import hub as the_hub
from tests.lab.conftest import Lab
from tests.lab.harness import lab as the_lab

PYTHON = "/opt/qhub/shared/conda/environments/global/dask/bin/python"
RUNS, TASKS = 3, 3000
# On the master, as a person, in the environment `dask`: prints a list of rows.
CLIENT = """
import json, os, subprocess, sys, time
from pathlib import Path
from dask_gateway import Gateway
from distributed import Client
runs, tasks = map(int, sys.argv[1:])

def figures(start, connect, end):
    begun = time.monotonic()
    started = start()
    with connect(started) as client:
        client.wait_for_workers(2, timeout=120)
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
        first = time.monotonic() - begun
        times = []
        for _ in range(3):
            begun = time.monotonic()
            client.gather(client.map(lambda n: n + 1, range(tasks), pure=False))
            times.append((time.monotonic() - begun) / tasks * 1e6)
    end(started)
    return first, min(times)

def by_gateway():
    cluster = Gateway().new_cluster(account="physics", memory=500, cpus=1)
    cluster.scale(2)
    return cluster

def by_hand():
    file = Path.home() / "scheduler.json"
    file.unlink(missing_ok=True)
    dask = Path(sys.executable).with_name("dask")
    words = ["sbatch", "--parsable", "--account=physics", "--mem=500", "--output=/dev/null", f"--chdir={Path.home()}"]
    scheduler = f"{dask} scheduler --port 0 --dashboard-address :0 --scheduler-file {file}"
    worker = f"{dask} worker --scheduler-file {file} --no-nanny --nthreads 1 --memory-limit 500MB"
    jobs = [subprocess.run([*words, f"--wrap={command}"], check=True, capture_output=True, text=True).stdout.strip()
            for command in (scheduler, worker, worker)]
    return file, jobs

def connect_by_hand(started):
    while not started[0].exists():
        time.sleep(0.05)
    return Client(scheduler_file=str(started[0]))

rows = []
for _ in range(runs):
    rows.append([*figures(by_gateway, lambda cluster: cluster.get_client(), lambda cluster: cluster.shutdown()),
                 *figures(by_hand, connect_by_hand, lambda started: subprocess.run(["scancel", *started[1]]))])
    while subprocess.run(["squeue", "--me", "--noheader"], capture_output=True).stdout:
        time.sleep(0.2)
print(json.dumps(rows))
"""


def main():
    the_lab.up()
    lab = Lab()
    with tempfile.TemporaryDirectory() as directory, the_hub.driven(lab, Path(directory)) as hub:
        environment = {
            "HOME": "/home/marie",
            "JUPYTERHUB_API_TOKEN": hub.token("marie"),
            "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        }
        words = ["env", "-C", "/home/marie", *(f"{key}={value}" for key, value in environment.items())]
        out = lab.as_user("marie", [*words, PYTHON, "-c", CLIENT, RUNS, TASKS], timeout=900).stdout
    columns = zip(*json.loads(out.splitlines()[-1]), strict=True)
    first, task, by_hand, plain = map(statistics.median, columns)
    print(f"  to the first result of 2 workers: {first:.1f} s, by sbatch {by_hand:.1f} s: {first / by_hand:.2f}x")
    print(f"  one of {TASKS} tasks: {task:.0f} us, without gateway and TLS {plain:.0f} us: {task / plain:.2f}x")
