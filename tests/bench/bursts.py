"""What it costs the master when many machines join within ten seconds, beside what one run for each would.

    python -m tests.bench bursts

Simulated are the machines: one process on a worker is all their minions, by Salt's own channels. Each has a name in the
pillar, an accepted key (the worker's own for all), an address of its own and a connection from it to the master. It
signs in, sends its start event, and when it is told its highstate starts a real slurmd of its name, on a port of its
own, and answers that nothing else was to do. All the rest is as ever: pillar, bus, engine, orchestration, Slurm and the
job that proves each node.
"""

import ipaddress
import json

from tests.lab.harness import lab, settings, site
from tests.lab.harness.shell import wait_for

SIZES = (1, 100, 500)
BURST = 10  # seconds
PATIENCE = 600  # seconds until all have to be in service
NETWORK = settings.NETWORK.supernet(new_prefix=16)
# No lab's number is as high.
ADDRESSES = ipaddress.ip_network(f"{NETWORK.network_address + (252 << 8)}/22")
PLACE = "/tmp/bursts"
SLS = "names.server,nfs,firewall,prometheus.targets,sshd.known_hosts"
PYTHON = "/opt/qhub/salt/bin/python"
# Runs on the worker: ``{id: [address, slurmd's port]}`` on standard input.
MINIONS = """
import asyncio, json, subprocess, sys
import salt.channel.client, salt.config, zmq

given = json.load(sys.stdin)
opts = dict(salt.config.minion_config("/etc/salt/minion").items())
opts |= {"pki_dir": given["place"], "master_ip": given["master"], "master_uri": f"tcp://{given['master']}:4506"}
context = zmq.Context()
context.set(zmq.MAX_SOCKETS, 4096)
channels, sockets = {}, []
# With a directory of its own for the socket of auth/slurm: one machine has one.
OWN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run/slurm && exec "$@"', "sh"]
NOTHING = {"test_|-none_|-none_|-nop": {"result": True, "changes": {}, "comment": "", "__run_num__": 0,
           "__id__": "none", "name": "none", "duration": 0.0, "start_time": "00:00:00.0", "__sls__": "none"}}

async def join(number, name, address):
    await asyncio.sleep(number * given["seconds"] / len(given["nodes"]))
    sockets.append(context.socket(zmq.SUB))
    sockets[-1].connect(f"tcp://{address}:0;{given['master']}:4505")
    channels[name] = salt.channel.client.AsyncReqChannel.factory({**opts, "id": name})
    event = {"cmd": "_minion_event", "id": name, "pretag": None, "tag": f"salt/minion/{name}/start", "data": "started"}
    await channels[name].send(event)

async def answer(name, load):
    if load["fun"] == "state.highstate":
        port = given["nodes"][name][1]
        await asyncio.to_thread(subprocess.run, [
            *OWN, "slurmd", "-f", f"{given['place']}/slurm.conf", "-N", name, "-Z",
            "--conf", f"Port={port} RealMemory=100",
        ], check=True)
    told = NOTHING if load["fun"].startswith("state.") else {}
    await channels[name].send({
        "cmd": "_return", "id": name, "jid": load["jid"], "fun": load["fun"], "fun_args": load["arg"], "return": told,
        "retcode": 0, "success": True,
    })

async def main():
    running = set()

    async def told(payload):
        load = payload["load"]
        names = load["tgt"] if isinstance(load["tgt"], list) else load["tgt"].split(",")
        running.update(asyncio.create_task(answer(name, load)) for name in names if name in channels)

    first = next(iter(given["nodes"]))
    listener = salt.channel.client.AsyncPubChannel.factory({**opts, "id": first})
    await listener.connect()
    listener.on_recv(told)
    await asyncio.gather(*(join(n, name, address) for n, (name, (address, _)) in enumerate(given["nodes"].items())))
    print("joined", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
# Runs on the master until all are in service, and prints what it saw: names come on standard input.
WATCH = """
import json, pathlib, re, subprocess, sys, time

names = set(json.load(sys.stdin))
begun = time.monotonic()

def there(text):
    return len(names & set(re.findall(r"[a-z][a-z0-9-]*", text)))

def cpu():
    return int(pathlib.Path("/sys/fs/cgroup/cpu.stat").read_text().split()[1]) / 1e6

