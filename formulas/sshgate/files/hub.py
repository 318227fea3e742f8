"""JupyterHub, as the SSH gateway asks it: who somebody is, and for a server of theirs."""

import asyncio
import contextlib
import datetime
import json
import ssl
import urllib.parse

from door import TOKEN, USER, entitled

MOST_ANSWER = 4 << 20  # bytes that are read of one answer of the Hub


class HubDown(Exception):
    """The Hub gave no answer that says yes or no."""


class Refused(Exception):
    """What was asked for cannot be; the message is for the user."""


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
                    status, answer = starting.result()
                    refusals += self.refused(status, answer, refusals)
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
