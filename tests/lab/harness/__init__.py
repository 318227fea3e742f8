"""The lab: a whole cluster in systemd containers on one machine.

It only plays the machine room: it boots bare Debian machines, and then does what an administrator
does, with the same commands. See ``python3 -m tests.lab.harness --help``. Standard library only, so
that ``make lab`` needs nothing but Debian packages.
"""
