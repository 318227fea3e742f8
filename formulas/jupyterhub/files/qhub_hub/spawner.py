"""A notebook server as a Slurm job: batchspawner's SlurmSpawner, which asks Slurm in the Hub's own way."""

import asyncio
import contextlib
import functools
import html
import json
import re
import time
from pathlib import Path
from urllib.parse import quote

from batchspawner import JobStatus, SlurmSpawner
from jinja2 import Environment
from jupyterhub.apihandlers import default_handlers
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.utils import url_path_join, wait_for_http_server
from qhub_jobs.limits import Offer, Refused
from qhub_jobs.people import unix_groups
from qhub_jobs.slurm import SlurmError, ask, limits, queue
from tornado import web
from traitlets import Dict, Float, Integer, Unicode

from qhub_hub.pin import pinned

# batchspawner's own lets a server set anything about itself in the Hub: the address that the Hub then goes to, even.
default_handlers[:] = [each for each in default_handlers if each[0] != r"/api/batchspawner"]

PROFILE_SHARE = 0.75  # of http_timeout: how long a profile may take before the Hub is told of it
FAILURES = {  # kind of a failure that a job reports -> what the person reads
    "ends": "Line {line} of your file {file} ends the shell that starts JupyterLab: {text}",
    "waits": "Line {line} of your file {file} does not come to an end: {text}",
    "changes": "Line {line} of your file {file} may keep JupyterLab from starting: {text}",
    "fails": "Line {line} of your file {file} raises an error when JupyterLab starts: {text}",
}
OWN_FILES = "Start without my own Python files and profile"
ADVICE = f"Correct or remove that line; until then, choose '{OWN_FILES}' in the form."

FORM = Environment(autoescape=True).from_string(Path(__file__).with_name("form.html").read_text())
NO = (None, "", "0", "false", False, 0)  # of a box that is not ticked
LOG = ".jupyterhub{}.log"  # in the person's home: what the job prints

REASONS = {
    "None": "The job is about to start",
    "Priority": "Other jobs come first",
    "Resources": "The partition is full; it is this job's turn next",
    "BeginTime": "The job is to start later",
    "Reservation": "The nodes are reserved",
    "NodeDown": "A node that it needs is down",
    "PartitionDown": "The partition is closed",
    "PartitionInactive": "The partition is closed",
    "Licenses": "All licences are in use",
}
REASON_KINDS = (
    (r"ReqNodeNotAvail.*|NodeDown.*", "The nodes it needs are not available"),
    (r"Partition.*", "The partition does not take a job like this"),
    (r"(QOS|Assoc|.*MaxSubmit).*", "You, or your account, already have as much as the limits allow"),
)


def words_for(reason):
    """Return what Slurm's reason for waiting means, and the reason itself."""
    if reason in REASONS:
        return f"{REASONS[reason]} ({reason})."
    for pattern, text in REASON_KINDS:
        if re.fullmatch(pattern, reason):
            return f"{text} ({reason})."
    return f"The job waits ({reason})."


class Said(web.HTTPError):
    """An error whose text the person reads as it is; ``markup`` is HTML that follows the text on pages."""

    def __init__(self, status, text, markup=""):
        super().__init__(status, "%s", text)
        self.jupyterhub_message = text
        if markup:
            self.jupyterhub_html_message = f"{html.escape(text)} {markup}"


