"""Clients of Dask-Gateway on a machine that is none of the cluster's."""

import contextlib
import json
import subprocess

from tests.lab.browser import ROOT

PYTHON = "/opt/qhub/shared/conda/environments/global/dask/bin/python"
GATEWAY = f"{ROOT}/gateway/"
# What a client needs where nothing is installed but its environment.
PREAMBLE = f"""
import json, sys, time, warnings
import dask.array as da
from dask_gateway import Gateway, JupyterHubAuth
token = sys.stdin.readline().strip()
gateway = Gateway({GATEWAY!r}, proxy_address="gateway://master.cluster.internal:8786", auth=JupyterHubAuth(token))
def workers(client, number):
    deadline = time.monotonic() + 60
    while len(client.scheduler_info()["workers"]) != number and time.monotonic() < deadline:
        client.submit(time.time, pure=False).result()  # one that has nothing to do would end
        time.sleep(0.1)
    return sorted(set(client.run(lambda: __import__("socket").gethostname()).values()))
def say(*words):
    print(json.dumps(words), flush=True)
"""


def jobs(lab):
    """Return the Dask jobs in the queue, ``{id: {...}}``."""
    keys = ("id", "user", "account", "partition", "memory", "comment")
    words = ["squeue", "--noheader", "--name=dask", "--format=%A|%u|%a|%P|%m|%k"]
    lines = [dict(zip(keys, line.split("|"), strict=True)) for line in lab.master.run(words).stdout.splitlines()]
    return {line["id"]: line for line in lines}


@contextlib.contextmanager
def client(machine, token, script):
    """Run a client of the gateway's on a machine, and yield the process; killed at the end."""
    environment = ["env", "-C", "/home/somebody", "HOME=/home/somebody", "SSL_CERT_FILE=/etc/ca.crt"]
    command = machine.command(
        ["setpriv", "--pdeathsig=KILL", *environment, PYTHON, "-c", PREAMBLE + script], "somebody"
    )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            process.stdin.write(f"{token}\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def said(process):
    """Return what the client says next."""
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return json.loads(line)


def go_on(process):
    """Let the client go on that waits for a line."""
    process.stdin.write("\n")
    process.stdin.flush()


def answer(machine, token, script):
    """Run a client to its end; return what it says last."""
    with client(machine, token, script) as process:
        out, error = process.communicate(timeout=120)
    assert out, error
    return json.loads(out.splitlines()[-1])
