"""OpenSSH's client, through Traefik and the gateway, in jobs of Slurm that a real Hub started."""

import concurrent.futures
import contextlib
import fcntl
import functools
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
import time

import pytest

from tests.lab.harness.shell import wait_for
from tests.next.sshgate import ADMIN_TOKEN, SERVICE_TOKEN, SETTINGS, Gateway, digest

SIZE = 100 << 20


@pytest.fixture(scope="module")
def gate():
    machine = Gateway()
    try:
        machine.start()
        yield machine
    finally:
        machine.destroy()


@pytest.fixture(scope="module")
def ada(gate):
    """The job of Ada's notebook."""
    return gate.server("ada")


def ended(process, timeout=20):
    """Return what a process said when it has ended, and its status."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


# What one does in the job


def test_a_command_runs_in_the_job_as_the_user(gate, ada):
    script = "id -un; echo $SLURM_JOB_ID; pwd; echo wrong >&2; exit 7"
    result = gate.ssh("ada", script)
    assert (result.returncode, result.stdout.decode().split()) == (7, ["ada", ada, "/home/ada"])
    assert result.stderr == b"wrong\n", "and nothing of the gateway's own"


def test_a_killed_command_says_by_which_signal(gate, ada):
    assert gate.ssh("ada", "kill -TERM $$").returncode == 255
    assert gate.ssh("ada", "true").returncode == 0


def test_only_the_users_own_programs_run_as_the_user(gate, ada):
    gate.ssh("ada", "true")
    listed = gate.node.run(["sudo", "-l", "-U", "sshgate"]).stdout.partition("following commands")[2]
    assert " ".join(listed.split()[2:]) == (
        "(ALL, !root) NOPASSWD: /usr/local/libexec/qhub-sshgate-run ^[A-Za-z0-9+/]{68}$"
    )
    key = "A" * 68
    for words in (
        ["-u", "root", "/usr/local/libexec/qhub-sshgate-run", key],
        ["-u", "ada", "/usr/local/libexec/qhub-sshgate-run", key, "more"],
        ["-u", "ada", "/usr/local/libexec/qhub-sshgate-run", f"{key[1:]};"],
        ["-u", "ada", "/usr/bin/srun", "true"],
    ):
        refused = gate.node.run(["sudo", "-n", *words], user="sshgate", check=False)
        assert refused.returncode == 1, refused
        assert "a password is required" in refused.stderr or "not allowed" in refused.stderr, refused
    # Who is none of the people has no job, and is told so.
    told = gate.node.run(
        ["sudo", "-n", "-u", "slurm", "/usr/local/libexec/qhub-sshgate-run", key], user="sshgate", check=False
    )
    assert (told.returncode, told.stderr) == (1, "sshgate: only people have notebooks\n")


@contextlib.contextmanager
def terminal(command, rows=24, columns=80):
    """Run a command in a terminal; yield the process and the other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # setsid makes it the terminal of what it starts.
    command = ["setsid", "--ctty", "--wait", *command]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def read_until(end, pattern, timeout=20):
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


def test_a_shell_has_a_terminal_that_follows_the_window(gate, ada):
    command = gate.command("ada@192.0.2.1", token=gate.standing("ada"))
    with terminal(command, 30, 100) as (process, end):
        read_until(end, r"\$ ")
        os.write(end, b"tty; stty size; shopt -q login_shell && echo log''in\n")
        read_until(end, r"/dev/pts/\d+\s+30 100\s+login")
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.write(end, b"until stty size | grep -x '40 120'; do sleep 0.1; done\n")
        read_until(end, r"[\r\n]40 120\r")
        os.write(end, b"sleep 1000\n")
        read_until(end, "sleep 1000")
        os.write(end, b"\x03echo inter''rupted\n")
        read_until(end, "interrupted")
        os.write(end, b"exit 5\n")
        assert process.wait(20) == 5


def test_a_hundred_megabytes_pass_unharmed_both_ways(gate, ada):
    content = os.urandom(SIZE)
    begun = time.monotonic()
    result = gate.ssh("ada", "tee big | sha256sum; stat -c %s big", input=content, timeout=90)
    uploaded = time.monotonic()
    assert result.stdout.decode().split() == [digest(content), "-", str(SIZE)]
    result = gate.ssh("ada", "cat big", timeout=90)
    down = time.monotonic() - uploaded
    assert digest(result.stdout) == digest(content)
    print(f"\n100 MB through stdin {uploaded - begun:.1f} s, through stdout {down:.1f} s")


