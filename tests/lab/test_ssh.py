"""SSH on port 8022: OpenSSH's client outside the cluster, a shell in one's own notebook job on a worker."""

import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import http.server
import os
import pty
import re
import shlex
import socket
import struct
import subprocess
import termios
import threading
import time
import types
import urllib.request

import pytest

from tests.lab import ssh
from tests.lab.harness.shell import wait_for
from tests.lab.hub import DRIVER_TOKEN, driven

# Patience that tests have, too; room for many sessions from one address.
SETTINGS: dict = {
    "recheck": 2,
    "hub_patience": 8,
    "limits": {
        "sessions_per_user": 30,
        "unauthenticated": 200,
        "unauthenticated_per_address": 60,
        "login_seconds": 20,
        "longest_delay": 2,
        "most_failures": 4,
    },
}
LIMITS = SETTINGS["limits"]
BIG, SIZE = 100 << 20, 20 << 20
DEAD = "/tmp/sshgate-1"  # what a job leaves that Slurm had to kill
WRONG = "0123456789abcdef0123456789abcdef"
OTHER_TOKEN = "token-of-another-service-of-tests"  # noqa: S105
OTHER = f"""
c.JupyterHub.services.append({{"name": "other", "api_token": "{OTHER_TOKEN}"}})
scopes = ["access:servers", "servers", "read:users"]
c.JupyterHub.load_roles.append({{"name": "other", "scopes": scopes, "services": ["other"]}})
"""


@pytest.fixture(scope="module")
def hub(lab, tmp_path_factory):
    """The Hub, with a service that may do less than the driver."""
    with driven(lab, tmp_path_factory.mktemp("hub"), OTHER) as found:
        yield found


@pytest.fixture(scope="module")
def gate(lab):
    """The gateway, with the limits of these tests."""

    def cluster(pillar):
        pillar["sshgate"] = SETTINGS
        return pillar

    with lab.pillar(cluster=cluster):
        lab.apply("master", ["sshgate"])
        yield ssh.Gateway(lab.master)
    lab.apply("master", ["sshgate"])


@pytest.fixture(scope="module")
def client(hub, gate, tmp_path_factory):
    found = ssh.Client(tmp_path_factory.mktemp("client"), gate.master, hub)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def ada(lab, hub, client):
    """Ada's notebook: the number of its job, and the machine that it runs on."""
    hub.stop_server("ada")
    for worker in lab.workers:
        worker.run(["install", "-d", "-o", "ada", "-g", "ada", DEAD])
        worker.run(["touch", "--date=yesterday", DEAD])
    begun = time.monotonic()
    hub.start_server("ada")
    print(f"\na notebook in {time.monotonic() - begun:.1f} s")
    job = hub.jobs()["ada"]
    yield types.SimpleNamespace(job=job["id"], node=lab.node(job["host"]))
    hub.stop_server("ada")
    lab.master.run(["sh", "-c", "cd /home/ada && rm -rf umask by-scp by-rsync unix.socket"])


def ended(process, timeout=60):
    """Return status and standard error of a process that ends, and not because its input does."""
    process.wait(timeout)
    return process.returncode, process.communicate()[1].decode()


def held(client, user="ada", token=None):
    """Return a client that is in the job."""
    process = client.popen(user, "echo up; exec cat", token=token)
    assert process.stdout.readline() == b"up\n", process.communicate(timeout=20)
    return process


def digest(content):
    return hashlib.sha256(content).hexdigest()


# What one does in the job


def test_a_command_runs_in_the_job_on_the_worker(client, ada):
    script = "hostname; id -un; id -u; echo $SLURM_JOB_ID; pwd; ps -o comm= -p 1; echo wrong >&2; exit 7"
    result = client.ssh("ada", script)
    expected = [ada.node.name, "ada", "20001", ada.job, "/home/ada", "systemd"]
    assert (result.returncode, result.stdout.decode().split()) == (7, expected)
    assert ada.node.name in ("w1", "w2")
    assert result.stderr == b"wrong\n", "and nothing of the gateway's own"


def test_a_job_submitted_there_does_not_inherit_what_the_notebook_asked_for(client, ada):
    submit = "sbatch -A physics -c 2 --mem-per-cpu=100 --wait --time=5 --output=inner.log --wrap 'srun env'"
    result = client.ssh("ada", f"env; {submit} && cat inner.log; rm inner.log")
    outer, _, inner = result.stdout.decode().partition("Submitted batch job")
    assert f"SLURM_JOB_ID={ada.job}" in outer.splitlines(), "a session knows where it is"
    assert "SLURM_MEM_PER_CPU=100" in inner.splitlines()
    assert "SLURM_MEM_PER_NODE" not in outer + inner


