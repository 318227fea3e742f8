"""Look at Slurm from time to time, and show the last look to whoever asks, on loopback."""

import argparse
import sys
import time
from collections import Counter

from prometheus_client import start_http_server
from prometheus_client.core import REGISTRY

from . import metrics, slurm


class Exporter:
    """What was seen last; a collector of prometheus_client."""

    def __init__(self, timeout):
        self.timeout = timeout
        self.history = metrics.History()
        self.commands = Counter()
        self.seen = [metrics.up(0)]
        self.error = None

    def refresh(self):
        """Look anew. Of a Slurm that does not answer nothing is shown but that."""
        begun = time.monotonic()
        try:
            jobs, nodes, statistics = slurm.ask(self.timeout, count=self.count)
        except (slurm.SlurmError, OSError, ValueError) as error:
            self.say(f"Slurm does not answer: {error}")
            seen = [metrics.up(0)]
        else:
            self.say(None)
            partitions = sorted({name for node in nodes.values() for name in node.partitions})
            self.history.add(jobs)
            seen = [
                metrics.up(1),
                *metrics.jobs_families(jobs, partitions, int(time.time())),
                *metrics.nodes_families(nodes),
                *metrics.statistics_families(statistics),
                *self.history.families(partitions),
            ]
        took = time.monotonic() - begun
        self.seen = [
            *seen,
            metrics.gauge("slurm_exporter_refresh_seconds", "How long the last look at Slurm took", [], {(): took}),
            metrics.counter(
                "slurm_exporter_commands_total", "Programs of Slurm's that were started", ["program"], self.commands
            ),
        ]

    def count(self, program):
        """Count a program that is started."""
        self.commands[program,] += 1

    def say(self, error):
        """Log a failure when it begins or changes, and its end."""
        if error != self.error:
            print(error or "Slurm answers", file=sys.stderr, flush=True)
            self.error = error

    def describe(self):
        """Return nothing: the names are not asked for at the start."""
        return []

    def collect(self):
        """Return what was seen last."""
        return self.seen


def main():
    parser = argparse.ArgumentParser(prog="qhub_slurm_exporter", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="on loopback")
    parser.add_argument("--interval", type=float, required=True, help="seconds from one look to the next")
    parser.add_argument("--timeout", type=float, required=True, help="seconds for one look")
    given = parser.parse_args()
    exporter = Exporter(given.timeout)
    REGISTRY.register(exporter)
    start_http_server(given.port, addr="127.0.0.1")
    while True:
        begun = time.monotonic()
        exporter.refresh()
        time.sleep(max(begun + given.interval - time.monotonic(), 0))


if __name__ == "__main__":
    main()