def output(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout

PROVEN = ["sacct", "-X", "-n", "-S", sys.argv[1], "-E", "now", "-s", "CD", "--name=join", "-o", "NodeList%20"]
looks = {
    "known": lambda: there(pathlib.Path("/etc/prometheus/nodes.json").read_text()),
    "registered": lambda: there(output("sinfo", "-h", "-N", "-t", "idle,mixed,allocated", "-o", "%N")),
    "proven": lambda: there(output(*PROVEN)),
}
before, seen = cpu(), {}
while len(seen) < len(looks) and time.monotonic() < begun + float(sys.argv[2]):
    for what in [what for what in looks if what not in seen]:
        if looks[what]() == len(names):
            seen[what] = time.monotonic() - begun
    time.sleep(0.5)
print(json.dumps({**seen, "cpu": cpu() - before}))
"""


def simulated(size):
    """Return the machines, ``{id: [address, port of its slurmd]}``."""
    hosts = list(ADDRESSES.hosts())
    return {f"sim{n}": [str(hosts[n]), 61000 + n] for n in range(size)}


def prepare(master, worker, nodes):
    """Let the pillar name the machines, the master accept their key, and packets find them on the worker."""
    table = site.nodes()
    table["nodes"] |= {name: {"address": address} for name, (address, _) in nodes.items()}
    site.write(master, nodes=table)
    worker.run(["install", "-d", "-m", "0700", PLACE])
    worker.run(["sh", "-c", f"cp -p /etc/salt/pki/minion/minion* /etc/slurm/slurm.key {PLACE}/"])
    directories = f"SlurmdSpoolDir={PLACE}/spool-%n\nSlurmdPidFile={PLACE}/slurmd-%n.pid\n"
    kept = [line for line in master.read("/etc/slurm/slurm.conf").splitlines() if not line.startswith("Slurmd")]
    worker.write(f"{PLACE}/slurm.conf", "\n".join([*kept, directories]))
    worker.write(f"{PLACE}/cgroup.conf", master.read("/etc/slurm/cgroup.conf"))
    worker.run(["ip", "route", "replace", "local", str(ADDRESSES), "dev", "lo"])
    master.run(["ip", "route", "replace", str(ADDRESSES), "via", worker.address])
    accept = "cd /etc/salt/pki/master/minions && while read -r name; do cp w1 $name; done"
    master.run(["sh", "-c", accept], input="".join(f"{name}\n" for name in nodes))


def clean(master, worker, nodes):
    """Take the machines away again."""
    worker.run(["systemctl", "stop", "bursts"], check=False)
    worker.run(["rm", "-rf", PLACE])
    worker.run(["ip", "route", "del", "local", str(ADDRESSES), "dev", "lo"], check=False)
    remove = "cd /etc/salt/pki/master/minions && while read -r name; do rm -f $name; done"
    master.run(["sh", "-c", remove], input="".join(f"{name}\n" for name in nodes))
    if there := set(nodes) & set(master.run(["sinfo", "-h", "-N", "-o", "%N"]).stdout.split()):
        every = f"nodename={','.join(there)}"
        master.run(["scontrol", "update", every, "state=down", "reason=removed"])
        wait_for("their last jobs are over", lambda: not master.run(["squeue", "-h", "--name=join"]).stdout)
        master.run(["scontrol", "delete", every])
    master.run(["ip", "route", "del", str(ADDRESSES)], check=False)
    site.write(master, nodes=site.nodes())
    apply(master)


def apply(master):
    """Have the master's services go by the pillar."""
    master.run(["salt", "--out=quiet", "--timeout=120", "master", "state.apply", SLS, "queue=5"], timeout=300)


def burst(master, worker, size):
    """Let so many machines join; return ``{"runs": number, "known", "registered", "proven" and "cpu": seconds}``."""
    nodes = simulated(size)
    prepare(master, worker, nodes)
    try:
        since = master.run(["date", "+%FT%T"]).stdout.strip()
        told = {"nodes": nodes, "place": PLACE, "master": master.address, "seconds": BURST if size > 1 else 0}
        worker.write(f"{PLACE}/told.json", json.dumps(told))
        worker.write(f"{PLACE}/minions.py", MINIONS)
        properties = ("LimitNOFILE=65536", "TimeoutStopSec=2", f"StandardInput=file:{PLACE}/told.json")
        unit = ["systemd-run", "--quiet", "--collect", "--unit=bursts", *(f"--property={each}" for each in properties)]
        worker.run([*unit, PYTHON, f"{PLACE}/minions.py"])
        watch = ["/usr/bin/python3", "-c", WATCH, since, str(PATIENCE)]
        seen = json.loads(master.run(watch, input=json.dumps(list(nodes)), timeout=PATIENCE + 60).stdout)
        journal = ["journalctl", "-q", "-o", "cat", "-u", "salt-master", "--since", since.replace("T", " ")]
        runs = master.run(journal).stdout.count("Joining: ")
        return {"runs": runs, **seen}
    finally:
        clean(master, worker, nodes)


def main():
    lab.up()
    master, worker = lab.node("master"), lab.node("w1")
    site.write(master, cluster=site.CLUSTER | {"cluster": site.CLUSTER["cluster"] | {"network": str(NETWORK)}})
    apply(master)
    try:
        measure(master, worker)
    finally:
        site.write(master, cluster=site.CLUSTER)
        apply(master)


def measure(master, worker):
    """Print a line for each size."""
    print(" joins  runs  known s  in Slurm s  proven s   CPU s   of one run for each: CPU")
    one = None
    for size in SIZES:
        row = burst(master, worker, size)
        one = one or row["cpu"]
        seconds = " ".join(f"{row.get(key, float('nan')):{width}.1f}" for key, width in
                           (("known", 8), ("registered", 11), ("proven", 9), ("cpu", 7)))  # fmt: skip
        print(f"{size:6} {row['runs']:5} {seconds}   {row['cpu'] / (size * one):.3f}", flush=True)


if __name__ == "__main__":
    main()