def test_slurm_counts_it_as_a_step_of_the_job(client, ada, lab):
    with client.running("ada", "echo up; exec cat") as process:
        process.stdout.readline()
        steps = lab.master.run(["squeue", "--steps", "--noheader", f"--job={ada.job}", "--format=%j %u %N"]).stdout
        assert f"ssh ada {ada.node.name}" in steps.splitlines()


def test_a_killed_command_says_so(client, ada):
    assert client.ssh("ada", "kill -TERM $$").returncode == 255
    assert client.ssh("ada", "true").returncode == 0


def test_the_group_may_write_what_is_made_and_others_may_not_read_it(client, ada, tmp_path):
    """By a command, in a terminal, through sftp; that of VS Code's server or of tmux is the same."""
    (tmp_path / "sent").write_text("")
    (tmp_path / "sent").chmod(0o666)
    client.ssh("ada", "rm -rf umask; mkdir umask; touch umask/command")
    client.ssh("ada", "touch umask/terminal", options=("-tt",))
    scp = ["scp", "-q", "-F", client.config, tmp_path / "sent", f"ada@{ssh.NAME}:umask/sent"]
    assert client.run("ada", scp).returncode == 0
    assert client.ssh("ada", "stat -c %a umask umask/*").stdout.split() == [b"770", b"660", b"660", b"660"]


