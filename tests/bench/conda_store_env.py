"""How long conda_store_env takes when nothing is to be done, beside a client that asks for each environment.

    python -m tests.bench.conda_store_env                      10, 200 and 1,000 environments
    python -m tests.bench.conda_store_env 50                   50

The environments are rows in conda-store's database, each with one complete build, and nothing on the disk: what is
measured is finding out that all is as declared. The client posts each specification; as conda-store makes a build of
each, its worker is stopped meanwhile, so what the builds would take comes on top. It posts a sample.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import requests

from tests.functional.conda_store import CondaStore
from tests.functional.modules import Modules

SIZES = (10, 200, 1000)
SAMPLE = 20  # specifications that the client really posts
CHANNEL = "http://127.0.0.1:9/channel"
# Of one namespace; what is there already stays.
ROWS = """
insert into namespace (name, metadata_) values ('bench', '{{}}') on conflict do nothing;
insert into specification (name, spec, sha256, created_on, is_lockfile)
  select 'e' || n, json_build_object('name', 'e' || n, 'channels', json_build_array('{channel}'), 'description', '',
    'dependencies', json_build_array('alpha', 'beta'), 'prefix', null, 'variables', null),
    md5('one' || n) || md5('other' || n), now(), false
  from generate_series({first}, {last}) n;
insert into environment (namespace_id, name)
  select (select id from namespace where name = 'bench'), 'e' || n from generate_series({first}, {last}) n;
insert into build (specification_id, environment_id, status, size, scheduled_on, started_on, ended_on,
    build_key_version)
  select s.id, e.id, 'COMPLETED', 1000, now(), now(), now(), 2
  from generate_series({first}, {last}) n
  join environment e on e.name = 'e' || n join specification s on s.name = e.name;
update environment e set current_build_id = b.id
  from build b where b.environment_id = e.id and e.current_build_id is null;
"""


class Calls:
    """Counts requests of this process while it is entered."""

    def __enter__(self):
        self.number, request = 0, requests.Session.request

        def counted(session, *arguments, **options):
            self.number += 1
            return request(session, *arguments, **options)

        self.patch = mock.patch.object(requests.Session, "request", counted)
        self.patch.start()
        self.start = time.monotonic()
        return self

    def __exit__(self, *error):
        self.seconds = time.monotonic() - self.start
        self.patch.stop()


def fill(machine, first, last):
    statement = ROWS.format(channel=CHANNEL, first=first, last=last)
    machine.node.run(["psql", "-qX1v", "ON_ERROR_STOP=1", "conda-store"], user="postgres", input=statement)


def ours(module, declared):
    """Return ``(seconds, calls)`` of an apply that changes nothing."""
    with Calls() as calls:
        outcome = module.apply(declared)
    assert outcome == {"changes": {}, "notes": [], "error": ""}, outcome
    return calls.seconds, calls.number


def naive(machine, size):
    """Return the seconds that posting takes for each of ``size`` environments, from a sample."""
    sample = min(size, SAMPLE)
    with Calls() as calls:
        for number in range(1, sample + 1):
            machine.submit("bench", f"e{number}", "alpha", "beta", channels=[CHANNEL])
    # They are not to run later, nor to be what is current.
    machine.node.run(["psql", "-qXc", "delete from build where status = 'QUEUED'", "conda-store"], user="postgres")
    return calls.seconds / sample * size


def measure(machine, module, size):
    declared = {f"bench/e{n}": {"channels": [CHANNEL], "dependencies": ["alpha", "beta"]} for n in range(1, size + 1)}
    declared["settings"] = {"conda_included_packages": []}
    adopted, calls = ours(module, declared)
    print(f"\nconda_store_env: {size} environments", flush=True)
    print(f"  first look at what others made   {adopted:8.2f} s   {calls:5} calls", flush=True)
    runs = [ours(module, declared) for _ in range(3)]
    seconds, calls = statistics.median(run[0] for run in runs), runs[0][1]
    print(f"  no-op                            {seconds:8.2f} s   {calls:5} calls", flush=True)
    posted = naive(machine, size)
    print(f"  a client that posts each         {posted:8.2f} s   {size:5} calls, and {size} builds", flush=True)
    print(f"  no-op: {seconds / posted:.2f} of the client's time before its builds, {calls / size:.3f} of its calls")


def main(arguments=()):
    machine = CondaStore()
    with tempfile.TemporaryDirectory() as directory:
        try:
            machine.start()
            connection = {"url": machine.url, "token": machine.token, "ca": str(machine.ca)}
            module = Modules("conda_store_env", Path(directory), conda_store_env=connection)
            module.apply({"settings": {"conda_included_packages": []}})
            machine.shell("systemctl stop conda-store-worker")
            there = 0
            for size in sorted(map(int, arguments)) or SIZES:
                fill(machine, there + 1, size)
                there = size
                measure(machine, module, size)
        finally:
            machine.destroy()


if __name__ == "__main__":
    main(sys.argv[1:])
