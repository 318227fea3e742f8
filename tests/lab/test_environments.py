"""Shared environments as declared: an edit of the pillar becomes a kernel, a bad one breaks nothing."""

import copy

import pytest
import yaml

from tests.lab.browser import signed_in
from tests.lab.harness import settings
from tests.lab.hub import choose, lab_is_there, new_notebook, run_cell

DECLARED = yaml.safe_load((settings.REPOSITORY / "pillar/environments.sls").read_text())
LINK = "/opt/qhub/shared/conda/environments/global/analysis"


def declare(lab, dependencies):
    """Write what analysis consists of into the pillar, and apply it; return the state."""
    declared = copy.deepcopy(DECLARED)
    declared["environments"]["global/analysis"]["dependencies"] = dependencies
    lab.master.write("/etc/qhub/pillar/environments.sls", yaml.safe_dump(declared))
    states = lab.apply("master", ["conda_store.environments"], check=False)
    return next(state for state in states.values() if state["__id__"] == "Environments are as declared")


@pytest.fixture(scope="module")
def analysis(lab):
    """Analysis as the pillar's defaults have it, before and after: its dependencies."""
    dependencies = DECLARED["environments"]["global/analysis"]["dependencies"]
    yield dependencies
    lab.master.run(["rm", "-f", "/etc/qhub/pillar/environments.sls"])
    lab.apply("master", ["conda_store.environments"])


def build(lab):
    """Return where the current build of analysis is."""
    return lab.master.run(["readlink", LINK]).stdout.strip()


def works(lab, module, node="w1"):
    """Whether a module can be imported in analysis on a node."""
    words = [f"{LINK}/bin/python", "-c", f"import {module}"]
    return lab.node(node).run(words, user="marie", check=False).returncode == 0


def test_an_edit_of_the_pillar_is_a_kernel_and_can_be_taken_back(lab, hub, browser, analysis):
    before = build(lab)
    assert [works(lab, module) for module in ("numpy", "bokeh")] == [True, False]
    done = declare(lab, [*analysis, "bokeh"])
    assert done["result"] is True, done["comment"]
    assert list(done["changes"]) == ["environment/global/analysis"]
    assert build(lab) != before
    assert [works(lab, "bokeh", node) for node in ("master", "w1", "w2")] == [True] * 3
    assert lab.master.run(["test", "-x", f"{before}/bin/python"]).returncode == 0, "the old build is kept"
    assert declare(lab, [*analysis, "bokeh"])["changes"] == {}

    with signed_in(lab, browser, "marie") as shown:
        choose(shown, account="physics")
        lab_is_there(shown)
        new_notebook(shown, kernel="analysis (global)")
        assert run_cell(shown, "import bokeh; print('there')") == "there"
        hub.stop_server("marie")

    assert declare(lab, analysis)["result"] is True
    assert build(lab) == before, "which was there already"
    assert not works(lab, "bokeh")


def test_what_cannot_be_solved_breaks_nothing(lab, analysis):
    before = build(lab)
    done = declare(lab, [*analysis, "no-such-package-anywhere"])
    assert done["result"] is False
    assert "no-such-package-anywhere" in done["comment"]
    assert build(lab) == before
    assert works(lab, "numpy")