class NotebookSpawner(SlurmSpawner):
    """Submits, finds and cancels jobs through qhub-jobs; all servers share one look at the queue."""

    profiles = Dict(help="What people choose from.").tag(config=True)
    first_port = Integer(63001, help="First port that servers listen on.").tag(config=True)
    last_port = Integer(65000, help="Last port that servers listen on.").tag(config=True)
    queue_interval = Float(1, help="Seconds between two looks at the queue while somebody waits.").tag(config=True)
    limits_interval = Float(30, help="Seconds for which limits are remembered.").tag(config=True)
    batchspawner_singleuser_cmd = Unicode("/opt/qhub/shared/bin/qhub-notebook").tag(config=True)

    submitted = 0.0  # when, on the monotonic clock
    job: tuple = ()  # its line of the queue
    certificate = ""  # of the server, PEM; a new one at each start
    watching: asyncio.Task | None = None  # see watch
    connected = False  # whether the watch has its connection to the server
    failure: dict | None = None  # what a starting server reported: a line of the person's files that it fails by
    cancelled = False  # whether the job is cancelled for the Hub

    # -- what is chosen -------------------------------------------------------------------------

    async def offer(self):
        """Return what the person is offered."""
        cluster = await limits.get(time.monotonic() - self.limits_interval)
        return Offer(cluster, self.profiles, self.user.name, unix_groups(self.user.name))

    async def form(self):
        """Return the form, or why there is none."""
        try:
            offer = await self.offer()
        except SlurmError as error:
            self.log.warning("No form for %s: %s", self.user.name, error)
            return notice("Slurm does not answer just now. Try again in a minute.")
        if reason := offer.reason():
            return notice(reason)
        return form(offer)

    async def checked(self, asked):
        """Return complete options, or raise what the person reads."""
        bare = {key: True for key, value in asked.items() if key == "without_own_files" and value not in NO}
        asked = {key: value for key, value in asked.items() if key != "without_own_files"}
        try:
            return (await self.offer()).checked(asked) | bare
        except Refused as refusal:
            raise Said(403, str(refusal)) from refusal
        except SlurmError as error:
            raise Said(503, f"Slurm does not answer just now ({error}). Try again in a minute.") from error

    async def from_form(self, data):
        """Return what was chosen in the form, checked."""
        return await self.checked({key: values[0] for key, values in data.items() if key != "_xsrf"})

    async def take(self, asked):
        """Keep what was chosen, checked, whatever way it came: a form, a link, the API.

        Who starts a server without choosing gets what was chosen last, or if that is not to be had any more, what
        somebody gets who never chose.
        """
        try:
            self.user_options = await self.checked(asked)
        except Said:
            if self.chosen_now():
                raise
            self.user_options = await self.checked({})

    def chosen_now(self):
        """Whether this start came with a choice; without one, the Hub takes that of the last start."""
        if not isinstance(self.handler, APIHandler):
            return True
        body = self.handler.get_json_body() or {}
        return bool(body.get("user_options") or body.keys() - {"name", "display_name", "user_options"})

    # -- the job --------------------------------------------------------------------------------

    def get_env(self):
        env = super().get_env()
        profile = self.profiles.get(self.user_options.get("profile")) or {}
        return {**env, **{name: str(value) for name, value in profile.get("environment", {}).items()}}

    def cmd_formatted_for_batch(self):
        words = [self.batchspawner_singleuser_cmd, str(self.first_port), str(self.last_port), *self.get_args()]
        return " ".join(map(quoted, words))

    def suffix(self):
        """Return what tells the job and the log of a named server from others. Names are slugs."""
        return f"-{self.name}" if self.name else ""

    async def start(self):
        """Submit the job, wait until its server reports that it serves, and return where."""
        self.ip, self.port, self.certificate = "", 0, ""
        self.failure, self.cancelled = None, False
        job = await self.submit_batch_script()
        log = f"What it printed last is in ~/{LOG.format(self.suffix())}."
        deadline = None
        while (status := await self.query_job_status()) != JobStatus.RUNNING or not self.port:
            if self.failure:
                text = FAILURES[self.failure["kind"]].format(**self.failure)
                raise Said(424, f"{text}. {ADVICE}", self.way_out())
            if status == JobStatus.NOTFOUND:
                self.clear_state()
                # 409 and 424 are no errors of the Hub, by which it counts and raises alerts.
                text = f"Job {job} ended before JupyterLab was ready: it was cancelled, or failed. {log}"
                raise Said(409 if self.cancelled else 500, text, self.way_out())
            if status == JobStatus.RUNNING and not deadline:
                deadline = time.monotonic() + self.http_timeout
            if deadline and time.monotonic() > deadline:
                text = f"JupyterLab in job {job} did not answer within {self.http_timeout} s. {log}"
                raise Said(500, text, self.way_out())
            await asyncio.sleep(self.startup_poll_interval)
        self.ip = self.job[1]
        self.db.commit()
        self.log.info("%s is at %s:%s", self._log_name, self.ip, self.port)
        return f"https://{self.ip}:{self.port}"

    def way_out(self):
        """Return a link (HTML) to the form for a start without the person's files, ``""`` if the start was one."""
        if self.user_options.get("without_own_files"):
            return ""
        url = url_path_join(self.hub.base_url, "spawn", self.user.escaped_name, quote(self.name, safe=""))
        return f'<a class="btn btn-primary" href="{html.escape(url)}#without_own_files">{OWN_FILES}</a>'

    # -- the server -----------------------------------------------------------------------------

    def get_state(self):
        return {**super().get_state(), "certificate": self.certificate}

    def load_state(self, state):
        super().load_state(state)
        self.certificate = state.get("certificate", "")

    def clear_state(self):
        super().clear_state()
        self.certificate = ""

    @property
    def server(self):
        """JupyterHub's record of the server; the Hub verifies the server by its certificate."""
        server = super().server
        if server is not None:
            server.wait_up = functools.partial(self.wait_up, server)
        return server

    @server.setter
    def server(self, server):
        SlurmSpawner.server.fset(self, server)

    async def wait_up(self, server, timeout=10, extra_path="", **_others):
        """Wait until the holder of the certificate answers; JupyterHub's own check accepts any public authority's."""
        if not self.certificate:  # started by a Hub that did not ask for one
            raise TimeoutError(f"{self._log_name} has no certificate")
        url = url_path_join(server.url, extra_path)
        return await wait_for_http_server(url, timeout, ssl_context=pinned(self.certificate))

    def start_polling(self):
        super().start_polling()
        self.watching = asyncio.create_task(self.watch())

    def stop_polling(self):
        super().stop_polling()
        self.watching = None

    async def watch(self):
        """Keep a connection to the server; without one, look at the job often, so that its end is noticed at once.

        The route of a server goes when its job is known to have ended. The server closes a connection without requests
        after an hour; then there is a new one.
        """
        this = self.watching
        address, context = (self.server.ip, self.server.port), pinned(self.certificate)
        while self.watching is this:
            with contextlib.suppress(OSError):  # also of TLS, and of time
                async with asyncio.timeout(5):
                    reader, writer = await asyncio.open_connection(*address, ssl=context)
                self.connected = True
                await reader.read()
                writer.close()
            self.connected = False
            if self.watching is this:
                await self.poll_and_notify()
                await asyncio.sleep(self.queue_interval)

    async def submit_batch_script(self):
        words = {**self.get_req_subvars(), **self.user_options, "cmd": self.cmd_formatted_for_batch()}
        words["minutes"] = max(1, round(self.user_options["time"] * 60))
        words["profile_timeout"] = round(PROFILE_SHARE * self.http_timeout)
        words["server"], words["log"] = self.suffix(), LOG.format(self.suffix())
        script = await self._get_batch_script(**words)
        answer = await ask_or_say("submit", user=self.user.name, script=script, environment=self.get_env())
        self.job_id, self.submitted = str(answer["job"]), time.monotonic()
        self.log.info("%s is job %s: %s", self._log_name, self.job_id, json.dumps(self.user_options))
        # Else a Hub that is restarted now forgets the job.
        self.orm_spawner.state = self.get_state()
        self.db.commit()
        return self.job_id

    async def query_job_status(self):
        if not self.job_id:
            return JobStatus.NOTFOUND
        patience = self.poll_interval / 2 if self.connected else self.queue_interval
        try:
            jobs = await queue.get(max(time.monotonic() - patience, self.submitted))
        except SlurmError as error:
            self.log.warning("The state of job %s is not known: %s", self.job_id, error)
            return JobStatus.UNKNOWN
        self.job = jobs.get(self.job_id, ())
        if not self.job:
            self.job_status = ""
            return JobStatus.NOTFOUND
        state, node = self.job[:2]
        self.job_status = f"{state} {node}"
        if state in ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING"):
            return JobStatus.RUNNING
        if state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"):
            return JobStatus.PENDING
        return JobStatus.NOTFOUND

    async def cancel_batch_job(self):
        self.submitted = time.monotonic()  # what the queue was before does not count
        self.cancelled = True
        if self.job_id:
            await ask_or_say("cancel", job=int(self.job_id))

    def state_gethost(self):
        return self.job[1]

    async def progress(self):
        """Tell why the job waits, whenever that is another reason."""
        told = None
        while not self.job or self.job[0] != "RUNNING":
            if self.job:
                _state, _node, _user, start, reason = self.job
                expected = f" It is expected to start at {start.replace('T', ' ')}." if start[:1].isdigit() else ""
                message = f"Job {self.job_id}: {words_for(reason)}{expected}"
                if message != told:
                    told = message
                    yield {"progress": 20, "message": message}
            await asyncio.sleep(self.queue_interval)
        yield {"progress": 60, "message": f"Job {self.job_id} runs on {self.job[1]}. JupyterLab is starting."}