@contextlib.contextmanager
def terminal(words, rows, columns, **options):
    """Run a command in a terminal; yield the process and the other end."""
    ours, theirs = pty.openpty()
    resize(theirs, rows, columns)
    # setsid makes it the terminal of what it starts.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *words], stdin=theirs, stdout=theirs, stderr=theirs, **options
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def resize(end, rows, columns):
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(end, pattern, timeout=30):
    """Read from a terminal until the pattern is there; return the match."""
    text, deadline = "", time.monotonic() + timeout
    os.set_blocking(end, False)
    while not (match := re.search(pattern, text)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{pattern} is not in {text!r}")
        with contextlib.suppress(BlockingIOError):
            text += os.read(end, 65536).decode(errors="replace")
        time.sleep(0.02)
    return match


def test_a_shell_has_a_terminal_that_follows_the_window(client, ada):
    with terminal(client.words("ada"), 30, 100, env=client.environment("ada")) as (process, end):
        read_until(end, r"\$ ")
        os.write(end, b"tty; stty size; shopt -q login_shell && echo log''in\n")
        read_until(end, r"/dev/pts/\d+\s+30 100\s+login")
        resize(end, 40, 120)
        os.write(end, b"until stty size | grep -x '40 120'; do sleep 0.1; done\n")
        read_until(end, r"[\r\n]40 120\r")
        os.write(end, b"sleep 1000\n")
        read_until(end, "sleep 1000")
        os.write(end, b"\x03echo inter''rupted\n")
        read_until(end, "interrupted")
        os.write(end, b"exit 5\n")
        assert process.wait(20) == 5


def test_a_hundred_megabytes_pass_unharmed_both_ways(client, ada):
    content = os.urandom(BIG)
    begun = time.monotonic()
    result = client.ssh("ada", "tee big | sha256sum; stat -c %s big", input=content)
    uploaded = time.monotonic()
    assert result.stdout.decode().split() == [digest(content), "-", str(BIG)]
    result = client.ssh("ada", "cat big; rm big")
    down = time.monotonic() - uploaded
    assert digest(result.stdout) == digest(content)
    print(f"\n100 MB through stdin {uploaded - begun:.1f} s, through stdout {down:.1f} s")


def test_standard_error_and_output_stay_apart_in_bulk(client, ada):
    result = client.ssh("ada", "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 1")
    assert (result.returncode, len(result.stdout), len(result.stderr)) == (1, 3000000, 2000000)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of the client's."""
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.mark.parametrize("options", [(), ("-O",)], ids=["through sftp", "as it was before"])
def test_scp_both_ways(client, ada, file, tmp_path, options):
    back, there = tmp_path / "back", f"ada@{ssh.NAME}:by-scp"
    for source, target in ((file, there), (there, back)):
        done = client.run("ada", ["scp", "-F", client.config, *options, source, target])
        assert (done.returncode, done.stderr) == (0, b"")
    assert back.read_bytes() == file.read_bytes()


def test_sftp(client, ada, file, tmp_path):
    back = tmp_path / "back"
    batch = f"put {file} by-sftp\nrename by-sftp renamed\nmkdir d\nls -l\nrmdir d\nget renamed {back}\nrm renamed\n"
    # A batch (-b) switches passwords off, unless told before.
    words = ["sftp", "-F", client.config, "-o", "BatchMode=no", "-b", "-", f"ada@{ssh.NAME}"]
    done = client.run("ada", words, input=batch.encode())
    assert (done.returncode, done.stderr) == (0, b""), done
    assert back.read_bytes() == file.read_bytes()


def test_rsync(client, ada, file, tmp_path):
    back, there = tmp_path / "back", f"ada@{ssh.NAME}:by-rsync"
    words = ["rsync", "-a", "--stats", "-e", f"ssh -F {client.config}"]
    for source, target, transferred in ((file, there, b"1"), (file, there, b"0"), (there, back, b"1")):
        done = client.run("ada", [*words, source, target])
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"regular files transferred: " + transferred in done.stdout
    assert back.read_bytes() == file.read_bytes()


# Forwarding


SERVER = """\
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page in the job")
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
print(server.server_port, flush=True)
server.serve_forever()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def page(port):
    """Return what a web server on this machine answers, ``b""`` if nothing does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:  # noqa: S310
            return answer.read()
    except OSError:
        return b""


def through_socks(port, target):
    """Return a connection to ``target``, a port in the job, through ``-D port``; ``None`` if it is refused."""
    sender = socket.create_connection(("127.0.0.1", port), 20)
    sender.sendall(b"\5\1\0" + b"\5\1\0\3\x09localhost" + struct.pack("!H", target))
    answer = sender.makefile("rb").read(12)
    if answer[:2] != b"\5\0" or answer[3:4] != b"\0":
        sender.close()
        return None
    return sender


def page_through_socks(port, target):
    with contextlib.closing(through_socks(port, target)) as sender:
        sender.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return sender.makefile("rb").read()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page of the client")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def page_of_the_client():
    """Run a web server beside the client; yield its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_forwards_lead_into_the_job_and_out_of_it(client, ada):
    """-L and -D to a server in the job, -R from the job to one of the client's; and -L to a Unix socket."""
    direct, socks, back, to_socket = (free_port() for _ in range(4))
    # Without a terminal a program that reads nothing would stay, as it does with any sshd.
    serve = f"python3 -u -c {shlex.quote(SERVER)}"
    with client.running("ada", serve, options=("-tt",)) as server, page_of_the_client() as mine:
        port = int(server.stdout.readline())
        unix = "/home/ada/unix.socket"
        options = ["-tt", "-L", f"127.0.0.1:{direct}:127.0.0.1:{port}", "-R", f"127.0.0.1:{back}:127.0.0.1:{mine}"]
        options += ["-D", f"127.0.0.1:{socks}", "-L", f"127.0.0.1:{to_socket}:{unix}", "-o", "ExitOnForwardFailure=yes"]
        listener = f"rm -f {unix}; exec socat UNIX-LISTEN:{unix},fork TCP:127.0.0.1:{port}"
        with client.running("ada", listener, options=options):
            wait_for("-L leads there", lambda: page(direct) == b"a page in the job")
            begun = time.monotonic()
            for _ in range(10):
                assert page(direct) == b"a page in the job"
            print(f"\na page through -L: {(time.monotonic() - begun) * 100:.0f} ms")
            assert page_through_socks(socks, port).endswith(b"a page in the job")
            assert through_socks(socks, 9) is None, "where nothing listens nothing answers"
            wait_for("-L to a socket", lambda: page(to_socket) == b"a page in the job")
            read = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{back}/').read().decode())"
            assert client.ssh("ada", f"python3 -c {shlex.quote(read)}").stdout == b"a page of the client\n"


def test_the_clients_agent_signs_in_the_job(client, ada, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key], check=True)
    with_agent = ["ssh-agent", "sh", "-c", f'ssh-add -q {key}; exec "$@"', "sh"]
    done = client.run("ada", [*with_agent, *client.words("ada", "ssh-add -l", options=("-A",))])
    assert done.returncode == 0, done
    assert b"mine (ED25519)" in done.stdout
    assert client.ssh("ada", "ssh-add -l").returncode == 2, "who did not ask for it has none"


