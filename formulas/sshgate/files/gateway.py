"""
SSH into one's own notebook: a user name and a token of JupyterHub in, a shell inside the user's running job out.

    gateway.py CONFIGURATION

CONFIGURATION is a JSON file with the settings of formulas/sshgate/defaults.yaml.

For each client there is one ``srun --overlap``, started as the user through sudo, that carries one ``sshd -i`` inside
the job. The gateway ends the client's SSH, opens a second SSH connection over srun's standard input and output, with
a key made for it alone, and couples the channels one to one. It reads no command, path or host name that a client
sends, and no such text gets near a command line: the one argument that it gives to a program is that public key.

asyncssh has no public way to some of what is needed here (marked "private"), so its version is pinned.
"""

import asyncio
import collections
import json
import logging
import pwd
import random
import signal
import socket
import sys
import time
import types
from pathlib import Path
from typing import Any

import asyncssh
from channels import Channel, Forwarder, Up
from door import USER, Door, Metrics, network, owner, proxied_address, resident_bytes
from hub import Hub, HubDown
from job import Job
from journal import say, tell_systemd

ATTEMPTS = 3  # passwords on one connection
CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
]
MACS = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"]


class Gate(asyncssh.SSHServer):
    """One client's connection."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.user = self.token = self.ended = None
        self.job: Any = None
        self.connection: Any = None
        self.failures = 0
        self.active = True
        self.tasks = set()
        self.begun = time.monotonic()

    @property
    def who(self):
        """What the log says of this client."""
        return {"client": self.client, "address": self.address, "user": self.user}

    def connection_made(self, conn):
        self.connection = conn
        self.client, self.address = self.gateway.expected.pop(conn.get_extra_info("peername"))

    def connection_lost(self, exc):
        for task in list(self.tasks):
            task.cancel()
        if self.job:
            self.gateway.gates.discard(self)
            self.job.close()
            seconds = round(time.monotonic() - self.begun, 1)
            end = self.ended or ("client" if exc is None else "lost")
            say("end", **self.who, end=end, seconds=seconds)
            self.gateway.metrics.count("sshgate_connections_ended_total", end=end)

    def spawn(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.done)

    def done(self, task):
        """Whatever goes wrong: nobody waits for ever."""
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            say("error", **self.who, error=f"{type(error).__name__}: {error}"[:500])
            self.end("error", "something went wrong in the gateway; its log says what")

    def end(self, end, message):
        """End the connection and tell the client why."""
        if not self.ended:
            self.ended = end
            # Private: disconnect() closes the channels first, and a client whose last one closes reads no more.
            self.connection._send_disconnect(asyncssh.DISC_BY_APPLICATION, f"sshgate: {message}", "en-US")
            self.connection._force_close(None)

    # -- signing in -----------------------------------------------------------------------------

    def password_auth_supported(self):
        return True

    async def validate_password(self, username, password):
        door, metrics = self.gateway.door, self.gateway.metrics
        name = username if USER.fullmatch(username) else None
        who = {"client": self.client, "address": self.address, "user": name}
        person = name if name and self.known(name) else None
        pair = (network(self.address), person)
        if door.is_shut(*pair):
            say("login", **who, result="shut")
            metrics.count("sshgate_refused_total", reason="failures")
            text = "sshgate: too many failed logins with this name from your address; try again later"
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, text)
        await asyncio.sleep(door.failures.delay(pair))
        try:
            known = person and await self.gateway.hub.model(person, password)
        except HubDown as error:
            say("login", **who, result="hub", error=str(error))
            metrics.count("sshgate_logins_total", result="hub")
            text = "sshgate: JupyterHub does not answer; try again"
            raise asyncssh.DisconnectError(asyncssh.DISC_SERVICE_NOT_AVAILABLE, text) from error
        if known and (reason := self.gateway.full(name)):
            say("login", **who, result="full")
            metrics.count("sshgate_logins_total", result="full")
            raise asyncssh.DisconnectError(asyncssh.DISC_TOO_MANY_CONNECTIONS, f"sshgate: {reason}")
        say("login", **who, result="accepted" if known else "refused")
        metrics.count("sshgate_logins_total", result="accepted" if known else "refused")
        if known:
            self.user, self.token = name, password
            self.job = Job(self)
            self.gateway.gates.add(self)
            self.spawn(self.recheck())
            return True
        self.failures += 1
        door.failures.add(pair)
        await asyncio.sleep(door.failures.delay(pair))
        if self.failures >= ATTEMPTS:
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many failures")
        return False

    def known(self, name):
        """Tell whether ``name`` is one of the people that the machine knows, and no user of the system's."""
        low, high = self.gateway.settings.uids
        try:
            return low <= pwd.getpwnam(name).pw_uid <= high
        except KeyError:
            return False

    async def recheck(self):
        """Ask the Hub again and again, so that who loses the token, or is removed, does not stay."""
        settings = self.gateway.settings
        heard = time.monotonic()
        while True:
            await asyncio.sleep(settings.recheck * random.uniform(0.8, 1))  # noqa: S311
            try:
                if not await self.gateway.hub.model(self.user, self.token):
                    self.end("token", "your token is not valid any more")
                    return
                heard = time.monotonic()
                if self.active:
                    self.active = False
                    await self.gateway.hub.active(self.user, self.token)
            except HubDown as error:
                if time.monotonic() - heard > settings.hub_patience:
                    say("hub", **self.who, error=str(error))
                    self.end("hub", "JupyterHub does not answer, so your token cannot be checked")
                    return

    # -- what a client may ask for --------------------------------------------------------------

    def session_requested(self):
        plain_channel = self.connection.create_server_channel(encoding=None)
        plain_channel.__class__ = Channel  # private: a connection makes its channels by itself
        return plain_channel, Up(self)

    async def tunnel(self, connect):
        self.gateway.metrics.count("sshgate_channels_total", kind="forward")
        _, peer = await connect(await self.job.get())
        return Forwarder(self, peer)

    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        """``-L``, ``-D``, ``-W``, ``-J``: from inside the job."""
        return self.tunnel(
            lambda job: job.create_connection(lambda: Forwarder(self), dest_host, dest_port, orig_host, orig_port)
        )

    def unix_connection_requested(self, dest_path):
        return self.tunnel(lambda job: job.create_unix_connection(lambda: Forwarder(self), dest_path))

    async def server_requested(self, listen_host, listen_port):
        """``-R``: listens inside the job."""

        async def back(orig_host, orig_port):
            port = listen_port or listener.get_port()
            _, peer = await self.connection.create_connection(
                lambda: Forwarder(self), listen_host, port, orig_host, orig_port
            )
            return Forwarder(self, peer)

        try:
            listener = await (await self.job.get()).create_server(back, listen_host, listen_port)
        except (OSError, asyncssh.Error):
            return False
        return listener or False