def test_standard_error_and_output_stay_apart_in_bulk(gate, ada):
    result = gate.ssh("ada", "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 1")
    assert (result.returncode, len(result.stdout), len(result.stderr)) == (1, 3000000, 2000000)


@pytest.fixture(scope="module")
def file(gate, ada):
    """A file of the client's, and its checksum."""
    gate.node.run(["sh", "-c", "head -c 20000000 /dev/urandom > /root/file"])
    return "/root/file", gate.node.run(["sha256sum", "/root/file"]).stdout.split()[0]


def copied(gate, path):
    return gate.node.run(["sha256sum", path]).stdout.split()[0]


def test_scp_both_ways(gate, file):
    path, checksum = file
    for options in ((), ("-O",)):  # through sftp, and as it was before
        target = "ada@192.0.2.1"
        run = [
            gate.command(path, f"{target}:by-scp", token=gate.standing("ada"), program="scp", options=options),
            gate.command(f"{target}:by-scp", "/root/back", token=gate.standing("ada"), program="scp", options=options),
        ]
        for command in run:
            done = subprocess.run(command, capture_output=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, b"")
        assert (copied(gate, "/home/ada/by-scp"), copied(gate, "/root/back")) == (checksum, checksum)
        gate.node.run(["rm", "/home/ada/by-scp", "/root/back"])


def test_sftp(gate, file):
    path, checksum = file
    batch = f"put {path} by-sftp\nrename by-sftp renamed\nmkdir d\nls -l\nrmdir d\nget renamed /root/back\n"
    command = gate.command("ada@192.0.2.1", token=gate.standing("ada"), program="sftp", options=("-b", "-"))
    # -b switches passwords off, which come first
    command[command.index("sftp") + 1 : command.index("sftp") + 1] = ["-o", "BatchMode=no"]
    done = subprocess.run(command, input=batch.encode(), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b""), done
    assert (copied(gate, "/home/ada/renamed"), copied(gate, "/root/back")) == (checksum, checksum)


def test_rsync(gate, file):
    path, checksum = file
    for _ in range(2):
        done = gate.rsync("ada", "-a", "--stats", path, "ada@192.0.2.1:by-rsync")
        assert (done.returncode, done.stderr) == (0, b"")
    assert b"Number of regular files transferred: 0" in done.stdout
    assert copied(gate, "/home/ada/by-rsync") == checksum


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


def fetch(gate, url, *options):
    """Return what a web server answers in the client's machine."""
    return gate.node.run(["python3", "-c", FETCH, url, *options], check=False, timeout=30)


FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
SOCKS = """\
import socket, struct, sys
port, target = int(sys.argv[1]), int(sys.argv[2])
s = socket.create_connection(("127.0.0.1", port), 20)
s.sendall(b"\\5\\1\\0"); assert s.recv(2) == b"\\5\\0"
s.sendall(b"\\5\\1\\0\\3\\x09localhost" + struct.pack("!H", target)); assert s.recv(10)[1] == 0
s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
text = b""
while chunk := s.recv(4096):
    text += chunk
print(text.decode())
"""


@contextlib.contextmanager
def page_of_the_client(gate):
    """Run a web server beside the client; yield its port."""
    command = gate.node.command(["setpriv", "--pdeathsig=KILL", "python3", "-u", "-c", SERVER])
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate(timeout=10)


