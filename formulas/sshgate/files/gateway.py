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
import contextlib
import datetime
import json
import logging
import os
import pwd
import random
import re
import signal
import socket
import ssl
import sys
import time
import types
import urllib.parse
from pathlib import Path

import asyncssh
from door import TOKEN, USER, Door, Metrics, entitled, network, owner, plain, proxied_address, resident_bytes

HOST_KEY = re.compile(r"sshgate-host-key: (ssh-ed25519 [A-Za-z0-9+/]{68})")
MOST_ANSWER = 4 << 20  # bytes that are read of one answer of the Hub
ATTEMPTS = 3  # passwords on one connection
CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
]
MACS = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"]


class HubDown(Exception):
    """The Hub gave no answer that says yes or no."""


class Refused(Exception):
    """What was asked for cannot be; the message is for the user."""


def say(event, **fields):
    """Write one line of JSON to the log. Nobody gives it a token, a command or a path."""
    print(json.dumps({"event": event, **fields}), flush=True)


def tell_systemd(state):
    """Tell systemd, if it started this, what sd_notify(3) would."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), path.replace("@", "\0", 1))


# The Hub


class Hub:
    """JupyterHub's API, with the tokens of those who come: the gateway has none of its own."""

    def __init__(self, settings):
        self.url = urllib.parse.urlsplit(settings.hub_api)
        self.timeout = settings.hub_timeout
        self.tls = ssl.create_default_context() if self.url.scheme == "https" else None
        self.slots = asyncio.Semaphore(settings.hub_requests)

    async def open(self, method, path, token, body=None):
        """Send a request; return the status and the reader of the answer's body, and the writer to close."""
        port = self.url.port or (443 if self.tls else 80)
        reader, writer = await asyncio.open_connection(
            self.url.hostname, port, ssl=self.tls, limit=MOST_ANSWER, happy_eyeballs_delay=0.25
        )
        try:
            content = b"" if body is None else json.dumps(body).encode()
            # Version 1.0: the answer ends where the connection does.
            head = (
                f"{method} {self.url.path}{path} HTTP/1.0\r\nHost: {self.url.netloc}\r\nAccept: */*\r\n"
                f"Authorization: token {token}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            writer.write(head.encode() + content)
            await writer.drain()
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            while await reader.readuntil(b"\n") not in (b"\r\n", b"\n"):
                pass
        except BaseException:
            writer.close()
            raise
        return status, reader, writer

    async def ask(self, method, path, token, body=None, *, timeout=None, failures=False):
        """
        Return the status and the decoded answer (``{}`` if there is none). Raises :class:`HubDown`.

        timeout
            Seconds, if not the usual.
        failures
            Whether an answer that the Hub has failed (500 and up) is one.
        """
        timeout = timeout or self.timeout

        async def exchange():
            status, reader, writer = await self.open(method, path, token, body)
            try:
                content = await reader.read(MOST_ANSWER)
                while more := await reader.read(MOST_ANSWER - len(content)):
                    content += more
            finally:
                writer.close()
            try:
                return status, json.loads(content or b"{}")
            except ValueError:
                if status < 500:
                    raise
                return status, {}  # of a proxy that finds no Hub

        try:
            async with self.slots if not failures else contextlib.nullcontext():
                status, answer = await asyncio.wait_for(exchange(), timeout)
        except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise HubDown(f"{type(error).__name__}: {error}") from error
        except asyncio.TimeoutError as error:  # noqa: UP041 (Python 3.10's is another class)
            raise HubDown(f"no answer within {timeout} s") from error
        if (status >= 500 or status == 429) and not (failures and answer):
            raise HubDown(f"status {status}")
        return status, answer

    async def model(self, user, token):
        """Return what the Hub says of ``user``, or ``None`` if this token is not one to come in with."""
        if not (USER.fullmatch(user) and TOKEN.fullmatch(token)):
            return None
        status, answer = await self.ask("GET", "/user", token)
        return answer if status == 200 and entitled(user, answer) else None

    async def events(self, user, token):
        """Yield what the Hub tells (dictionaries) while it starts the server of ``user``."""
        try:
            status, reader, writer = await asyncio.wait_for(
                self.open("GET", f"/users/{user}/server/progress", token), self.timeout
            )
            try:
                # The Hub sends an empty line every few seconds.
                while status == 200 and (line := await asyncio.wait_for(reader.readline(), 60)):
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
            finally:
                writer.close()
        except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        except asyncio.TimeoutError:  # noqa: UP041
            return

    async def start(self, user, token, tell):
        """
        Return when ``user`` has a server that is ready; start one if there is none.

        tell
            Called with a line of text whenever there is something new.

        Raises :class:`Refused` if it cannot be, :class:`HubDown`.
        """
        told = starting = None
        refusals = 0
        try:
            while True:
                model = await self.model(user, token)
                if model is None:
                    raise Refused("your token is not valid any more")
                servers = model.get("servers") or {}
                if any(server.get("ready") for server in servers.values()):
                    return
                if told is None:
                    tell(told := "Starting your notebook server ...")
                if starting and starting.done():
                    refusals += self.refused(*starting.result(), refusals)
                    starting = None
                pending = (servers.get("") or {}).get("pending")
                if not starting and not pending:
                    # The Hub answers when the server is ready, or takes its time.
                    starting = asyncio.create_task(
                        self.ask("POST", f"/users/{user}/server", token, {}, timeout=6 * self.timeout, failures=True)
                    )
                if pending:  # what the Hub tells otherwise is of an earlier attempt
                    async for event in self.events(user, token):
                        message = str(event.get("message"))
                        if event.get("failed"):
                            raise Refused(f"your notebook server did not start: {message}")
                        if message != told:
                            tell(told := message)
                await asyncio.sleep(0.5)
        finally:
            if starting:
                starting.cancel()

    def refused(self, status, answer, before):
        """Tell whether the Hub has refused to start a server, ``before`` times already. Raises if that is final."""
        if status in (201, 202):
            return False
        if status == 403 or status >= 429 or before:
            raise Refused(f"your notebook server cannot be started: {answer.get('message', status)}")
        return True  # someone else may just have started it

    async def active(self, user, token):
        """Tell the Hub that the servers of ``user`` are in use, so that it does not cull them."""
        status, model = await self.ask("GET", "/user", token)
        ready = [name for name, server in (model.get("servers") or {}).items() if server.get("ready")]
        if status == 200 and ready:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat()
            servers = {name: {"last_activity": now} for name in ready}
            await self.ask("POST", f"/users/{user}/activity", token, {"servers": servers, "last_activity": now})


# The way into the job


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
        self.connection = self.process = None
        self.lock, self.lost = asyncio.Lock(), asyncio.Event()
        self.said = ""  # what srun and its like have said
        self.host_key = None
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
                stdin=theirs,
                stdout=theirs,
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

    async def watch(self):
        """When the connection into the job has ended, say so to the client and end theirs."""
        await self.lost.wait()
        await asyncio.wait(self.tasks[:2], timeout=10)  # for the last words of the wrapper
        said = self.said.splitlines()
        self.gate.end("job", said[-1].removeprefix("sshgate: ") if said else "the way into your notebook's job broke")

    def close(self):
        if self.connection:
            self.connection.abort()  # the wrapper sees it and ends srun, which may not see it


# One channel on both sides


class Channel(asyncssh.SSHServerChannel):
    """A client's session. What is overridden is private."""

    def _process_eow_at_openssh_dot_com_request(self, packet):
        """
        "I read no more" (``ssh host yes | head``), which asyncssh does not know: what waits for the client would wait
        for ever. OpenSSH's client says it to servers whose version begins with OpenSSH.
        """
        packet.check_end()
        if self._session is not None:
            self._session.unread()
        self._send_buf = []
        self._send_buf_len = 0
        self._flush_send_buf()
        return True

    def _process_close(self, pkttype, pktid, packet):
        """Who closes while the job does not read leaves nothing behind; asyncssh would wait for it to read."""
        super()._process_close(pkttype, pktid, packet)
        self._discard_recv()

    _packet_handlers = {
        **asyncssh.SSHServerChannel._packet_handlers,
        asyncssh.constants.MSG_CHANNEL_CLOSE: _process_close,
    }


class Down(asyncssh.SSHClientSession):
    """From the job to the client."""

    def __init__(self, up):
        self.up, self.finish = up, None

    def connection_made(self, chan):
        self.up.inner = chan

    def data_received(self, data, datatype):
        self.up.gate.active = True
        if not self.up.deaf:
            self.up.chan.write(data, datatype)

    def eof_received(self):
        # Not at once: an OpenSSH client that has sent its own EOF would close the channel, and the exit status, which
        # the job's sshd sends next, would find nobody.
        if not self.up.eof:
            asyncio.get_running_loop().call_later(0.5, self.pass_eof)
        return True

    def pass_eof(self):
        if self.up.alive and self.finish is None:
            self.up.chan.write_eof()

    def pause_writing(self):
        self.up.chan.pause_reading()

    def resume_writing(self):
        self.up.chan.resume_reading()

    def exit_status_received(self, status):
        self.finish = lambda: self.up.chan.exit(status)

    def exit_signal_received(self, signal, core_dumped, msg, lang):
        self.finish = lambda: self.up.chan.exit_with_signal(signal, core_dumped, msg, lang)

    def connection_lost(self, exc):
        if self.finish:
            self.finish()
        elif exc is None:
            self.up.chan.close()
        # else the job is gone, of which the client is told


class Up(asyncssh.SSHServerSession):
    """From the client to the job."""

    def __init__(self, gate):
        self.gate = gate
        self.chan = self.inner = None
        self.early = []  # what the client has said before the channel in the job was open
        self.terminal = {}
        self.alive, self.deaf, self.eof = True, False, False

    def connection_made(self, chan):
        self.chan = chan

    def pty_requested(self, term_type, term_size, term_modes):
        self.terminal = {"term_type": term_type, "term_size": term_size, "term_modes": term_modes}
        return True

    def accepted(self, *_):
        """Let the sshd in the job decide."""
        return True

    shell_requested = exec_requested = subsystem_requested = accepted

    def session_started(self):
        self.gate.spawn(self.start())

    async def start(self):
        chan = self.chan
        # asyncssh resumes reading when this session has started, so it is only here that it can be stopped.
        chan.pause_reading()
        kind = "subsystem" if chan.get_subsystem() else "command" if chan.get_command() is not None else "shell"
        self.gate.gateway.metrics.count("sshgate_channels_total", kind=kind)

        def tell(line):
            if kind != "subsystem":
                chan.write_stderr(line.encode() + (b"\r\n" if self.terminal else b"\n"))

        try:
            connection = await self.gate.job.get(tell)
            connection._agent_forward_path = chan.get_agent_path()  # private: there is no way to say it for one session
            await connection.create_session(
                lambda: Down(self),
                chan.get_command(),
                subsystem=chan.get_subsystem(),
                env=dict(chan.get_environment()),
                request_pty="force" if self.terminal else False,
                **self.terminal,
                encoding=None,
            )
        except (OSError, asyncssh.Error) as error:
            if self.alive:
                chan.write_stderr(f"{getattr(error, 'reason', error)}\r\n".encode())
                chan.exit(254)
            return
        if not self.alive:
            self.inner.close()
            return
        early, self.early = self.early, None
        for call in early:
            self.send(*call)
        chan.resume_reading()

    def send(self, name, *arguments):
        if self.early is not None:
            self.early.append((name, *arguments))
        else:
            with contextlib.suppress(OSError):  # it is closed
                getattr(self.inner, name)(*arguments)

    def data_received(self, data, datatype):
        self.gate.active = True
        self.send("write", data)

    def eof_received(self):
        self.eof = True
        self.send("write_eof")
        return True

    def terminal_size_changed(self, width, height, pixwidth, pixheight):
        self.send("change_terminal_size", width, height, pixwidth, pixheight)

    def signal_received(self, signal):
        self.send("send_signal", signal)

    def break_received(self, msec):
        self.send("send_break", msec)
        return True

    def unread(self):
        """The client reads no more: nor does the gateway, and the sshd in the job is told, which ends what writes."""
        self.deaf = True
        self.send("_send_request", b"eow@openssh.com")  # private
        self.send("resume_reading")

    def pause_writing(self):
        if self.inner:
            self.inner.pause_reading()

    def resume_writing(self):
        if self.inner:
            self.inner.resume_reading()

    def connection_lost(self, exc):
        self.alive = False
        if self.inner:
            self.inner.close()


class Forwarder(asyncssh.SSHForwarder):
    """One end of a forwarded connection."""

    def __init__(self, gate, peer=None):
        super().__init__(peer)
        self.gate = gate

    def data_received(self, data, datatype=None):
        self.gate.active = True
        super().data_received(data, datatype)


# One client


class Gate(asyncssh.SSHServer):
    """One client's connection."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.job = self.user = self.token = self.connection = self.ended = None
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
        door, metrics, source = self.gateway.door, self.gateway.metrics, network(self.address)
        name = username if USER.fullmatch(username) else None
        who = {"client": self.client, "address": self.address, "user": name}
        await asyncio.sleep(door.by_address.delay(source))
        try:
            known = name and self.known(name) and await self.gateway.hub.model(name, password)
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
        door.by_address.add(source)
        door.by_name.add(name)
        await asyncio.sleep(max(door.by_name.delay(name), door.by_address.delay(source)))
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
        self.metrics.gauge("sshgate_unauthenticated", lambda: sum(self.door.waiting.values()))
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
        try:
            sender.setblocking(False)
            address = await asyncio.wait_for(self.client_address(sender, peer), 5)
            source = network(address)
            if reason := self.door.refusal(source):
                self.metrics.count("sshgate_refused_total", reason=reason)
                return
            self.clients += 1
            self.expected[peer] = (self.clients, address)
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handed_over = True
            with self.door.entered(source):
                await asyncssh.run_server(sender, options=self.options)
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
