"""A pillar edit takes effect; a bad one is refused and touches nothing."""

import pytest

from tests.lab.harness.shell import wait_for


def test_people_and_partitions_come_and_go(lab, master):
    def users(pillar):
        del pillar["users"]["guest"]
        pillar["users"]["lise"] = {
            "uid": 20010,
            "full_name": "Lise Meitner",
            "groups": ["physics"],
            "accounts": ["physics"],
        }
        pillar["accounts"]["physics"]["max_jobs"] = 7
        return pillar

    def partitions(pillar):
        pillar["partitions"]["night"] = {"max_time": "12:00:00", "config": {"PriorityTier": 5}}
        del pillar["partitions"]["highmem"]
        return pillar

    master.run(["runuser", "-u", "guest", "--", "touch", "/home/guest/kept"])
    with lab.pillar(users=users, partitions=partitions):
        lab.orchestrate("orch.apply")
        for node in (master, lab.node("w1")):
            assert node.run(["getent", "passwd", "lise"]).stdout
            assert node.run(["getent", "passwd", "guest"], check=False).returncode
        assert ["lise", "physics"] in lab.sacctmgr("assoc", "format=user,account", "user=lise")
        assert lab.sacctmgr("assoc", "account=physics", "user=", "format=maxjobs") == [["7"]]
        assert master.run(["sinfo", "-h", "-o", "%R %l"]).stdout.split() == ["main", "1-00:00:00", "night", "12:00:00"]
        _, output = lab.job("lise", "--partition=night", "id -un")
        assert output.split() == ["lise"]
        assert master.run(["test", "-e", "/home/guest/kept"]).returncode == 0
        assert master.run(["runuser", "-u", "guest", "true"], check=False).returncode

        # And away again, with a job still waiting.
        waiting = lab.as_user("lise", ["sbatch", "--parsable", "--chdir=/tmp", "--hold", "--wrap=true"]).stdout.strip()
        master.run(["scancel", waiting])
    lab.orchestrate("orch.apply")
    assert lab.sacctmgr("assoc", "user=lise", "format=user") == []
    assert lab.sacctmgr("assoc", "account=physics", "user=", "format=maxjobs") == [["7"]], "undeclared is unmanaged"
    assert lab.node("w1").run(["getent", "passwd", "lise"], check=False).returncode
    assert master.run(["test", "-d", "/home/lise"]).returncode == 0
    master.run(["sacctmgr", "-i", "modify", "account", "physics", "set", "maxjobs=-1"])


def test_any_slurm_key_is_set_and_removed(lab, master):
    def cluster(pillar):
        pillar["slurm"]["config"] |= {"FirstJobId": 5000, "PriorityWeightJobSize": None}
        return pillar

    with lab.pillar(cluster=cluster):
        lab.highstate("master")
        text = master.read("/etc/slurm/slurm.conf")
        assert "FirstJobId=5000\n" in text
        assert "PriorityWeightJobSize" not in text
        assert "PriorityWeightFairshare=10000" in text, "the rest stays as it was"
        shown = master.run(["scontrol", "show", "config"]).stdout
        assert "FirstJobId              = 5000" in shown
    lab.highstate("master")


def test_scripts_run_before_and_after_each_job(lab, master):
    worker = lab.node("w1")

    def cluster(pillar):
        pillar["slurm"]["prolog"] = {"10-mark": "#!/bin/sh\ntouch /run/prolog-$SLURM_JOB_ID\n"}
        pillar["slurm"]["epilog"] = {"10-mark": "#!/bin/sh\ntouch /run/epilog-$SLURM_JOB_ID\n"}
        return pillar

    with lab.pillar(cluster=cluster):
        lab.orchestrate("orch.apply")
        job, _ = lab.job("ada", "--nodelist=w1", "true")
        for mark in (f"/run/prolog-{job}", f"/run/epilog-{job}"):
            wait_for(mark, lambda mark=mark: not worker.run(["test", "-e", mark], check=False).returncode, timeout=20)
    lab.orchestrate("orch.apply")
    assert worker.run(["find", "/etc/slurm/prolog.d", "/etc/slurm/epilog.d", "-type", "f"]).stdout == ""
    job, _ = lab.job("ada", "--nodelist=w1", "true")
    assert worker.run(["test", "-e", f"/run/prolog-{job}"], check=False).returncode


def test_features_and_weights_of_a_node_change(lab, master):
    def nodes(pillar):
        pillar["nodes"]["w1"] |= {"features": ["highmem", "fast"], "weight": 20}
        return pillar

    def shown():
        return master.run(["sinfo", "-h", "-N", "-n", "w1", "-p", "main", "-o", "%f %w"], check=False).stdout.split()

    def highmem():
        return master.run(["sinfo", "-h", "-p", "highmem", "-o", "%N"]).stdout.strip()

    with lab.pillar(nodes=nodes):
        lab.orchestrate("orch.apply")
        master.run(["scontrol", "reconfigure"])  # which forgets what was only changed in place
        wait_for("Slurm has w1's features", lambda: shown() == ["highmem,fast", "20"], timeout=30)
        wait_for("the partition has w1", lambda: highmem() == "w[1-2]", timeout=30)
    lab.orchestrate("orch.apply")
    wait_for("Slurm has w1's features", lambda: shown() == ["(null)", "1"], timeout=30)
    wait_for("the partition has w1 no more", lambda: highmem() == "w2", timeout=30)


BAD = {
    "an unknown key": (
        "users", lambda p: p["users"]["ada"].update(shel="/bin/zsh") or p, ["users.ada.shel", "shell"]),
    "a wrong type": (
        "users", lambda p: p["users"]["ada"].update(uid="many") or p, ["users.ada.uid", "many"]),
    "an unknown feature": (
        "partitions", lambda p: p["partitions"]["main"].update(features=["gpu"]) or p,
        ["partitions.main.features", "gpu", "highmem"]),
    "a duplicate uid": (
        "users", lambda p: p["users"]["ada"].update(uid=20002) or p, ["uid", "20002", "marie"]),
    "an unknown account": (
        "users", lambda p: p["users"]["ada"].update(accounts=["phisics"]) or p,
        ["users.ada.accounts", "phisics", "physics"]),
    "a person who is renamed": (
        "users", lambda p: p["users"].update(mcurie=p["users"].pop("marie")) or p,
        ["users.mcurie.uid", "20002", "mv /home/marie /home/mcurie"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pillar_is_refused_and_touches_nothing(lab, master, case):
    name, edit, words = BAD[case]

    def cluster_now():
        watched = "/etc/slurm /etc/salt/master.d /var/lib/extrausers /etc/qhub/members.hosts"
        files = master.run(["sh", "-c", f"find {watched} -type f | xargs sha256sum"]).stdout
        return files, lab.sacctmgr("assoc"), master.run(["systemctl", "show", "slurmctld", "-p", "MainPID"]).stdout

    before = cluster_now()
    with lab.pillar(**{name: edit}):
        for command in (
            ["salt", "master", "state.apply"],
            ["salt-run", "cluster.validate"],
            ["salt-run", "state.orchestrate", "orch.apply"],
        ):
            refused = master.run(command, check=False)
            said = refused.stdout + refused.stderr
            assert refused.returncode, command
            assert all(word in said for word in words), (command, said)
    assert cluster_now() == before
    assert "pillar is valid" in master.run(["salt-run", "cluster.validate"]).stdout
