"""
What nodes report: one call over all members, whatever they are asked.

A report is what ``facts.py`` prints with ``roles`` (the minion's grain), ``sent`` and ``received`` (by the master's
clock); or ``error`` alone, of a minion that answered with something else.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path

import salt.client
import salt.utils.network

from .ask import last_line

#: Seconds that minions have; a loaded node takes up to 13 (facts.py), and some to start Python.
PATIENCE = 20
#: Directories whose file systems must not be full; files and directories that only root or their service may read.
# fmt: off
DIRECTORIES = [
    "/", "/home", "/opt", "/opt/qhub", "/opt/qhub/shared", "/srv", "/tmp", "/var", "/var/backups",  # noqa: S108
    "/var/cache", "/var/lib", "/var/lib/mysql", "/var/lib/postgresql", "/var/lib/prometheus", "/var/lib/qhub",
    "/var/lib/slurm", "/var/log",
]
SECRETS = [
    "/var/lib/qhub/pillar/**/*", "/var/lib/qhub/ca/*.key", "/etc/qhub/tls/*.key", "/etc/qhub/page/secrets.conf",
    "/etc/*/secrets/**/*", "/etc/keycloak/*.password", "/etc/keycloak/*.secret", "/etc/salt/pki/**/*.pem",
    "/etc/slurm/slurm.key", "/etc/slurm/slurmdbd.conf", "/var/lib/sshgate/*_key", "/var/lib/traefik/acme.json",
    "/root/.ssh/id_ed25519", "/etc/ssh/ssh_host_*_key", "/etc/qhub/pillar", "/etc/salt", "/var/cache/salt",
]
# fmt: on


def gather(site, opts):
    """Let ``site.reports`` hold what the members say; if the Salt master does not answer, that as a fault."""
    exports = {name: export for name, export in site.settings("nfs")["exports"].items() if export}
    marks = {}
    try:
        marks.update(marked(exports, site.settings("nfs")["server"]["anonymous_id"]))
        reports = collect(site, opts, question(site, exports, marks))
        site.notes["left"] = {name: sorted(each.name for each in mark.iterdir()) for name, mark in marks.items()}
        site.reports.set_result(reports)
    except Exception as error:  # the check of the Salt master says it
        site.reports.set_exception(error)
    finally:
        for mark in marks.values():
            shutil.rmtree(mark, ignore_errors=True)


def marked(exports, anonymous):
    """Yield ``(name, directory)`` of a new directory in each of the directories that the master shares."""
    for name, export in exports.items():
        mark = Path(export["path"], f".qhub-doctor-{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):  # what is full or missing, its own check tells
            mark.mkdir(mode=0o700)
            # Root on a client is this.
            os.chown(mark, anonymous, anonymous)
            yield name, mark


def question(site, exports, marks):
    """Return what ``facts.py`` is asked."""
    directories = {path for export in exports.values() for path in (export["path"], export.get("mount"))}
    mounts = {name: export.get("mount") or export["path"] for name, export in exports.items()}
    return {
        "directories": sorted({*DIRECTORIES, *directories} - {None}),
        "names": sorted({site.public_name, site.master}),
        "secrets": SECRETS,
        "people": [site.pillar["cluster"]["ids"][end] for end in ("min", "max")],
        "shared": {mounts[name]: [mark.name, exports[name]["access"] == "rw"] for name, mark in marks.items()},
    }


def collect(site, opts, asked):
    """Return ``{id: report}`` of the members that answer in time."""
    client = salt.client.get_local_client(mopts=dict(opts))
    # Not on standard input, where Salt replaces each backslash with an n.
    words = ["python3", "-c", Path(__file__).with_name("facts.py").read_text(), json.dumps(asked)]
    program = {"__kwarg__": True, "cmd": words, "python_shell": False, "timeout": PATIENCE}
    connected = salt.utils.network.local_port_tcp(int(opts["publish_port"]))
    reports: dict[str, dict] = {
        name: {"error": "is not connected"}
        for name, member in site.members.items()
        if member["address"] not in connected and name != site.master
    }
    sent = time.time()
    job = client.run_job(
        list(site.members),
        ["cmd.run_all", "grains.get"],
        [[program], ["roles"]],
        tgt_type="list",
        listen=True,
        timeout=5,
    )
    deadline = time.monotonic() + PATIENCE
    while len(reports) < len(site.members) and (left := deadline - time.monotonic()) > 0:
        event = client.event.get_event(wait=min(left, 1), tag=f"salt/job/{job['jid']}/ret/")
        if event:
            reports[event["id"]] = {**report(event["return"]), "sent": sent, "received": time.time()}
    return reports


def report(answer):
    """Return the report in what a minion answered."""
    try:
        return {**json.loads(answer["cmd.run_all"]["stdout"]), "roles": answer["grains.get"]}
    except (KeyError, TypeError, ValueError):
        ran = answer.get("cmd.run_all") if isinstance(answer, dict) else None
        said = ran.get("stderr") if isinstance(ran, dict) else answer
        return {"error": last_line(str(said or answer))}
