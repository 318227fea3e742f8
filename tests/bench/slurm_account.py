"""How long slurm_account takes, beside one sacctmgr per object and beside ``sacctmgr load`` of a flat file.

    python -m tests.bench.slurm_account                  100 accounts, 1,000 users
    python -m tests.bench.slurm_account --large          1,000 accounts, 10,000 users
    python -m tests.bench.slurm_account --accounts 10 --users 100

Every tenth user has two associations. All against one slurmdbd and MariaDB on this machine, with slurmctld
running.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.functional.modules import Modules
from tests.functional.slurm import CLUSTER, Slurm, search_path

SAMPLE = 50  # users that the loop really adds, to the empty and to the full database


def declaration(accounts, users):
    """Return a tree of accounts in two levels, with users in them."""
    tops = max(1, accounts // 10)
    tree = {f"a{n}": {"parent": "root" if n < tops else f"a{n % tops}"} for n in range(accounts)}
    people = {}
    for n in range(users):
        members = [f"a{n % accounts}"] + ([f"a{(n + 1) % accounts}"] if n % 10 == 0 else [])
        people[f"u{n}"] = {"accounts": members, "fairshare": 1 + n % 5, "max_jobs": 10 + n % 3}
    return {"accounts": tree, "users": people}


def flat_file(declared):
    """Return the same as a file for ``sacctmgr load``, as an administrator's script would write it."""
    lines = [f"Cluster - '{CLUSTER}'", "Parent - 'root'"]
    lines += [f"Account - '{name}'" for name, entry in declared["accounts"].items() if entry["parent"] == "root"]
    for name, entry in declared["accounts"].items():
        if entry["parent"] != "root":
            lines += [f"Parent - '{entry['parent']}'", f"Account - '{name}'"]
    members = {name: [] for name in declared["accounts"]}
    for user, entry in declared["users"].items():
        for account in entry["accounts"]:
            members[account].append(
                f"User - '{user}':DefaultAccount='{entry['accounts'][0]}'"
                f":Fairshare={entry['fairshare']}:MaxJobs={entry['max_jobs']}"
            )
    for account, users in members.items():
        lines += [f"Parent - '{account}'", *users]
    return "\n".join([*lines, ""])


def seconds(call, *arguments, **options):
    start = time.monotonic()
    call(*arguments, **options)
    return time.monotonic() - start


def loop(slurm):
    """Return the seconds that a sacctmgr of its own takes for one user, from a sample."""
    words = [f"sacctmgr -i add user name=loop{n} account=a0 fairshare=2 maxjobs=3" for n in range(SAMPLE)]
    return seconds(slurm.node.run, ["sh", "-e"], input="\n".join(words), timeout=600) / SAMPLE


def measure(slurm, module, started, declared):
    """Return ``[(name, seconds, processes), ...]`` of this module and of its counterparts."""
    rows = []

    def ours(name, expected):
        started.write_text("")
        changes = {}
        taken = seconds(lambda: changes.update(module.apply(CLUSTER, **declared)))
        assert bool(changes["changes"]) is expected
        rows.append((name, taken, len(started.read_text().split())))

    slurm.reset()
    slurm.start_controller()
    slurm.sacctmgr("add", "account", "a0")
    one = loop(slurm)
    slurm.reset()
    slurm.start_controller()
    ours("first apply", True)
    ours("no-op", False)
    users = list(declared["users"].values())
    for entry in users[1::100]:
        entry["fairshare"] = 77
    ours("change 1 %, alike", True)
    for number, entry in enumerate(users[2::100]):
        entry["fairshare"] = 100 + number
    ours("change 1 %, each differently", True)
    text = flat_file(declared)
    objects = len(declared["accounts"]) + sum(len(entry["accounts"]) for entry in declared["users"].values())
    # As the database fills, one takes longer.
    rows.append(("(a) a sacctmgr per object, first (extrapolated)", (one + loop(slurm)) / 2 * objects, None))
    slurm.reset()
    slurm.start_controller()
    rows.append(("(b) load, first", seconds(slurm.sacctmgr, "load", "/dev/stdin", input=text, timeout=3600), 1))
    again = seconds(slurm.sacctmgr, "load", "/dev/stdin", input=text, timeout=3600, check=False)
    rows.append(("(b) load, the same again", again, 1))
    return rows


def show(accounts, users, rows):
    took = {name: taken for name, taken, _ in rows}
    print(f"\nslurm_account: {accounts} accounts, {users} users, {users + users // 10} associations of users")
    for name, taken, processes in rows:
        print(f"  {name:50} {taken:8.2f} s   {'' if processes is None else f'{processes} processes'}")
    loop_, first, again = (took[name] for name in took if name.startswith("("))
    print(f"  first apply: {took['first apply'] / loop_:.3f} of (a), {took['first apply'] / first:.2f} of (b)")
    print(f"  no-op: {took['no-op'] / again:.2f} of (b) again")
    print(f"  memory, with Salt in it: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def main(arguments=()):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--large", action="store_true", help="1,000 accounts and 10,000 users; takes minutes")
    given = parser.parse_args(arguments)
    accounts, users = (1000, 10000) if given.large else (given.accounts, given.users)
    slurm = Slurm()
    with tempfile.TemporaryDirectory() as directory:
        programs, salt = Path(directory, "programs"), Path(directory, "salt")
        programs.mkdir()
        salt.mkdir()
        os.environ["PATH"] = search_path(programs)
        try:
            slurm.start()
            slurm.fill(programs)
            rows = measure(slurm, Modules("slurm_account", salt), programs / "started", declaration(accounts, users))
        finally:
            slurm.destroy()
    show(accounts, users, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
