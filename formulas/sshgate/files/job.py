"""The SSH gateway's way into a user's job."""

import asyncio
import collections
import re
import socket
import time
from typing import Any

import asyncssh
from door import plain
from hub import HubDown, Refused
from journal import say

HOST_KEY = re.compile(r"sshgate-host-key: (ssh-ed25519 [A-Za-z0-9+/]{68})")


class PipeSocket(socket.socket):
    """One end of a socket pair; asyncssh wants names, which it has not."""

    def getpeername(self):
        return ("job", 22)

    getsockname = getpeername


class JobClient(asyncssh.SSHClient):
    """The gateway's side of the connection into the job."""

    def __init__(self, lost):
        self.lost = lost

    def connection_lost(self, exc):
        self.lost.set()


class Job:
    """The SSH connection into a user's job; opened when the client first wants something of it."""

    def __init__(self, gate):
        self.gate, self.user = gate, gate.user
        self.connection: Any = None
        self.process: Any = None
        self.lock, self.lost = asyncio.Lock(), asyncio.Event()
        self.said = ""  # what srun and its like have said
        self.host_key: Any = None
        self.tasks = []

    async def get(self, tell=lambda line: None):
        """Return the connection; ``tell`` gets lines of text while that takes time. Raises ``ChannelOpenError``."""
        async with self.lock:
            if self.connection is None:
                begun = time.monotonic()
                try:
                    limit = self.gate.gateway.settings.start_timeout
                    await asyncio.wait_for(
                        self.gate.gateway.hub.start(self.user, self.gate.token, lambda line: tell(plain(line))), limit
                    )
                    await self.open()
                except Refused as error:
                    why = str(error)
                except HubDown as error:
                    say("hub", user=self.user, error=str(error))
                    why = "JupyterHub does not answer; try again"
                except asyncio.TimeoutError:  # noqa: UP041
                    why = f"no notebook server within {limit} s"
                else:
                    seconds = time.monotonic() - begun
                    say("session", **self.gate.who, seconds=round(seconds, 3))
                    self.gate.gateway.metrics.count("sshgate_sessions_total")
                    self.gate.gateway.metrics.count("sshgate_session_start_seconds_total", seconds)
                    return self.connection
                say("no session", **self.gate.who, reason=plain(why)[:500])
                self.gate.gateway.metrics.count("sshgate_sessions_failed_total")
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, f"sshgate: {plain(why)}")
            return self.connection

    async def open(self):
        gateway = self.gate.gateway
        if gateway.busy[self.user] >= gateway.settings.limits.sessions_per_user:
            raise Refused("some of your connections are still ending; try again in a moment")
        gateway.busy[self.user] += 1
        key = asyncssh.generate_private_key("ssh-ed25519")
        ours, theirs = socket.socketpair()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *gateway.settings.command,
                self.user,
                gateway.settings.wrapper,
                key.export_public_key().decode().split()[1],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        except BaseException:
            gateway.busy[self.user] -= 1
            ours.close()
            raise
        finally:
            theirs.close()
        ours = PipeSocket(fileno=ours.detach())
        self.host_key = asyncio.get_running_loop().create_future()
        self.tasks = [asyncio.create_task(self.listen()), asyncio.create_task(self.reap())]
        try:
            trusted = await asyncio.wait_for(asyncio.shield(self.host_key), gateway.settings.connect_timeout)
            if trusted is None:
                raise asyncssh.Error(0, "the way into the job was closed")
            self.connection = await asyncssh.connect(
                sock=ours,
                username=self.user,
                client_keys=[key],
                client_factory=lambda: JobClient(self.lost),
                known_hosts=([asyncssh.import_public_key(trusted)], [], []),
                server_host_key_algs=["ssh-ed25519"],
                config=None,
                agent_path=None,
                preferred_auth="publickey",
                connect_timeout=gateway.settings.connect_timeout,
                login_timeout=gateway.settings.connect_timeout,
                compression_algs=["none"],
                encryption_algs=["aes128-gcm@openssh.com"],
                keepalive_interval=30,
                keepalive_count_max=4,
            )
        except (OSError, asyncssh.Error, asyncio.TimeoutError) as error:  # noqa: UP041
            ours.close()
            await asyncio.wait(self.tasks, timeout=2)
            raise Refused(self.said.strip() or f"no way into the job: {error or 'it took too long'}") from None
        self.tasks.append(asyncio.create_task(self.watch()))

    async def listen(self):
        """Read what sudo, srun and sshd complain about, and the key by which the sshd in the job is known."""
        try:
            while chunk := await self.process.stderr.readline():
                line = chunk.decode("utf-8", "replace").rstrip()
                if (match := HOST_KEY.fullmatch(line)) and not self.host_key.done():
                    self.host_key.set_result(match[1])
                elif line.startswith(("sshgate: ", "srun: ", "slurmstepd: ", "sudo: ")):
                    self.said = (self.said + plain(line) + "\n")[-1000:]
        except ValueError:  # a line without an end
            say("noise", user=self.user)
            while await self.process.stderr.read(65536):
                pass
        finally:
            if not self.host_key.done():
                self.host_key.set_result(None)

    async def reap(self):
        await self.process.wait()
        self.gate.gateway.busy[self.user] -= 1
        self.gate.gateway.busy += collections.Counter()
        self.lost.set()

    async def outlasts(self, seconds):
        """Whether the connection into the job is still there after that time."""
        await asyncio.wait([self.tasks[-1]], timeout=seconds)
        return not self.lost.is_set()

    async def watch(self):
        """When the connection into the job has ended, say so to the client and end theirs."""
        await self.lost.wait()
        await asyncio.wait(self.tasks[:2], timeout=10)  # for the last words of the wrapper
        said = self.said.splitlines()
        self.gate.end("job", said[-1].removeprefix("sshgate: ") if said else "the way into your notebook's job broke")

    def close(self):
        if self.connection:
            self.connection.abort()  # the wrapper sees it and ends srun, which may not see it
