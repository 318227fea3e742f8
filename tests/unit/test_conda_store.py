"""conda-store: which builds go, and which kernels there are."""

import datetime
import json

import pytest

from tests.unit.load import load

LIBRARY = "formulas/conda_store/files/lib/qhub_conda"
kernels = load(f"{LIBRARY}/kernels.py", "qhub_conda_kernels")
names = load(f"{LIBRARY}/names.py", "qhub_conda_names")
retention = load(f"{LIBRARY}/retention.py", "qhub_conda_retention")
NOW = datetime.datetime(2026, 1, 31)
BUILDS = [
    (1, "COMPLETED", NOW - datetime.timedelta(days=90)),
    (2, "FAILED", NOW - datetime.timedelta(days=60)),
    (3, "COMPLETED", NOW - datetime.timedelta(days=50)),
    (4, "COMPLETED", NOW - datetime.timedelta(days=40)),
    (5, "FAILED", NOW - datetime.timedelta(days=2)),
    (6, "COMPLETED", NOW),
    (7, "BUILDING", None),
    (8, "QUEUED", None),
]


def superfluous(current=6, builds=None, failed_days=None):
    return retention.superfluous(BUILDS, current, {"builds": builds, "failed_days": failed_days}, NOW)


def test_builds_that_are_kept():
    assert superfluous() == []
    assert superfluous(builds=1) == [3, 1]
    assert superfluous(builds=0) == [4, 3, 1]
    assert superfluous(builds=9) == []
    assert superfluous(failed_days=30) == [2]
    assert superfluous(failed_days=0) == [2, 5]
    assert superfluous(builds=2, failed_days=30) == [1, 2]


def test_a_build_that_was_gone_back_to_stays():
    assert superfluous(current=1, builds=1) == [4, 3]
    assert superfluous(current=2, failed_days=1) == [5]


def environment(directory, namespace, name, build, argv=("python", "-m", "ipykernel_launcher")):
    """Make a build and the link to it, as conda-store does."""
    prefix = directory / "store" / namespace / build
    kernel = prefix / "share/jupyter/kernels/python3"
    kernel.mkdir(parents=True, exist_ok=True)
    (prefix / "bin").mkdir(exist_ok=True)
    (prefix / "bin/python").touch()
    specification = {"argv": list(argv), "display_name": "Python 3", "language": "python", "env": {"A": "b"}}
    (kernel / "kernel.json").write_text(json.dumps(specification))
    (kernel / "logo.svg").write_text("<svg/>")
    link = directory / "environments" / namespace / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.with_name(f"{name}.lock").touch()
    link.unlink(missing_ok=True)
    link.symlink_to(prefix)
    return prefix


def published(directory):
    """Return the kernels there are, and which program each starts."""
    found = directory.glob("jupyter/*/kernels/*/kernel.json")
    return {
        str(path.parent.relative_to(directory / "jupyter")): json.loads(path.read_text())["argv"][0] for path in found
    }


def test_environments_are_kernels(tmp_path):
    first = environment(tmp_path, "global", "analysis", "b1")
    environment(tmp_path, "physics", "r", "b2", argv=("/usr/bin/R", "--slave"))
    kernels.publish(tmp_path)
    assert published(tmp_path) == {
        "global/kernels/global.analysis": f"{first}/bin/python",
        "physics/kernels/physics.r": "/usr/bin/R",
    }
    place = tmp_path / "jupyter/global/kernels/global.analysis"
    assert (place / "logo.svg").exists()
    assert json.loads((place / "kernel.json").read_text())["env"]["A"] == "b"
    before = place.stat().st_ino
    kernels.publish(tmp_path)
    assert place.stat().st_ino == before, "what is as it should be is left alone"


def test_kernels_follow_their_environments(tmp_path):
    environment(tmp_path, "global", "analysis", "b1")
    gone = environment(tmp_path, "global", "gone", "b2")
    kernels.publish(tmp_path)
    second = environment(tmp_path, "global", "analysis", "b3")
    (gone / "share/jupyter/kernels/python3/kernel.json").unlink()
    kernels.publish(tmp_path)
    assert published(tmp_path) == {"global/kernels/global.analysis": f"{second}/bin/python"}
    second.rename(second.with_name("elsewhere"))
    kernels.publish(tmp_path)
    assert published(tmp_path) == {}
    assert [path.name for path in sorted((tmp_path / "environments/global").iterdir())] == ["gone", "gone.lock"]
    assert list((tmp_path / "jupyter/global/kernels").iterdir()) == []


def test_what_would_not_start_is_no_kernel(tmp_path):
    broken = environment(tmp_path, "global", "broken", "b1")
    (broken / "share/jupyter/kernels/python3/kernel.json").write_text("{")
    environment(tmp_path, "global", "empty", "b2", argv=())
    for number, content in enumerate(("[]", '{"argv": [1]}', '{"argv": ["x"], "env": 1}', "[" * 100_000)):
        odd = environment(tmp_path, "global", f"odd{number}", f"odd{number}")
        (odd / "share/jupyter/kernels/python3/kernel.json").write_text(content)
    kernels.publish(tmp_path)
    assert published(tmp_path) == {}


def test_a_kernel_with_a_file_from_elsewhere_is_not_published(tmp_path):
    (tmp_path / "private").write_text("of the worker")
    for number, link in enumerate(("logo.svg", "kernel.json")):
        file = environment(tmp_path, "marie", f"own{number}", f"b{number}") / "share/jupyter/kernels/python3" / link
        file.unlink()
        file.symlink_to(tmp_path / "private")
    directory = environment(tmp_path, "marie", "own2", "b2") / "share/jupyter/kernels"
    directory.rename(tmp_path / "kernels")
    directory.symlink_to(tmp_path / "kernels")
    kernels.publish(tmp_path)
    assert published(tmp_path) == {}


# Whom role bindings are about

ODD = ["phys.lab", "phys_lab", "c++", "a$b", "a^b", "why?", "x~=1", "ada@example.org", "ada.lovelace", "a&b"]


@pytest.mark.parametrize("name", ODD)
def test_a_binding_is_about_the_namespace_of_its_name_alone(name):
    expression = names.expression(f"{name}/*")
    for own in (name, f"{name}/analysis", f"{name}/x.y"):
        assert expression.match(own)
    others = {name.replace(each, "x") for each in name if not each.isalnum()} | {f"{name}x", f"x{name}", name[:-1]}
    for other in others - {name}:
        assert not expression.match(other), other
        assert not names.within(f"{other}/*", f"{name}/*"), other
    assert names.within(f"{name}/*", f"{name}/*")
    assert names.within(f"{name}/analysis", f"{name}/*")
    assert not names.within(f"{name}/*", f"{name}/analysis")
    assert names.within(f"{name}/*", "*/*")
    assert not names.within("*/*", f"{name}/*")
    assert names.expression("*/*").match(f"{name}/x")
    assert names.NAMESPACE.fullmatch(name)
    assert names.like(f"{name}/*") == (name.replace("_", "\\_"), "%")


@pytest.mark.parametrize("name", ["", "..", ".x", "-rf", "a/b", "a b", "a*", "a#", "a:b"])
def test_what_is_no_name_is_no_namespace(name):
    assert not names.NAMESPACE.fullmatch(name)


@pytest.mark.parametrize("binding", ["a", "a/b/c", "/x", "a/", "a b/*", "a/*\n"])
def test_what_is_no_binding_is_refused(binding):
    with pytest.raises(ValueError, match="is not NAMESPACE/NAME"):
        names.expression(binding)
