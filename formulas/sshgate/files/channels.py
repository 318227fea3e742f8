"""What a client does on its connection, coupled one to one with the same in the job."""

import asyncio
import contextlib
from typing import Any

import asyncssh


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
        async def finish():
            # What ends a job may end this first; then the client is to hear of the job.
            if signal not in ("TERM", "KILL") or await self.up.gate.job.outlasts(5):
                self.up.chan.exit_with_signal(signal, core_dumped, msg, lang)

        self.finish = lambda: self.up.gate.spawn(finish())

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
        self.chan: Any = None
        self.inner: Any = None
        self.early: list | None = []  # what the client has said before the channel in the job was open
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
        for call in early or ():
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
