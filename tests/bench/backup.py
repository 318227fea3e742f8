"""What a backup of the lab costs, and bringing its data back."""

import time

from tests.lab.harness import lab, site
from tests.lab.test_backup import REPOSITORY, forget, megabytes_new, metrics


def main():
    """A first backup, one of nothing new, and the restore of databases and state; beside copying the same files."""
    lab.up()
    master = lab.node("master")
    site.write(master, backup={"backup": {"repository": REPOSITORY}})

    def timed(title, *words):
        start = time.monotonic()
        out = master.run(words, timeout=900).stdout
        new = f"{megabytes_new(out):8.1f} MB new" if " MB new" in out else ""
        print(f"  {time.monotonic() - start:6.1f} s  {title:45}{new}", flush=True)

    try:
        master.run(["salt", "master", "state.apply", "backup"], timeout=300)
        timed("copy of homes and environments (tar)", "sh", "-c", "tar -c /home /opt/qhub/shared/conda | wc -c")
        timed("first backup, verified", "qhub-backup", "run")
        timed("backup of what has not changed", "qhub-backup", "run")
        timed("repository checked and all of it read", "qhub-backup", "restic", "check", "--read-data")
        timed("databases and state brought back", "qhub-backup", "restore", "latest")
        timed("services started by a highstate", "salt-run", "state.orchestrate", "orch.apply")
        print(f"  {metrics(master)['size_bytes'] / 1e6:6.1f} MB in the repository")
    finally:
        site.write(master, backup={"backup": {}})
        master.run(["salt", "master", "state.apply", "backup"], timeout=300)
        forget(master)
