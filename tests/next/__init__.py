"""Tests of formulas that are in no role yet (jupyterhub, sshgate): ``make test T=tests/next``."""
