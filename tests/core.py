"""
The core: the tests of ``make test``. ``make test-full`` runs every test.

Each promise of the README is a key; below it are the tests that show it. An entry is a node id of pytest, or the
beginning of one: a folder, a file, or a function with all its parameters.
"""

CORE = {
    "States, pillar, modules and pages are free of mistakes that show without a cluster": [
        "tests/unit",
    ],
    "A person signs in once and works in a notebook, which is a Slurm job on a worker": [
        "tests/lab/test_sign_in.py::test_the_certificate_needs_no_exception",
        "tests/lab/test_sign_in.py::test_a_person_signs_in_with_a_password_of_their_own",
        "tests/lab/test_sign_in.py::test_who_has_no_password_or_a_wrong_one_does_not_get_in",
        "tests/lab/test_notebooks.py::test_who_comes_is_asked_to_sign_in",
        "tests/lab/test_notebooks.py::test_the_form_offers_what_one_may_use",
        "tests/lab/test_notebooks.py::test_a_notebook_runs_on_a_worker_under_ones_own_account",
        "tests/lab/test_notebooks.py::test_a_second_person_does_not_reach_it",
        "tests/lab/test_notebooks.py::test_other_workers_do_not_reach_it",
    ],
    "People run jobs on each worker, on their accounts; a second highstate changes nothing": [
        "tests/lab/test_cluster.py",
    ],
    "A machine joins and leaves by one command": [
        "tests/lab/test_membership.py::test_a_third_machine_joins_and_leaves",
        "tests/lab/test_membership.py::test_a_minion_with_an_unknown_key_is_not_accepted",
    ],
    "An edit of the pillar takes effect": [
        "tests/lab/test_pillar.py::test_people_and_partitions_come_and_go",
    ],
    "A mistake in the pillar is refused, and nothing is touched": [
        "tests/lab/test_pillar.py::test_a_bad_pillar_is_refused_and_touches_nothing",
    ],
    "SSH on port 8022 is a shell in one's notebook, with scp, sftp, rsync and forwards": [
        "tests/lab/test_ssh.py::test_a_command_runs_in_the_job_on_the_worker",
        "tests/lab/test_ssh.py::test_slurm_counts_it_as_a_step_of_the_job",
        "tests/lab/test_ssh.py::test_a_shell_has_a_terminal_that_follows_the_window",
        "tests/lab/test_ssh.py::test_scp_both_ways",
        "tests/lab/test_ssh.py::test_sftp",
        "tests/lab/test_ssh.py::test_rsync",
        "tests/lab/test_ssh.py::test_forwards_lead_into_the_job_and_out_of_it",
        "tests/lab/test_ssh.py::test_another_token_is_refused",
    ],
    "Dask computes a sum on a cluster that a notebook started": [
        "tests/lab/test_dask.py::test_a_cluster_from_a_notebook",
    ],
    "An environment that the pillar declares is a kernel": [
        "tests/lab/test_environments.py::test_an_edit_of_the_pillar_is_a_kernel_and_can_be_taken_back",
    ],
    "From outside only the listed ports answer": [
        "tests/lab/test_front_door.py::test_only_the_listed_ports_answer",
        "tests/lab/test_front_door.py::test_ipv6_is_no_way_round",
    ],
    "Secrets are root's alone, and in no log": [
        "tests/lab/test_bootstrap.py::test_generated_secrets_are_roots_alone",
        "tests/lab/test_bootstrap.py::test_no_secret_is_in_logs_results_or_served_files",
    ],
    "An attack fails, whoever attacks: somebody without an account, a person, a page, root of a worker": [
        "tests/lab/security/test_builds.py",
        "tests/lab/security/test_dask_dashboards.py",
        "tests/lab/security/test_guest.py",
        "tests/lab/security/test_hardening.py",
        "tests/lab/security/test_loopback.py",
        "tests/lab/security/test_notebook_ports.py",
        "tests/lab/security/test_outsider.py",
        "tests/lab/security/test_own_web_server.py",
        "tests/lab/security/test_person.py",
        "tests/lab/security/test_realm.py",
        "tests/lab/security/test_root_on_a_worker.py",
        "tests/lab/security/test_shell_on_the_master.py",
    ],
    "A person who is locked out is out": [
        "tests/lab/security/test_locked.py::test_an_open_shell_ends",
        "tests/lab/security/test_locked.py::test_nothing_is_left_on_the_master",
        "tests/lab/security/test_locked.py::test_slurm_takes_no_new_job_and_the_running_one_goes_on",
        "tests/lab/security/test_locked.py::test_monitoring_asks_to_sign_in_again",
        "tests/lab/security/test_locked.py::test_dask_clusters_end",
        "tests/lab/security/test_locked.py::test_unlocking_restores_all",
    ],
    "A daemon that is killed comes back, and no job is lost": [
        "tests/lab/test_recovery.py",
    ],
    "The doctor names what is wrong": [
        "tests/lab/test_doctor.py::test_a_healthy_cluster_is_said_to_be_on_one_screen",
        "tests/lab/test_doctor.py::test_the_page_says_what_to_type",
        "tests/lab/test_doctor.py::test_a_fault_is_named_and_nothing_else[readable secret]",
        "tests/lab/test_doctor.py::test_a_fault_is_named_and_nothing_else[node drained]",
        "tests/lab/test_doctor.py::test_a_fault_is_named_and_nothing_else[keycloak stopped]",
    ],
    "A backup has every part, and brings databases and files back": [
        "tests/lab/test_backup.py::test_a_backup_has_every_part",
        "tests/lab/test_backup.py::test_a_file_comes_back_alone",
        "tests/lab/test_backup.py::test_a_running_master_goes_back_to_a_backup",
    ],
    "The accounting database is as declared": [
        "tests/functional/test_slurm_account.py::test_samples_are_complete",
        "tests/functional/test_slurm_account.py::test_every_field_of_a_qos",
        "tests/functional/test_slurm_account.py::test_every_field_of_accounts_users_and_associations",
        "tests/functional/test_slurm_account.py::test_the_pillar",
        "tests/functional/test_slurm_account.py::test_a_tree_made_by_hand_round_trips",
        "tests/functional/test_slurm_account.py::test_purge",
        "tests/functional/test_slurm_account.py::test_interrupted_half_way_the_next_run_finishes",
    ],
    "A realm is as declared": [
        "tests/functional/test_keycloak_realm.py",
        "tests/functional/test_keycloak_realm_flows.py",
        "tests/functional/test_keycloak_realm_refused.py",
        "tests/functional/test_keycloak_realm_secrets.py",
    ],
}


def covers(entry, nodeid):
    """Whether an entry names a test: ``a`` covers ``a``, ``a/b``, ``a::b`` and ``a[b]``, and not ``ab``."""
    return nodeid.startswith(entry) and nodeid[len(entry) : len(entry) + 1] in ("", "/", ":", "[")


def in_core(nodeid):
    """Whether a test is in the core."""
    return any(covers(entry, nodeid) for entries in CORE.values() for entry in entries)
