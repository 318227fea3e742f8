"""The lab's site: what its administrator writes and types. No state or template knows that it is a lab."""

import json

from . import settings

SHARED = ("/home", "/opt/qhub/shared")

CLUSTER: dict = {
    "cluster": {
        "name": "lab",
        "domain": "cluster.internal",
        "master": {"id": "master", "address": settings.ADDRESSES["master"]},
        "network": str(settings.NETWORK),
        "dns_servers": [],
    },
    "artifacts": {"mirror": settings.MIRROR},
    # What containers on a machine like this cannot have, said as any site would say it:
    "base": {"time_sync": False},  # the clock is the machine's own
    "nfs": {  # the kernel has no NFS: Ganesha serves, and homes are bound in instead of mounted
        # 4.0 too, for libnfs, which the tests ask with
        "server": {"implementation": "ganesha", "minor_versions": [0, 1, 2], "lease_time": 4, "grace_time": 5},
        "client": {"enabled": False},
    },
    "slurm": {  # no cgroup controllers
        "config": {"ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/affinity"},
        "cgroup": {"CgroupPlugin": "disabled"},
    },
}
MONITORING: dict = {
    "monitoring": {"page": "prometheus"},  # Grafana's package cannot be had from any registry
}
PARTITIONS: dict = {
    "partitions": {
        "main": {"default": True, "max_time": "1-00:00:00"},
        "highmem": {"features": ["highmem"], "max_time": "7-00:00:00"},
    }
}
USERS: dict = {
    "groups": {"physics": {"gid": 30000}, "chemistry": {"gid": 30001}},
    "accounts": {
        "science": {"description": "Faculty of Science", "organization": "science"},
        "physics": {"parent": "science", "description": "Department of Physics", "fairshare": 10},
        "chemistry": {"parent": "science", "description": "Department of Chemistry", "fairshare": 10},
    },
    "users": {
        "ada": {
            "uid": 20001, "full_name": "Ada Lovelace", "email": "ada@example.org",
            "groups": ["physics"], "accounts": ["physics"], "role": "admin",
        },
        "marie": {
            "uid": 20002, "full_name": "Marie Curie", "email": "marie@example.org",
            "groups": ["physics", "chemistry"], "accounts": ["chemistry", "physics"],
        },
        "guest": {"uid": 20003, "full_name": "A guest without an account", "email": "guest@example.org"},
    },
}  # fmt: skip


def nodes(names=settings.NODES):
    """Return the pillar's ``nodes`` for the workers among ``names``."""
    table: dict[str, dict] = {name: {"address": settings.ADDRESSES[name]} for name in names if name != "master"}
    if "w2" in table:
        table["w2"]["features"] = ["highmem"]
    return {"nodes": table}


def write(master, **files):
    """Write pillar files into the master's site directory: ``write(master, users={...})``."""
    for name, content in files.items():
        master.write(f"/etc/qhub/pillar/{name}.sls", json.dumps(content, indent=2) + "\n")  # JSON is YAML


def write_all(master):
    """Write the whole of the lab's pillar."""
    write(master, cluster=CLUSTER, nodes=nodes(), partitions=PARTITIONS, users=USERS, monitoring=MONITORING)


def trust(master, worker):
    """Give root on the master SSH access to a worker, both sides knowing each other, as ``ssh-copy-id`` would."""
    worker.write("/root/.ssh/authorized_keys", master.read("/root/.ssh/id_ed25519.pub"), mode="0600")
    key = worker.read("/etc/ssh/ssh_host_ed25519_key.pub").rsplit(" ", 1)[0]
    known = master.run(["cat", "/root/.ssh/known_hosts"], check=False).stdout.splitlines()
    lines = [line for line in known if not line.startswith(f"{worker.address} ")]
    master.write("/root/.ssh/known_hosts", "\n".join([*lines, f"{worker.address} {key}", ""]), mode="0600")
