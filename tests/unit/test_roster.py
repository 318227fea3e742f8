"""The salt-ssh roster: which nodes, and that a node on which salt-ssh cannot work is refused with the reason."""

import os

import pytest
import salt.loader
import salt.roster
from salt.exceptions import SaltSystemExit

from tests.unit.test_pillar import NODES, cluster

#: Stands for the way to a node: the command that is given is run by a shell of this machine.
SSH = '#!/bin/sh\nfor last; do :; done\n{before}\nexec sh -c "$last"\n'


@pytest.fixture
def roster(site, tmp_path, monkeypatch):
    """Return a function ``(target, what the remote shell does before a command)`` -> what the roster answers."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    site.write(cluster=cluster(), nodes=NODES)

    def targets(target, before=""):
        (programs / "ssh").write_text(SSH.format(before=before))
        (programs / "ssh").chmod(0o755)
        opts = {**site.opts, "roster": "nodes", "ssh_priv": str(tmp_path / "key"), "ssh_list_nodegroups": {}}
        return salt.roster.Roster(opts, "nodes").targets(target, "glob")

    return targets


def test_nodes_of_the_pillar_are_targets(roster):
    assert {name: node["host"] for name, node in roster("*").items()} == {"w1": "10.0.0.11", "w2": "10.0.0.12"}
    assert list(roster("w2")) == ["w2"]


REFUSED = {
    "greeting": ("echo WELCOME to w2", "w2: root's shell prints 'WELCOME to w2' when a command is run over SSH"),
    "full disk": ("echo no space left >&2; exit 1", "w2: files cannot be written in /var/tmp: no space left"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_node_that_salt_ssh_cannot_work_on_is_refused(roster, case):
    before, line = REFUSED[case]
    with pytest.raises(SaltSystemExit, match="w2") as refusal:
        roster("w2", before)
    assert line in str(refusal.value)
    assert "w1" not in str(refusal.value)


def test_a_failure_of_ssh_is_left_to_salt_ssh(roster):
    assert list(roster("w1", "echo Permission denied >&2; exit 255")) == ["w1"]


def test_a_mistake_in_the_pillar_is_the_message(roster, site):
    site.write(nodes="nodes: [")
    with pytest.raises(SaltSystemExit, match="nodes.sls, line"):
        roster("w1")
