"""What a service asks of Slurm, once for all its jobs, through the program that root runs for it (qhub-jobs)."""

import asyncio
import json
import logging
import time

from qhub_jobs.limits import Cluster

SOCKET = "/run/qhub-jobs.sock"
TIMEOUT = 90  # seconds for an answer: some programs of Slurm's, one after the other


class SlurmError(Exception):
    """Slurm, or the way to it, said no; the message says why."""


async def ask(verb, **words):
    """Return the answer to one request."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(SOCKET, limit=1 << 26)
            try:
                writer.write(json.dumps({"verb": verb, **words}).encode())
                writer.write_eof()
                answer = json.loads(await reader.read())
            finally:
                writer.close()
    except (OSError, ValueError) as error:
        raise SlurmError(f"qhub-jobs does not answer: {error or 'too late'}") from error
    if "error" in answer:
        raise SlurmError(answer["error"])
    return answer


class Remembered:
    """What ``read`` returned last; those who ask at the same time share one reading, or its failure."""

    def __init__(self, read):
        self.read = read
        self.value, self.error = None, SlurmError()
        self.asked = self.failed = float("-inf")
        self.lock = asyncio.Lock()

    async def get(self, since):
        """Return it as it was at the time ``since`` (of the monotonic clock) or later."""
        called = time.monotonic()
        async with self.lock:
            if self.failed > called:  # Slurm was silent meanwhile
                raise self.error
            if self.asked < since:
                asked = time.monotonic()
                try:
                    self.value = await self.read()
                except SlurmError as error:
                    self.error, self.failed = error, time.monotonic()
                    raise
                self.asked = asked
            return self.value


async def _queue():
    return (await ask("queue"))["jobs"]


async def _limits():
    cluster = Cluster.read(**await ask("limits"))
    if cluster.unread != _reported:
        _reported[:] = cluster.unread
        for message in cluster.unread:
            logging.getLogger(__name__).warning("Left out, as it cannot be read: %s", message)
    return cluster


_reported: list = []  # what was reported last: the same again is no news


queue = Remembered(_queue)
limits = Remembered(_limits)
