"""
What checks are given: the site as its pillar describes it, and what its nodes said of themselves.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import salt.utils.dictupdate
import yaml


@dataclass(frozen=True)
class Site:
    """
    A site.

    pillar, errors
        The master's pillar; if it is not valid, what is wrong with it.
    members
        ``{id: {"address", "roles"}}`` of the nodes that are looked at.
    asleep
        The ids of members that are off on purpose, which are not looked at.
    accepted
        The ids whose minion keys are accepted.
    formulas
        Directories that formulas are in.
    reports
        Will hold ``{id: report}``, see ``reports.py``.
    notes
        What one check leaves for another.
    failed
        Checks before this one that failed.
    """

    pillar: dict
    errors: list
    members: dict
    accepted: frozenset
    formulas: list
    reports: Future = field(default_factory=Future)
    notes: dict = field(default_factory=dict)
    failed: frozenset = frozenset()
    asleep: frozenset = frozenset()

    def without(self, nodes, failed):
        """Return this site as a check sees it that comes after others."""
        members = {name: member for name, member in self.members.items() if name not in nodes}
        return replace(self, members=members, failed=frozenset(failed))

    def settings(self, formula):
        """Return a formula's settings: its defaults, and the pillar's over them."""
        path = next(path for root in self.formulas if (path := Path(root, formula, "defaults.yaml")).is_file())
        defaults = yaml.safe_load(path.read_text())["default"]
        return salt.utils.dictupdate.merge(defaults, self.pillar.get(formula) or {}, strategy="recurse")

    def reported(self):
        """Return ``{id: report}`` of the members that answered."""
        reports = self.reports.result()
        return {name: reports[name] for name in self.members if name in reports and "error" not in reports[name]}

    @property
    def workers(self):
        """The members that run jobs: ``{id: member}``."""
        return {name: member for name, member in self.members.items() if "worker" in member["roles"]}

    @property
    def master(self):
        """The master's id."""
        return self.pillar["cluster"]["master"]["id"]

    @property
    def address(self):
        """The master's address."""
        return self.pillar["cluster"]["master"]["address"]

    @property
    def public_name(self):
        """The front door's name."""
        return self.pillar["cluster"]["public_name"]

    @property
    def people_name(self):
        """The host name of people's servers, or ``*.DOMAIN``."""
        return self.pillar["cluster"]["people_name"]

    @property
    def realm(self):
        """The address of the people's realm."""
        return f"https://{self.public_name}/auth/realms/{self.pillar['realm']['name']}"
