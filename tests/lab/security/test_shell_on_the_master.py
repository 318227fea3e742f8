"""A person with a shell on the master reads nothing but what is that person's own."""

import json

import pytest

from tests.lab import nfs

MARIE = 20002
# Prints the paths below some directories of files that hold one of the strings on standard input (a JSON list).
SEARCH = """
import json, os, stat, sys
wanted = [each.encode() for each in json.load(sys.stdin)]
for top in sys.argv[1:]:
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with open(path, "rb") as file:
                        content = file.read()
                    if any(each in content for each in wanted):
                        print(path)
            except OSError:
                pass
"""
PLACES = ("/etc", "/var", "/run", "/srv", "/tmp", "/root", "/opt/qhub/shared", "/dev/shm")


@pytest.mark.parametrize("node", ["master", "w1"])
@pytest.mark.parametrize("who", [nfs.ADA, nfs.ROOT], ids=["ada", "root"])
def test_a_persons_own_program_is_no_nfs_client(lab, node, who):
    """The program claims another uid, from the network of a machine that may mount the homes."""
    refused = nfs.nfs(lab, node, "nfs-ls", "/home/ada", who=who, uid=MARIE, check=False)
    assert refused.returncode
    assert "NFS4ERR_NOENT" in refused.stderr


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
    search = ["/usr/bin/python3", "-c", SEARCH, *PLACES]
    assert lab.master.run(search, input=json.dumps(secrets)).stdout, "root finds them"
    assert lab.as_user("marie", search, input=json.dumps(secrets)).stdout == ""