# What VS Code's Remote-SSH does: a script on standard input installs a server from an archive, starts it apart from the
# connection and tells its port; the editor then talks to it through the connection's own -D.
EDITOR_SERVER = """\
import socketserver, os
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"%d: " % os.getpid() + line)
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
print(f"Extension host agent listening on {server.server_address[1]}", flush=True)
server.serve_forever()
"""
EDITOR_SCRIPT = """\
set -e
echo start==$1==
cd ~ && mkdir -p .editor-server && cd .editor-server
test -e server.py || { tar -xzf ../editor-server.tar.gz; rm ../editor-server.tar.gz; }
if ! { test -e server.pid && kill -0 $(cat server.pid) 2>/dev/null; }; then
    rm -f server.log
    nohup python3 -u server.py > server.log 2>&1 < /dev/null &
    echo $! > server.pid
fi
until grep -q listening server.log; do sleep 0.1; done
echo listeningOn==$(sed -n 's/.*listening on //p' server.log)== pid==$(cat server.pid)==
echo end
"""


@contextlib.contextmanager
def editor(client):
    """Connect as the editor does; yield the server's process id and the editor's connection to it."""
    socks = free_port()
    with client.running("ada", "bash", "-s", "x", options=("-T", "-D", f"127.0.0.1:{socks}")) as connection:
        connection.stdin.write(EDITOR_SCRIPT.encode())
        connection.stdin.flush()
        said = b"".join(iter(connection.stdout.readline, b"end\n"))
        port, pid = re.search(rb"listeningOn==(\d+)== pid==(\d+)==", said).groups()
        with contextlib.closing(through_socks(socks, int(port))) as sender:
            yield int(pid), sender.makefile("rwb")


def talk(stream, line):
    stream.write(line + b"\n")
    stream.flush()
    return stream.readline()


def test_an_editors_server_outlives_the_connection(client, ada, tmp_path):
    (tmp_path / "server.py").write_text(EDITOR_SERVER)
    archive = tmp_path / "editor-server.tar.gz"
    subprocess.run(["tar", "-C", tmp_path, "-czf", archive, "server.py"], check=True)
    scp = ["scp", "-q", "-F", client.config, archive, f"ada@{ssh.NAME}:"]
    assert client.run("ada", scp).returncode == 0
    with editor(client) as (pid, stream):
        assert talk(stream, b"hello") == b"%d: hello\n" % pid
    # The network breaks; the editor comes again, with what it has open there.
    with editor(client) as (again, stream), editor(client) as (third, second):
        assert again == third == pid, "it is still there"
        assert talk(stream, b"back") == talk(second, b"back") == b"%d: back\n" % pid
        assert client.ssh("ada", f"tr '\\0' '\\n' < /proc/{pid}/environ | grep ^SLURM_JOB_ID").stdout.decode() == (
            f"SLURM_JOB_ID={ada.job}\n"
        )
    assert client.ssh("ada", f"kill {pid}; rm -r .editor-server").returncode == 0


def test_sessions_share_a_connection(client, gate, ada, tmp_path):
    shared = ("-S", str(tmp_path / "shared"))
    before = gate.metrics()["sshgate_sessions_total"]
    with client.running("ada", options=(*shared, "-M", "-N")):
        wait_for("the connection", lambda: not client.ssh("ada", options=(*shared, "-O", "check")).returncode)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            once = functools.partial(client.ssh, "ada", options=shared)
            results = list(pool.map(once, [f"sleep 1; echo {number}; exit {number}" for number in range(5)]))
        assert [(each.returncode, each.stdout) for each in results] == [(n, b"%d\n" % n) for n in range(5)]
    assert gate.metrics()["sshgate_sessions_total"] == before + 1


# Nothing hangs, nothing is left


@pytest.mark.parametrize("program", ["cat /dev/zero", "yes"])
def test_a_reader_that_leaves_ends_what_writes(client, ada, program):
    words = ["bash", "-c", 'set -o pipefail; "$@" | sleep 2', "bash", *client.words("ada", program)]
    assert client.run("ada", words, timeout=30).returncode == 255
    wait_for("it is gone", lambda: ada.node.run(["pgrep", "-u", "ada", "-xf", program], check=False).returncode == 1)


def test_a_command_that_does_not_read_does_not_hold_its_client(client, ada):
    assert client.ssh("ada", "exec <&-; exit 4", input=os.urandom(30 << 20)).returncode == 4


def test_a_command_that_closes_its_output_still_tells_its_status(client, ada):
    assert client.ssh("ada", "exec >&- 2>&-; sleep 2; exit 6").returncode == 6


# Of the server, and the home for what people leave running.
PROCESSES_OF_A_NOTEBOOK = r"jupyter|slurm_script|qhub-sshgate-step --hold|socat .*UNIX-LISTEN:/tmp/sshgate-"


