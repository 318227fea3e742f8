"""
What runs the commands that README.md and docs/ tell to type. tests/unit/test_docs.py looks that none is left out.

A command is written as it is in the text, without its comment; above it is what runs it, ``file::function``, where
names of machines, people and files may be others. What nothing runs has its reason here, or in the text before its
block: ``<!-- not run: reason -->``.
"""

RUN_BY = {
    # The lab.
    "tests/lab/harness/lab.py::up": [
        "make lab",
        "/srv/qhub/salt/bootstrap/master.sh",
        "/srv/qhub/salt/bootstrap/master.sh --mirror /srv/mirror",
    ],
    "tests/lab/harness/lab.py::add": ["salt-ssh w1 state.apply bootstrap.minion"],
    "tests/lab/harness/lab.py::healthy": ["salt-run cluster.doctor"],
    "tests/lab/harness/lab.py::down": ["make lab-down"],
    "tests/lab/harness/image.py::_fill": ["make mirror DIR=/srv/mirror"],
    "tests/lab/test_bootstrap.py::test_a_shell_passes_on_the_status_of_its_command": [
        "make lab-shell NODE=master CMD='runuser -u ada -- srun hostname'",
        "make lab-shell NODE=master CMD='qhub-keycloak password ada'",
    ],
    "tests/lab/test_membership.py::salt_cloud": ["salt-cloud -p worker w1"],
    # People, and what is declared.
    "tests/lab/browser.py::first_password": ["qhub-keycloak password ada", "qhub-keycloak password NAME"],
    "tests/lab/test_pillar.py::test_people_and_partitions_come_and_go": ["salt-run state.orchestrate orch.apply"],
    "tests/lab/test_pillar.py::test_a_bad_pillar_is_refused_and_touches_nothing": ["salt-run cluster.validate"],
    "tests/lab/conftest.py::apply": [
        "salt '*' state.apply test=True",
        "salt w1 state.apply",
    ],
    "salt/bootstrap/master.sh": ["salt-call state.apply"],
    "tests/lab/security/test_hardening.py::test_port_22_takes_no_password_once_an_administrator_has_a_key": [
        "salt-call state.apply sshd",
    ],
    "tests/functional/test_slurm_account.py::test_the_pillar": ["salt-call slurm_account.diff grace pillar=true"],
    "tests/functional/test_slurm_account.py::test_a_tree_made_by_hand_round_trips": [
        "salt-call slurm_account.dump grace"
    ],
    "tests/functional/test_conda_store_env.py::test_what_is_exported_declares_what_is_there": [
        "salt-call conda_store_env.export",
    ],
    # Every day.
    "tests/lab/test_drift.py::told": ["salt-run cluster.drift"],
    "tests/lab/test_drift.py::events": ["salt-run state.event tagmatch='qhub/*' pretty=True"],
    "tests/lab/test_dashboards.py::requests": ["salt '*' schedule.run_job highstate force=True"],
    "tests/lab/test_membership.py::test_a_third_machine_joins_and_leaves": [
        "salt-run state.orchestrate orch.remove pillar='{node: w2}'",
    ],
    "tests/lab/test_backup.py::test_a_backup_has_every_part": ["salt-run state.orchestrate orch.backup"],
    "tests/lab/test_backup.py::snapshots": ["qhub-backup restic", "qhub-backup restic snapshots"],
    "tests/lab/test_backup.py::test_a_file_comes_back_alone": [
        "qhub-backup restic restore latest --tag qhub-data --target / --include /home/ada",
    ],
    "tests/lab/test_backup.py::test_a_lost_master_comes_back": [
        "salt/bootstrap/master.sh --restore REPOSITORY --password-file FILE [--environment-file FILE] [--snapshot ID]",
        "salt-run state.orchestrate orch.restore pillar='{snapshot: latest}'",
    ],
    "tests/lab/test_rotation.py::rotation": [
        "salt-run state.orchestrate orch.rotate pillar='{class: hub}'",
        "salt-run state.orchestrate orch.rotate pillar='{class: [hub, slurm]}'",
        "salt-run state.orchestrate orch.rotate pillar='{class: all}'",
    ],
    "tests/lab/test_upgrade.py::plan": ["salt-run upgrade.plan"],
    "tests/lab/test_upgrade.py::run": [
        "salt-run state.orchestrate orch.upgrade",
        "salt-run state.orchestrate orch.upgrade pillar='{batch: 4, timeout: 86400}'",
    ],
    # This repository.
    ".ci/run": ["make test"],
    "tests/unit/test_docs.py::built": ["make docs"],
    "tests/unit/test_docs.py::test_make_help_lists_what_there_is": ["make help"],
}
STATE = "the state does, in test mode (tests/functional/test_conda_store_env.py)"
NOT_RUN = {
    "salt-call conda_store_env.diff pillar=true": STATE,
    "salt-call conda_store_env.diff pillar=true solve=true": STATE,
    "make test-full": "it runs the tests of this repository, as make test does with their core",
    "make screenshots": "it runs the tests of notebooks, and keeps their pictures",
    "salt-run state.orchestrate orch.converge": "the master's engine does, whenever a machine joins",
    "salt-key --delete x": "Salt's own",
    "scancel --nodelist=w2": "Slurm's own",
}
