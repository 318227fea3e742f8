"""What a service asks of Slurm, once for all its jobs, through the program that root runs for it (qhub-jobs)."""

import asyncio
import json
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
    """What ``read`` returned, or raised, last; those who ask at the same time share one reading."""

    def __init__(self, read):
        self.read = read
        self.value = self.error = None
        self.asked = float("-inf")
        self.lock = asyncio.Lock()

    async def get(self, since):
        """Return it as it was at the time ``since`` (of the monotonic clock) or later."""
        async with self.lock:
            if self.asked < since:
                asked, self.error = time.monotonic(), None
                try:
                    self.value = await self.read()
                except SlurmError as error:
                    self.error = error
                    asked = time.monotonic()  # who came while Slurm was silent does not ask again
                self.asked = asked
            if self.error:
                raise self.error
            return self.value


async def _queue():
    return (await ask("queue"))["jobs"]


async def _limits():
    return Cluster.read(**await ask("limits"))


queue = Remembered(_queue)
limits = Remembered(_limits)