def test_forwards_lead_into_the_job_and_out_of_it(gate, ada):
    """-L and -D to a server in the job, -R from the job to one of the client's; and -L to a Unix socket."""
    script = f"python3 -u -c {shlex.quote(SERVER)}"
    with gate.running("ada", script) as server, page_of_the_client(gate) as mine:
        port = int(server.stdout.readline())
        unix = "/home/ada/unix.socket"
        forwards = {"-L": f"127.0.0.1:7001:127.0.0.1:{port}", "-R": f"127.0.0.1:7003:127.0.0.1:{mine}"}
        options = [word for pair in forwards.items() for word in pair]
        options += ["-D", "127.0.0.1:7002", "-L", f"127.0.0.1:7004:{unix}", "-o", "ExitOnForwardFailure=yes"]
        listener = f"rm -f {unix}; exec socat UNIX-LISTEN:{unix},fork TCP:127.0.0.1:{port}"
        with gate.running("ada", listener, options=options):
            wait_for("-L leads there", lambda: "a page" in fetch(gate, "http://127.0.0.1:7001/").stdout)
            times = []
            for _ in range(5):
                begun = time.monotonic()
                assert "a page" in fetch(gate, "http://127.0.0.1:7001/").stdout
                times.append(time.monotonic() - begun)
            answer = gate.node.run(["python3", "-c", SOCKS, "7002", str(port)])
            assert "a page in the job" in answer.stdout
            wait_for("-L to a socket", lambda: "a page" in fetch(gate, "http://127.0.0.1:7004/").stdout)
            back = gate.ssh("ada", f"python3 -c {shlex.quote(FETCH)} http://127.0.0.1:7003/")
            assert back.stdout == b"a page in the job\n", back
            refused = gate.node.run(["python3", "-c", SOCKS, "7002", "9"], check=False)
            assert refused.returncode, "where nothing listens nothing answers"
    print(f"\na page through -L, with Python's start: {min(times):.3f} s")


def test_the_clients_agent_signs_in_the_job(gate, ada):
    gate.node.run(["sh", "-c", "rm -f /root/key; ssh-keygen -q -t ed25519 -N '' -C mine -f /root/key"])
    inner = gate.command("ada@192.0.2.1", "ssh-add -l", token=gate.standing("ada"), options=("-A",))
    position = inner.index("env", inner.index("env") + 1)
    words = ["ssh-agent", "sh", "-c", 'ssh-add -q /root/key; exec "$@"', "sh"]
    done = subprocess.run([*inner[:position], *words, *inner[position:]], capture_output=True, timeout=60)
    assert done.returncode == 0, done
    assert b"mine (ED25519)" in done.stdout


def test_what_is_left_running_serves_the_next_connection(gate, ada):
    """As VS Code's Remote-SSH works: a script on standard input starts a server, a later connection forwards to it."""
    script = (
        f"cat > server.py <<'END'\n{SERVER}END\n"
        "test -e server.port && kill -0 $(cat server.pid) 2>/dev/null || {\n"
        "setsid nohup python3 -u server.py > server.port 2> server.log < /dev/null & echo $! > server.pid; }\n"
        "until test -s server.port; do sleep 0.1; done; echo port==$(cat server.port)== pid==$(cat server.pid)==\n"
    )
    first = gate.ssh("ada", "bash", options=("-T", "-D", "127.0.0.1:7010"), input=script.encode())
    assert first.returncode == 0, first
    port, pid = re.search(rb"port==(\d+)== pid==(\d+)==", first.stdout).groups()
    again = gate.ssh("ada", "bash", options=("-T",), input=script.encode())
    assert again.stdout == first.stdout, "it is still there"
    with gate.running("ada", "sleep 100", options=("-L", f"127.0.0.1:7011:127.0.0.1:{int(port)}")):
        wait_for("the page", lambda: "a page" in fetch(gate, "http://127.0.0.1:7011/").stdout)
    assert gate.ssh("ada", f"kill {int(pid)}").returncode == 0


def test_sessions_share_a_connection(gate, ada):
    shared = ("-S", "/root/shared")
    with gate.running("ada", options=(*shared, "-M", "-N")):
        wait_for("the connection", lambda: not gate.ssh("ada", options=(*shared, "-O", "check")).returncode)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            run = functools.partial(gate.ssh, "ada", options=shared)
            results = list(pool.map(run, [f"sleep 1; echo {number}; exit {number}" for number in range(5)]))
        assert [(each.returncode, each.stdout) for each in results] == [(n, b"%d\n" % n) for n in range(5)]
        assert gate.metrics()["sshgate_sessions"] == 1


# Nothing hangs