class Gateway:
    """What is common to all clients."""

    def __init__(self, settings):
        self.settings = settings
        self.metrics = Metrics()
        self.door = Door(settings.limits)
        self.hub = Hub(settings)
        self.expected = {}  # (address, port) of the sender -> (number, address) of the client
        self.gates = set()
        self.busy = collections.Counter()  # user -> ways into jobs
        self.clients = 0
        self.trusted = {pwd.getpwnam(user).pw_uid for user in settings.proxy_users}
        self.metrics.gauge("sshgate_sessions", lambda: sum(self.busy.values()))
        self.metrics.gauge("sshgate_users", lambda: len(self.busy))
        self.metrics.gauge("sshgate_connections", lambda: len(self.gates))
        self.metrics.gauge("sshgate_unauthenticated", self.door.unauthenticated)
        self.metrics.gauge("process_resident_memory_bytes", resident_bytes)
        self.options = None

    async def run(self):
        settings = self.settings
        key = asyncssh.read_private_key(settings.host_key)
        self.options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: Gate(self),
            server_host_keys=[key],
            server_version="OpenSSH_10.0_sshgate",  # see Channel
            login_timeout=settings.limits.login_seconds,
            keepalive_interval=30,
            keepalive_count_max=3,
            compression_algs=["none"],
            encryption_algs=CIPHERS,
            mac_algs=MACS,
            public_key_auth=False,
            gss_host=None,
            agent_forwarding=True,
            x11_forwarding=False,
            allow_scp=False,
        )
        listener = socket.create_server((settings.address, settings.port), backlog=512)
        listener.setblocking(False)
        metrics = await asyncio.start_server(self.show_metrics, settings.address, settings.metrics_port)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGINT"):
            loop.add_signal_handler(getattr(signal, name), stop.set)
        say("ready", fingerprint=key.get_fingerprint())
        tell_systemd("READY=1")
        accepting = asyncio.create_task(self.accept(listener))
        await stop.wait()
        accepting.cancel()
        listener.close()
        metrics.close()
        for gate in list(self.gates):
            gate.end("stop", "the gateway stops; connect again in a moment")
        await asyncio.sleep(0.2)  # for what was just written

    def full(self, user):
        """Return why ``user`` cannot have one more connection, or ``None``."""
        mine = sum(gate.user == user for gate in self.gates)
        if mine >= self.settings.limits.sessions_per_user:
            return f"you have {mine} connections already; close some"
        if len(self.gates) >= self.settings.limits.sessions:
            return "there are too many connections; try again later"
        return None

    async def accept(self, listener):
        loop, clients = asyncio.get_running_loop(), set()
        while True:
            try:
                sender, peer = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor left
                say("accept", error=str(error))
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self.serve(sender, peer))
            clients.add(task)
            task.add_done_callback(clients.discard)

    async def serve(self, sender, peer):
        """Take one connection until its client has signed in; then it lives by itself."""
        handed_over = False
        task: Any = asyncio.current_task()
        try:
            sender.setblocking(False)
            address = await asyncio.wait_for(self.client_address(sender, peer), 5)
            source = network(address)
            if self.door.is_crowded(source):
                self.metrics.count("sshgate_refused_total", reason="unauthenticated_per_address")
                return
            self.clients += 1
            self.expected[peer] = (self.clients, address)
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handed_over = True
            with self.door.entered(source, task.cancel):
                await asyncssh.run_server(sender, options=self.options)
        except asyncio.CancelledError:
            self.metrics.count("sshgate_refused_total", reason="unauthenticated")
            raise
        except (OSError, ValueError, asyncssh.Error, asyncio.TimeoutError) as error:  # noqa: UP041
            if not handed_over:
                say("refused", error=str(error))
                self.metrics.count("sshgate_refused_total", reason="sender")
        finally:
            self.expected.pop(peer, None)
            if not handed_over:
                sender.close()

    async def client_address(self, sender, peer):
        """Return the address of the client that the front door passes on. Nobody else is believed."""
        table = Path("/proc/net/tcp").read_text()
        if owner(table, peer, sender.getsockname()) not in self.trusted:
            raise ValueError("a connection that is not from the front door")

        async def read(size):
            found = b""
            while len(found) < size:
                if not (chunk := await asyncio.get_running_loop().sock_recv(sender, size - len(found))):
                    raise ValueError("a connection without a header")
                found += chunk
            return found

        head = await read(16)
        return proxied_address(head, await read(min(int.from_bytes(head[14:], "big"), 4096))) or peer[0]

    async def show_metrics(self, reader, writer):
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            found = head.startswith(b"GET /metrics ")
            content = self.metrics.text().encode() if found else b""
            status = "200 OK" if found else "404 Not Found"
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n"
                f"Content-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):  # noqa: UP041
            pass
        finally:
            writer.close()


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    settings = json.loads(Path(sys.argv[1]).read_text(), object_hook=lambda each: types.SimpleNamespace(**each))
    logging.basicConfig(level=logging.ERROR, format="%(name)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)  # it says what it thinks of every stranger

    async def run():
        await Gateway(settings).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