def notice(text):
    """Return what stands where the form would be."""
    return f'<p class="alert alert-warning" id="no-offer">{html.escape(text)}</p>'


def quoted(word):
    """Return an argument for the shell; ``%`` and braces are no format of anything here."""
    return "'" + word.replace("'", "'\\''") + "'"


async def ask_or_say(verb, **words):
    """Ask, and if it is refused raise what the person reads."""
    try:
        return await ask(verb, **words)
    except SlurmError as error:
        raise Said(503, f"Slurm says: {error}") from error


class ReportHandler(APIHandler):
    """Accepts from a starting server its port and its certificate, or why it fails, and nothing else."""

    async def post(self):
        user, token = self.current_user, self.get_auth_token()
        spawners = getattr(user, "spawners", {}).values()
        spawner = next((each for each in spawners if token and each.api_token == token), None)
        if spawner is None or not spawner.pending == "spawn":
            raise web.HTTPError(403, "no server that is starting has this token")
        report = self.get_json_body()
        if failure := report.get("failure"):
            spawner.failure = spawner.failure or checked_failure(failure)
            self.set_status(204)
            return
        port, certificate = report.get("port"), report.get("certificate")
        if not isinstance(port, int) or not spawner.first_port <= port <= spawner.last_port:
            raise web.HTTPError(400, "not a port for servers")
        try:
            pinned(certificate)
        except (TypeError, ValueError) as error:
            raise web.HTTPError(400, "not a certificate") from error
        spawner.port, spawner.certificate = port, certificate
        self.set_status(204)


def checked_failure(failure):
    """Return the failure that a server reports, with texts of a line each, or raise an error for the server."""
    try:
        kind, line = str(failure["kind"]), int(failure["line"])
        file, text = (" ".join(str(failure[key]).split())[:300] for key in ("file", "text"))
    except (KeyError, TypeError, ValueError) as error:
        raise web.HTTPError(400, "not a failure") from error
    if kind not in FAILURES:
        raise web.HTTPError(400, "not a kind of failure")
    return {"kind": kind, "line": line, "file": file, "text": text}


default_handlers.append((r"/api/notebook", ReportHandler))


def form(offer):
    """Return the form's fields as HTML."""
    return FORM.render(profiles=offer.profiles, choices=offer.choices(), has_gpus=offer.has_gpus(), own_files=OWN_FILES)
