"""Run the lab: ``python3 -m tests.lab.harness up | down | status | shell NODE [COMMAND]``."""

import argparse
import os
import shutil
import sys

from . import lab, settings
from .shell import CommandFailed


def main():
    parser = argparse.ArgumentParser(prog="lab", description="A whole cluster in containers on this machine.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("up", help="build and start it; prints how to use it")
    actions.add_parser("down", help="stop it and remove all it made, but for the caches")
    actions.add_parser("status", help="what runs")
    shell = actions.add_parser("shell", help="run a command on a machine, or a shell")
    shell.add_argument("node")
    shell.add_argument("command", nargs="?", help="for /bin/sh; the status is the command's own")
    arguments = parser.parse_args()

    if os.geteuid():
        parser.exit(1, "lab: run me as root\n")
    tools = ("mmdebstrap", "systemd-nspawn", "ip", "nft", "nsenter", "setsid")
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        parser.exit(1, f"lab: no {', '.join(missing)} here: apt-get install {' '.join(settings.HOST_PACKAGES)}\n")
    try:
        if arguments.action == "up":
            lab.up()
            print(lab.summary())
        elif arguments.action == "down":
            lab.down()
        elif arguments.action == "status":
            print(lab.status())
        else:
            words = ["/bin/sh", "-c", arguments.command] if arguments.command else ["/bin/bash", "-l"]
            command = lab.node(arguments.node).command(words)
            os.execvp(command[0], command)
    except (CommandFailed, RuntimeError, TimeoutError) as error:
        sys.exit(f"lab: {error}")


if __name__ == "__main__":
    main()