@pytest.mark.parametrize("program", ["cat /dev/zero", "yes"])
def test_a_reader_that_leaves_ends_what_writes(gate, ada, program):
    gate.node.write("/root/pipe", 'set -o pipefail; "$@" | { sleep 2; }\n')
    command = gate.command("ada@192.0.2.1", program, token=gate.standing("ada"))
    position = command.index("ssh", command.index("SSH_ASKPASS_REQUIRE=force"))
    begun = time.monotonic()
    subprocess.run(
        [*command[:position], "bash", "/root/pipe", *command[position:]],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=20,
    )
    assert time.monotonic() - begun < 10
    wait_for("it is gone", lambda: gate.node.run(["pgrep", "-u", "ada", "-xf", program], check=False).returncode == 1)


def test_a_client_that_is_killed_leaves_nothing_behind(gate, ada):
    with gate.running("ada", "echo up; exec sleep 12345", options=("-tt",)) as client:
        assert client.stdout.readline() == b"up\r\n"
        client.kill()
    gone = ("sleep 12345", "qhub-sshgate-run [A-Z]", "srun.*--job-name=ssh", "sshd-session")
    for pattern in gone:
        wait_for(pattern, lambda p=pattern: gate.node.run(["pgrep", "-f", f"^.*{p}"], check=False).returncode == 1)
    wait_for("no session", lambda: gate.metrics()["sshgate_sessions"] == 0)


def test_a_command_that_does_not_read_does_not_hold_its_client(gate, ada):
    assert gate.ssh("ada", "exec <&-; exit 4", input=os.urandom(30 << 20)).returncode == 4


def test_a_command_that_closes_its_output_still_tells_its_status(gate, ada):
    assert gate.ssh("ada", "exec >&- 2>&-; sleep 2; exit 6").returncode == 6


# Who comes in


def test_a_stopped_server_is_started_and_the_client_told(gate):
    if gate.ready("bob"):
        gate.stop_server("bob")
    result = gate.ssh("bob", "echo $SLURM_JOB_NAME; exit 2", timeout=90)
    assert result.returncode == 2, result
    assert b"Starting your notebook server" in result.stderr
    assert gate.job("bob")
    assert gate.ssh("bob", "true").stderr == b""


def test_sftp_starts_it_in_silence(gate):
    gate.stop_server("bob")
    batch = subprocess.run(
        gate.command("ada@192.0.2.1", token=gate.standing("ada"), program="sftp"), input=b"pwd\n", capture_output=True
    )
    assert batch.returncode == 0
    done = subprocess.run(
        gate.command("bob@192.0.2.1", token=gate.standing("bob"), program="sftp"),
        input=b"pwd\n",
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, b"/home/bob" in done.stdout) == (0, True)
    assert b"Starting" not in done.stderr


def test_a_server_that_cannot_start_says_why(gate):
    gate.stop_server("bob")
    gate.node.run(["scontrol", "update", "PartitionName=debug", "AllowGroups=root"])
    try:
        result = gate.ssh("bob", "true", timeout=90)
        assert result.returncode == 254
        assert b"sshgate: your notebook server" in result.stderr
    finally:
        gate.node.run(["scontrol", "update", "PartitionName=debug", "AllowGroups=ALL"])


def expired(gate):
    token = gate.token("ada", expires_in=1).value
    wait_for("it has expired", lambda: gate.hub("GET", "/user", token=token, check=False) is None)
    return token