def left_behind(lab, hub, user):
    """Return what is there of somebody's connections: processes, and the keys in the job."""
    found = lab.master.run(["pgrep", "-u", user, "-a"], check=False).stdout.splitlines()
    for worker in lab.workers:
        lines = worker.run(["pgrep", "-u", user, "-a"], check=False).stdout.splitlines()
        found += [line for line in lines if not re.search(PROCESSES_OF_A_NOTEBOOK, line)]
    if notebook := hub.jobs().get(user):
        found += lab.node(notebook["host"]).run(["ls", f"/tmp/sshgate-{notebook['id']}/keys"]).stdout.split()
    return found


def test_a_client_that_is_killed_leaves_nothing_behind(client, gate, hub, ada, lab):
    with client.running("ada", "echo up; exec sleep 1000", options=("-tt",)) as process:
        assert process.stdout.readline() == b"up\r\n"
        assert left_behind(lab, hub, "ada")
    wait_for("nothing is left", lambda: not left_behind(lab, hub, "ada"))
    wait_for("no session", lambda: gate.metrics()["sshgate_sessions"] == 0)


# Who comes in


def test_a_stopped_server_is_started_and_the_client_told(client, hub):
    """Two come at once, of which sftp has to be silent."""
    hub.stop_server("marie")
    sftp = ["sftp", "-q", "-F", client.config, f"marie@{ssh.NAME}"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        silent = pool.submit(client.run, "marie", sftp, input=b"pwd\n")
        told = client.ssh("marie", "echo $SLURM_JOB_ID; exit 2")
    job = hub.jobs()["marie"]
    assert (told.returncode, told.stdout.decode()) == (2, f"{job['id']}\n"), told
    said = told.stderr.decode()
    assert said.startswith("Starting your notebook server ...\n"), said
    assert f"Job {job['id']} runs on {job['host']}" in said
    assert (silent.result().returncode, silent.result().stderr) == (0, b""), silent.result()
    assert b"/home/marie" in silent.result().stdout
    assert client.ssh("marie", "true").stderr == b"", "now it runs"


def test_a_server_that_cannot_start_says_why(client):
    result = client.ssh("guest", "true")
    assert result.returncode == 254
    assert re.search(rb"sshgate: your notebook server .*account", result.stderr), result.stderr


def expired(hub):
    token = hub.token("ada", expires_in=1)
    wait_for("it has expired", lambda: not hub.ask("GET", "user", token=token, check=False).ok)
    return token


def of_the_server(ada):
    """Return the token that Ada's notebook server has."""
    process = ada.node.run(["pgrep", "-o", "-u", "ada", "-f", "qhub-notebook"]).stdout.strip()
    environment = ada.node.read(f"/proc/{process}/environ").split("\0")
    return dict(each.split("=", 1) for each in environment if each)["JUPYTERHUB_API_TOKEN"]


def test_another_token_is_refused(client, gate, hub, ada):
    tokens = {
        "wrong": WRONG,
        "none": "",
        "hostile": "a\rX-Evil: yes",
        "expired": expired(hub),
        "another's": hub.standing_token("marie"),
        "of a service": OTHER_TOKEN,
        "of an administrator's service": DRIVER_TOKEN,
        "of a notebook server": of_the_server(ada),
        "for less": hub.token("ada", scopes=["read:users!user=ada"]),
    }
    assert len(set(tokens.values())) == len(tokens)
    addresses = {kind: client.another_address() for kind in tokens}
    with concurrent.futures.ThreadPoolExecutor(len(tokens)) as pool:
        tried = {
            kind: pool.submit(client.ssh, "ada", "true", token=token, options=addresses[kind])
            for kind, token in tokens.items()
        }
    logged = {line["address"]: line for line in gate.log() if line["event"] == "login"}
    for kind, result in tried.items():
        assert result.result().returncode == 255, kind
        assert b"Permission denied" in result.result().stderr, kind
        line = logged[addresses[kind][1]]
        assert (line["result"], line["user"]) == ("refused", "ada"), kind


def test_names_that_are_no_users_are_refused(client, gate, ada):
    names = ("root", "sshgate", "nobody-there", "-oProxyCommand=x", "#0", "A" * 300)
    addresses = [client.another_address() for _ in names]
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        tried = [
            pool.submit(client.run, "ada", ["ssh", "-F", client.config, *options, "-l", name, ssh.NAME, "true"])
            for name, options in zip(names, addresses, strict=True)
        ]
    assert [each.result().returncode for each in tried] == [255] * len(names)
    logged = {line["address"]: (line["user"], line["result"]) for line in gate.log() if line["event"] == "login"}
    for name, (_, address) in zip(names[:3], addresses, strict=False):
        assert logged[address] == (name, "refused")
    for _, address in addresses[3:]:
        assert logged.get(address, (None, "refused")) == (None, "refused"), "such a text gets nowhere"


@pytest.fixture(scope="module")
def strangers(client):
    """Connections from one address that say nothing; which of them were greeted, and when they came."""
    _, address = client.another_address()
    begun = time.monotonic()
    every = [socket.create_connection((ssh.ADDRESS, ssh.PORT), 30, (address, 0)) for _ in range(70)]
    yield [each for each in every if received(each, 8) == b"SSH-2.0-"], begun
    for each in every:
        each.close()


def received(sender, size):
    try:
        return sender.recv(size)
    except ConnectionResetError:
        return b""


def test_strangers_are_few(client, strangers, ada):
    assert len(strangers[0]) == LIMITS["unauthenticated_per_address"]
    assert client.ssh("ada", "true").returncode == 0, "others are free to come"


def test_failures_slow_down_and_then_shut_out_the_name_at_that_address(client, gate, ada):
    address, taken = client.another_address(), []
    for _ in range(LIMITS["most_failures"]):
        begun = time.monotonic()
        client.ssh("marie", "true", token=WRONG, options=address)
        taken.append(time.monotonic() - begun)
    print(f"\nfailed logins took {', '.join(f'{each:.1f}' for each in taken)} s")
    # Each one waits for those before, and for itself: 1 s, then 2 s, which is the longest.
    assert all(seconds > least for seconds, least in zip(taken, (1, 3, 4, 4), strict=True)), taken
    assert client.ssh("marie", "true", options=address).returncode == 255, "the right token comes too late"
    assert gate.metrics()['sshgate_refused_total{reason="failures"}'] >= 1
    assert client.ssh("marie", "true", options=client.another_address()).returncode == 0
    assert client.ssh("ada", "true", options=address).returncode == 0, "others at the address are not affected"


def test_the_log_knows_the_clients_address_and_no_token(client, gate, ada, lab):
    options = client.another_address()
    client.ssh("ada", "true", options=options)

    def events():
        return [line["event"] for line in gate.log() if line.get("address") == options[1]]

    wait_for("the end is in the log", lambda: events() == ["login", "session", "end"])
    for node in (lab.master, *lab.workers):
        assert client.hub.standing_token("ada") not in node.run(["journalctl", "-q", "-o", "cat", "--boot"]).stdout


NAMES_A_CLIENT = """\
import socket
s = socket.create_connection(("127.0.0.1", 8222), 10)
s.sendall(b"\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c" + bytes([10, 9, 8, 7, 1, 1, 1, 1, 0, 1, 0, 2]))
try:
    print(s.recv(8))
except ConnectionResetError:
    print(b"")
"""


def test_nobody_but_the_front_door_names_clients(client, lab, ada):
    for user, answer in (("ada", "b''\n"), ("root", "b''\n"), ("traefik", "b'SSH-2.0-'\n")):
        assert lab.master.run(["python3", "-c", NAMES_A_CLIENT], user=user).stdout == answer, user
    with pytest.raises(OSError):  # noqa: PT011 (refused, or no answer)
        socket.create_connection((ssh.ADDRESS, 8222), 3)


def test_the_gateway_may_start_one_program_as_people_and_nothing_else(lab, ada):
    listed = lab.master.run(["sudo", "-l", "-U", "sshgate"]).stdout.partition("following commands")[2]
    assert " ".join(listed.split()[2:]) == (
        "(ALL, !root) NOPASSWD: /usr/local/libexec/qhub-sshgate-run ^[A-Za-z0-9+/]{68}$"
    )
    program, key = "/usr/local/libexec/qhub-sshgate-run", "A" * 68
    for words in (
        ["-u", "root", program, key],
        ["-u", "#0", program, key],
        ["-u", "ada", program, key, "more"],
        ["-u", "ada", program],
        ["-u", "ada", program, f"{key[1:]};"],
        ["-u", "ada", program, f"{key}\n"],
        ["-u", "ada", "/usr/bin/srun", "true"],
    ):
        refused = lab.master.run(["sudo", "-n", *words], user="sshgate", check=False)
        assert refused.returncode == 1, refused
        assert "a password is required" in refused.stderr or "not allowed" in refused.stderr, refused
    # Who is none of the people has no job, and is told so.
    told = lab.master.run(["sudo", "-n", "-u", "slurm", program, key], user="sshgate", check=False)
    assert (told.returncode, told.stderr) == (1, "sshgate: only people have notebooks\n")
    told = lab.master.run(["sudo", "-n", "-u", "guest", program, key], user="sshgate", check=False)
    assert (told.returncode, told.stderr) == (1, "sshgate: you have no notebook job that runs\n")


def test_the_gateway_has_next_to_no_rights(lab, ada):
    process = lab.master.run(["systemctl", "show", "-P", "MainPID", "sshgate"]).stdout.strip()
    status = dict(line.split(":\t", 1) for line in lab.master.read(f"/proc/{process}/status").splitlines())
    uid = lab.master.run(["id", "-u", "sshgate"]).stdout.strip()
    assert status["Uid"].split() == [uid] * 4
    assert int(status["CapEff"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE"
    # sudo's: CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_AUDIT_WRITE
    assert int(status["CapBnd"], 16) == 1 << 2 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 29
    inside = ["nsenter", "-t", process, "-m", "--"]
    for path in ("/home", "/root", "/srv", "/var/lib/qhub"):
        assert lab.master.run([*inside, "ls", "-A", path], check=False).stdout == "", path
    assert lab.master.run([*inside, "touch", "/var/lib/sshgate/file"], check=False).returncode


def test_strangers_do_not_stay(strangers):
    greeted, begun = strangers
    for each in greeted:
        each.settimeout(LIMITS["login_seconds"] + 10)
        while received(each, 4096):
            pass
    assert time.monotonic() - begun > LIMITS["login_seconds"] - 1, "they had their time"


# Many


def test_fifty_sessions_at_once_and_no_more_than_ones_own(client, gate, hub, ada, lab):
    hub.start_server("marie")
    lab.master.run(["systemctl", "restart", "sshgate"])
    client.ssh("ada", "true")
    wait_for("it is out", lambda: gate.metrics()["sshgate_sessions"] == 0)
    before = gate.metrics()["process_resident_memory_bytes"]
    users = ["ada"] * LIMITS["sessions_per_user"] + ["marie"] * (50 - LIMITS["sessions_per_user"])
    begun = time.monotonic()
    clients = [client.popen(user, f"echo up; read line; echo {n} $line") for n, user in enumerate(users)]
    try:
        assert [each.stdout.readline() for each in clients] == [b"up\n"] * 50
        up = time.monotonic() - begun
        metrics = gate.metrics()
        assert (metrics["sshgate_sessions"], metrics["sshgate_users"]) == (50, 2)
        more = client.ssh("ada", "true")
        assert (more.returncode, b"you have 30 connections already" in more.stderr) == (255, True), more
        assert client.ssh("marie", "true").returncode == 0, "others are free to come"
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda each: each.communicate(b"hello\n", timeout=60)[0].decode(), clients))
    finally:
        for each in clients:
            each.kill()
            each.communicate(timeout=20)
    assert answers == [f"{number} hello\n" for number in range(50)]
    used = metrics["process_resident_memory_bytes"]
    print(f"\n50 sessions in {up:.1f} s; {before / 1e6:.0f} MB and {(used - before) / 50e6:.1f} MB for each")
    assert used < 600e6
    wait_for("all are out", lambda: gate.metrics()["sshgate_sessions"] == 0)
    wait_for("nothing is left", lambda: not left_behind(lab, hub, "ada") and not left_behind(lab, hub, "marie"))
    begun = time.monotonic()
    for _ in range(5):
        assert client.ssh("ada", "true").returncode == 0
    print(f"connection and `true`: {(time.monotonic() - begun) / 5:.2f} s")


# While a session lasts


def test_use_of_a_session_is_activity(client, hub, ada):
    def last():
        return hub.server("ada")["last_activity"]

    before = last()
    with client.running("ada", "while sleep 0.5; do echo; done"):
        wait_for("the Hub hears of it", lambda: last() > before, timeout=30)


def test_a_revoked_token_ends_its_sessions_and_no_others(client, hub, ada):
    token = hub.token("ada")
    other, process = held(client), held(client, token=token)
    hub.revoke(token)
    status, said = ended(process)
    assert (status, "sshgate: your token is not valid any more" in said) == (255, True), said
    assert other.poll() is None
    other.kill()
    other.communicate(timeout=20)


def test_a_hub_that_is_away_ends_nothing_at_once(client, hub, ada, lab):
    process = held(client)
    begun = time.monotonic()
    lab.master.run(["systemctl", "stop", "jupyterhub"])
    try:
        told = client.ssh("ada", "true")
        assert (told.returncode, b"JupyterHub does not answer" in told.stderr) == (255, True), told.stderr
        status, said = ended(process)
        assert (status, "your token cannot be checked" in said) == (255, True), said
        assert time.monotonic() - begun > SETTINGS["hub_patience"] / 2
    finally:
        hub.restart()
    assert client.ssh("ada", "echo $SLURM_JOB_ID").stdout.decode() == f"{ada.job}\n"


def test_a_restart_ends_sessions_with_a_message_and_not_the_job(client, gate, ada, lab):
    process = held(client)
    lab.master.run(["systemctl", "restart", "sshgate"])
    status, said = ended(process)
    assert (status, "sshgate: the gateway stops" in said) == (255, True), said
    # The host key is the same, and the gateway serves from the moment that systemd calls it started.
    assert client.ssh("ada", "echo $SLURM_JOB_ID").stdout.decode() == f"{ada.job}\n"


def test_who_is_removed_from_the_pillar_is_out(client, hub, lab):
    def users(pillar):
        del pillar["users"]["marie"]
        return pillar

    hub.start_server("marie")
    token = hub.standing_token("marie")
    process = held(client, "marie")
    here = ["people.source,people,jupyterhub"]  # of what orch.apply does, what ends it
    try:
        with lab.pillar(users=users):
            lab.apply("master", here)
            status, said = ended(process)
            assert (status, "sshgate: your " in said) == (255, True), said
            wait_for("her token is dead", lambda: not hub.ask("GET", "user", token=token, check=False).ok)
            wait_for("her job is gone", lambda: "marie" not in hub.jobs())
            again = client.ssh("marie", "true", token=token, options=client.another_address())
            assert (again.returncode, b"Permission denied" in again.stderr) == (255, True), again
    finally:
        del hub.standing["marie"]
        lab.apply("master", here)


def test_a_name_may_have_a_dot(client, hub, lab):
    name = "lise.meitner"

    def users(pillar):
        pillar["users"][name] = {"uid": 20012, "full_name": "Lise Meitner", "accounts": ["physics"]}
        return pillar

    try:
        with lab.pillar(users=users):
            lab.orchestrate("orch.apply")
            for node in (lab.master, *lab.workers):
                assert f":/home/{name}:" in node.run(["getent", "passwd", name]).stdout
            _, output = lab.job(name, "id -un; pwd")
            assert output.split() == [name, f"/home/{name}"]
            hub.start_server(name)
            said = client.ssh(name, "id -un; pwd; echo $SLURM_JOB_ID")
            assert said.stdout.decode().split() == [name, f"/home/{name}", hub.jobs()[name]["id"]], said
            hub.stop_server(name)
    finally:
        hub.standing.pop(name, None)
        lab.orchestrate("orch.apply")


def test_without_a_home_in_the_job_each_connection_has_one_of_its_own(client, ada):
    """As in the job of a notebook whose owner ended what is there for it."""
    holder = ["pgrep", "-u", "ada", "-f", "qhub-sshgate-step --hold"]
    ada.node.run(["kill", *ada.node.run(holder).stdout.split()])
    wait_for("it is gone", lambda: ada.node.run(holder, check=False).returncode == 1)
    result = client.ssh("ada", "echo $SLURM_JOB_ID; umask; find /tmp -maxdepth 1 -name 'sshgate*' -user ada")
    job, umask, directory = result.stdout.decode().split()
    assert (job, umask) == (ada.job, "0007")
    wait_for("it leaves nothing", lambda: ada.node.run(["test", "-e", directory], check=False).returncode)


def test_a_killed_job_ends_the_session_with_a_message(client, ada, lab):
    process = held(client)
    # What runs in a session may be killed before the sshd that would tell of it.
    ada.node.run(["sh", "-c", f"pkill -TERM -x -u ada cat && scancel {ada.job}"])
    status, said = ended(process)
    assert status == 255
    found = re.search(r"sshgate: your notebook's job ended \(Slurm's job (\d+) is (CANCELLED|COMPLETING)\)", said)
    assert found, said
    assert found[1] == ada.job
    every = (lab.master, *lab.workers)
    wait_for(
        "nothing of hers is left",
        lambda: all(node.run(["pgrep", "-u", "ada"], check=False).returncode for node in every),
    )


def test_the_next_notebook_clears_up_after_one_that_was_killed(ada):
    assert ada.node.run(["test", "-e", DEAD], check=False).returncode
