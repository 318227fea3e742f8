"""A person with a shell on the master reads nothing but what is that person's own."""

import json

import pytest

from tests.lab import nfs

MARIE = 20002
# Prints the path of each file below some directories that holds one of the strings on standard input (a JSON list).
# Files of more than 1 MiB are programs and packages.
SEARCH = """
import json, os, stat, sys
wanted = [each.encode() for each in json.load(sys.stdin)]
for top in sys.argv[1:]:
    for directory, _, names in os.walk(top):
        for path in (os.path.join(directory, name) for name in names):
            try:
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode) and found.st_size < 1 << 20:
                    with open(path, "rb") as file:
                        content = file.read()
                    if any(each in content for each in wanted):
                        print(path)
            except OSError:
                pass
"""
PLACES = ("/etc", "/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp", "/run", "/tmp", "/dev/shm", "/root")


@pytest.mark.parametrize(("node", "refusal"), [("master", "nfs_service failed"), ("w1", "NFS4ERR_NOENT")])
@pytest.mark.parametrize("who", [nfs.ADA, nfs.ROOT], ids=["ada", "root"])
def test_a_persons_own_program_is_no_nfs_client(lab, node, refusal, who):
    """The program claims another uid. The firewall refuses it on the master, and the server on a worker."""
    refused = nfs.nfs(lab, node, "nfs-ls", "/home/ada", who=who, uid=MARIE, check=False)
    assert refused.returncode
    assert refusal in refused.stderr


@pytest.mark.parametrize("path", ["/etc/qhub/pillar", "/etc/salt", "/var/cache/salt", "/var/cache/salt/master/jobs"])
def test_a_private_directory_is_closed(lab, path):
    refused = lab.as_user("marie", ["ls", path], check=False)
    assert "Permission denied" in refused.stderr


def test_no_file_that_a_person_can_read_holds_a_secret(lab):
    """The secrets are those of all services, and the token of each node."""
    secrets = []
    for audience in ("master", "nodes"):
        secrets += json.loads(lab.master.read(f"/var/lib/qhub/pillar/secrets/{audience}.sls"))["secrets"].values()
    for node in (lab.master, *lab.workers):
        schedule = json.loads(node.read("/etc/salt/minion.d/schedule.conf"))["schedule"]
        secrets.append(schedule["highstate"]["metadata"]["token"])
    search = ["/usr/bin/python3", "-c", SEARCH]
    assert lab.master.run([*search, "/etc/salt"], input=json.dumps(secrets)).stdout, "the search finds a secret"
    assert lab.as_user("marie", [*search, *PLACES], input=json.dumps(secrets)).stdout == ""