WRONG = "0123456789abcdef0123456789abcdef"
FOREIGN = {
    "wrong": lambda gate: WRONG,
    "none": lambda gate: "",
    "hostile": lambda gate: "a\rX-Evil: yes",
    "expired": expired,
    "another's": lambda gate: gate.standing("bob"),
    "of a service": lambda gate: SERVICE_TOKEN,
    "of the administrator's service": lambda gate: ADMIN_TOKEN,
    "of a notebook server": lambda gate: gate.node.read("/home/ada/server.token").strip(),
    "for less": lambda gate: gate.token("ada", scopes=["read:users!user=ada"]).value,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_token_is_refused(gate, ada, kind):
    result = gate.ssh("ada", "true", token=FOREIGN[kind](gate) or "x", host="127.0.0.1", options=("-b", source()))
    assert result.returncode == 255
    assert b"Permission denied" in result.stderr
    last = [line for line in gate.log() if line["event"] == "login"][-1]
    assert (last["result"], last["user"]) == ("refused", "ada")


SOURCES = iter(range(2, 200))


def source():
    """An address of the client's that nobody has come from."""
    return f"127.0.0.{next(SOURCES)}"


def test_the_log_knows_the_clients_address_and_no_token(gate, ada):
    address = source()
    gate.ssh("ada", "true", host="127.0.0.1", options=("-b", address))
    assert [line["event"] for line in gate.log() if line.get("address") == address] == ["login", "session", "end"]
    text = gate.node.run(["journalctl", "-q", "-o", "cat"]).stdout
    assert gate.standing("ada") not in text


def test_names_that_are_no_users_are_refused(gate, ada):
    for name in ("root", "sshgate", "-oProxyCommand=x", "#0", "nobody-there", "A" * 300):
        options = ("-l", name, "-b", source())
        command = gate.command("127.0.0.1", "true", token=gate.standing("ada"), options=options)
        done = subprocess.run(command, capture_output=True, timeout=30)
        assert done.returncode == 255, name


def test_failures_slow_down_and_then_shut_out_their_address(gate, ada):
    address, taken = source(), []
    for _ in range(SETTINGS["limits"]["most_failures"]):
        begun = time.monotonic()
        gate.ssh("ada", "true", token=WRONG, host="127.0.0.1", options=("-b", address))
        taken.append(time.monotonic() - begun)
    assert taken[3] > taken[0] + 0.8, taken
    assert gate.ssh("ada", "true", host="127.0.0.1", options=("-b", address)).returncode == 255
    assert gate.metrics()['sshgate_refused_total{reason="failures"}'] >= 1
    begun = time.monotonic()
    good = gate.ssh("ada", "true", host="127.0.0.1", options=("-b", source()))
    assert good.returncode == 0, "the right token is not slowed down by what others do with the name"
    assert time.monotonic() - begun < 4
    print(f"\nfailed logins took {', '.join(f'{each:.1f}' for each in taken)} s")


def test_nobody_but_the_front_door_names_clients(gate, ada):
    script = (
        "import socket, struct\n"
        "s = socket.create_connection(('127.0.0.1', 8222), 10)\n"
        "s.sendall(b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c' + bytes([10, 9, 8, 7, 1, 1, 1, 1, 0, 1, 0, 2]))\n"
        "try:\n    print(s.recv(100))\nexcept ConnectionResetError:\n    print(b'')\n"
    )
    for user in ("ada", "root"):
        assert gate.node.run(["python3", "-c", script], user=user).stdout == "b''\n"
    as_traefik = gate.node.run(["python3", "-c", script], user="traefik").stdout
    assert as_traefik.startswith("b'SSH-2.0-OpenSSH"), as_traefik


def test_strangers_are_few_and_short_lived(gate, ada):
    limits = {**SETTINGS["limits"], "unauthenticated_per_address": 5, "login_seconds": 3}
    gate.configure(limits=limits)
    try:
        script = (
            "import socket, time\n"
            "all = []\n"
            "for _ in range(20):\n"
            "    all.append(socket.create_connection(('127.0.0.1', 8022), 10, ('127.0.0.250', 0)))\n"
            "def greeting(s):\n"
            "    try:\n        return s.recv(8)\n    except ConnectionResetError:\n        return b''\n"
            "print(sum(greeting(s) == b'SSH-2.0-' for s in all))\n"
            "begun = time.monotonic()\n"
            "for s in all:\n"
            "    try:\n        while s.recv(1000):\n            pass\n    except ConnectionResetError:\n        pass\n"
            "print(time.monotonic() - begun)\n"
        )
        served, seconds = gate.node.run(["python3", "-c", script], timeout=60).stdout.split()
        assert int(served) == 5
        assert float(seconds) < 6
        assert gate.ssh("ada", "true").returncode == 0
    finally:
        gate.configure()


# While a session lasts


def held(gate, user="ada", token=None):
    """Return a client that is in the job."""
    client = gate.popen(user, "echo up; exec sleep 54321", token=token)
    assert client.stdout.readline() == b"up\n"
    return client


def test_a_revoked_token_ends_its_sessions(gate, ada):
    token = gate.token("ada")
    client = held(gate, token=token.value)
    gate.hub("DELETE", f"/users/ada/tokens/{token.id}")
    begun = time.monotonic()
    status, _, err = ended(client)
    assert (status, b"token is not valid any more" in err) == (255, True), err
    assert time.monotonic() - begun < SETTINGS["recheck"] + 3


def test_a_removed_user_is_out(gate):
    gate.server("eve")
    token = gate.token("eve").value
    client = held(gate, "eve", token)
    gate.hub("DELETE", "/users/eve")
    status, _, err = ended(client)
    assert status == 255
    assert b"sshgate: " in err


def test_a_hub_that_is_away_ends_nothing_at_once(gate, ada):
    client = held(gate)
    gate.node.run(["systemctl", "stop", "hub"])
    try:
        told = gate.ssh("ada", "true")
        assert (told.returncode, b"JupyterHub does not answer" in told.stderr) == (255, True), told.stderr
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(SETTINGS["recheck"] + 1)
        status, _, err = ended(client)
        assert (status, b"your token cannot be checked" in err) == (255, True), err
    finally:
        gate.start_hub()
    assert gate.ssh("ada", "true").returncode == 0


def test_use_of_a_session_is_activity(gate, ada):
    def last():
        return gate.hub("GET", "/users/ada")["servers"][""]["last_activity"]

    before = last()
    with gate.running("ada", "while sleep 0.5; do echo; done"):
        wait_for("the Hub hears of it", lambda: last() > before, timeout=20)


def test_a_killed_job_ends_the_session_with_a_message(gate):
    job = gate.server("cat")
    client = held(gate, "cat")
    gate.node.run(["scancel", job])
    status, _, err = ended(client)
    assert status == 255
    assert b"sshgate: your notebook's job ended" in err, err
    assert re.search(rb"job %s is (CANCELLED|COMPLETING)" % job.encode(), err), err
    wait_for("its sshd is gone", lambda: gate.node.run(["pgrep", "-u", "cat", "sshd"], check=False).returncode == 1)


def test_a_restart_ends_sessions_with_a_message_and_not_the_job(gate, ada):
    client = held(gate)
    fingerprint = gate.log()[-1]
    gate.restart()
    status, _, err = ended(client)
    assert (status, b"the gateway stops" in err) == (255, True), err
    ready = [line["fingerprint"] for line in gate.log() if line["event"] == "ready"]
    assert len(set(ready)) == 1, (ready, fingerprint)
    assert gate.ssh("ada", "echo $SLURM_JOB_ID").stdout.decode().split() == [ada]


# Many


def test_a_user_has_so_many_sessions_and_no_more(gate, ada):
    gate.configure(limits={**SETTINGS["limits"], "sessions_per_user": 2})
    try:
        clients = [held(gate) for _ in range(2)]
        more = gate.ssh("ada", "true")
        assert (more.returncode, b"you have 2 connections already" in more.stderr) == (255, True), more
        gate.server("dan")
        assert gate.ssh("dan", "true").returncode == 0, "others are free to come"
        for client in clients:
            client.kill()
            client.communicate(timeout=10)
        wait_for("room", lambda: gate.metrics()["sshgate_sessions"] == 0)
        assert gate.ssh("ada", "true").returncode == 0
    finally:
        gate.configure()


def test_fifty_sessions_at_once(gate, ada):
    gate.restart()
    gate.ssh("ada", "true")
    memory = gate.metrics()["process_resident_memory_bytes"]
    begun = time.monotonic()
    clients = [gate.popen("ada", f"echo up; read line; echo {number} $line") for number in range(50)]
    try:
        assert [client.stdout.readline() for client in clients] == [b"up\n"] * 50
        up = time.monotonic() - begun

        def answer(client):
            return client.communicate(b"hello\n", timeout=60)[0].decode()

        assert gate.metrics()["sshgate_sessions"] == 50
        used = gate.metrics()["process_resident_memory_bytes"]
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(answer, clients))
    finally:
        for client in clients:
            client.kill()
    assert answers == [f"{number} hello\n" for number in range(50)]
    each = (used - memory) / 50
    print(f"\n50 sessions in {up:.1f} s; {memory / 1e6:.0f} MB and {each / 1e6:.1f} MB for each")
    assert used < 600e6
    wait_for("all are out", lambda: gate.metrics()["sshgate_sessions"] == 0)
    begun = time.monotonic()
    for _ in range(5):
        assert gate.ssh("ada", "true").returncode == 0
    print(f"connection and `true`: {(time.monotonic() - begun) / 5:.2f} s")
