"""conda_store_env against a real conda-store. Test mode is asked first: it must say just what is changed then."""

import json
import secrets
import stat
import threading
import time

import pytest

from tests.functional.channel import Channels
from tests.functional.conda_store import HERE, SHARED
from tests.functional.modules import Modules
from tests.lab.harness.shell import wait_for

OPTIONS = {"settings": {"conda_included_packages": [], "build_artifacts": ["LOCKFILE"]}}


class Site:
    """conda-store as an administrator has it: declarations of one namespace go in, what is there comes out."""

    def __init__(self, machine, channels, directory):
        self.machine, self.channels = machine, channels
        self.connection = {"url": machine.url, "token": machine.token, "ca": str(machine.ca), "timeout": 60}
        self.modules = Modules("conda_store_env", directory, conda_store_env=self.connection)
        self.space = None

    def declaration(self, environments, **namespace):
        """Return a declaration of environments in this test's namespace, ``{name: [packages] or fields}``."""
        told = {
            f"{self.space}/{name}": {"channels": [self.channels.tiny], "dependencies": entry}
            if isinstance(entry, list)
            else entry
            for name, entry in environments.items()
        }
        return {**OPTIONS, **told, "namespaces": {self.space: namespace}}

    def locked(self, *names, **fields):
        """Return an environment of these files of the channel; it builds much faster than one that is solved."""
        return {"lockfile": self.channels.lockfile(*(f"{name}-0.tar.bz2" for name in names)), **fields}

    def by_hand(self, *names):
        """Build such an environment, x, as somebody does with a token; return the build."""
        lock = json.dumps(self.channels.lockfile(*(f"{name}-0.tar.bz2" for name in names)))
        body = {"namespace": self.space, "specification": lock, "is_lockfile": True, "environment_name": "x"}
        build = self.machine.ask("POST", "specification/", body).json()["data"]["build_id"]
        assert self.machine.finished(build)["status"] == "COMPLETED", self.machine.log(build)
        return build

    def state(self, environments, test=False, options=None, **namespace):
        told = {**self.declaration(environments, **namespace), **(options or {})}
        return self.modules.state("managed", "declared", environments=told, test=test)

    def apply(self, environments, **options):
        """Apply after test mode has said what would change; return the changes of the namespace's environments."""
        would = self.state(environments, test=True, **options)
        done = self.state(environments, **options)
        assert done["result"] is True, done["comment"]
        assert would["result"] is (None if done["changes"] else True)
        told = [
            {k: {f: c for f, c in v.items() if f != "packages"} for k, v in r["changes"].items()} for r in (would, done)
        ]
        assert told[0] == told[1]
        return {
            label.rpartition("/")[2]: fields for label, fields in done["changes"].items() if "environment/" in label
        }

    def quiet(self, environments, **options):
        """Assert that applying once more changes nothing, and makes no build."""
        before = self.everything()
        again = self.state(environments, **options)
        assert (again["result"], again["changes"]) == (True, {}), again["comment"]
        assert self.everything() == before

    def everything(self):
        builds = self.machine.get(f"build/?namespace={self.space}")
        return [(b["id"], b["status"], b["size"]) for b in builds], self.machine.get(
            f"environment/?namespace={self.space}"
        )

    def current(self, name="x"):
        return self.machine.get(f"environment/{self.space}/{name}/")["current_build_id"]

    def builds(self, name="x"):
        """Return ``{build: status}``, without those that are deleted."""
        rows = self.machine.get(f"build/?namespace={self.space}&name={name}")
        return {row["id"]: row["status"] for row in rows if row["size"] or row["status"] != "COMPLETED"}

    def linked(self, name="x"):
        """Return what is in the environment that people use: ``{"alpha 1.1", ...}``."""
        found = self.machine.shell(f"cat {SHARED}/environments/{self.space}/{name}/share/*.txt")
        return set(found.splitlines())

    def specification(self, build):
        return self.machine.get(f"build/{build}/")["specification"]["spec"]

    def sql(self, statement):
        return self.machine.node.run(["psql", "-XAtc", statement, "conda-store"], user="postgres").stdout


@pytest.fixture(scope="module")
def site(conda_store, tmp_path_factory):
    channels = Channels(tmp_path_factory.mktemp("channels"), HERE)
    try:
        yield Site(conda_store, channels, tmp_path_factory.mktemp("salt"))
    finally:
        channels.close()


@pytest.fixture(autouse=True)
def space(site):
    """A namespace for one test, which goes with it."""
    site.space = f"space-{secrets.token_hex(3)}"
    yield site.space
    gone = site.modules.state("namespace_absent", site.space)
    assert gone["result"] is True, gone["comment"]
    assert site.space not in [row["name"] for row in site.machine.get("namespace/")]


# -- environments ----------------------------------------------------------------------------------


def test_an_environment_is_made_changed_taken_back_and_trimmed(site, space):
    assert site.state({"x": ["beta"]}, test=True)["result"] is None
    assert space not in [row["name"] for row in site.machine.get("namespace/")]
    told: dict = {"x": {"channels": [site.channels.tiny], "dependencies": ["beta"], "description": "For all"}}
    changes = site.apply(told)
    assert changes["x"]["build"] == {"old": None, "new": "new"}
    first = site.current()
    assert site.linked() == {"alpha 1.1", "beta 2.0"}
    site.quiet(told)
    # One more package: which packages that comes to is what the server's solver says, before and after.
    more = {"x": {**told["x"], "dependencies": ["gamma", "beta"]}}
    would = site.modules.state("managed", "d", environments=site.declaration(more), solve=True, test=True)["changes"]
    assert would[f"environment/{space}/x"]["packages"] == {"old": {}, "new": {"gamma": "3.0"}}
    done = site.state(more)
    assert done["changes"] == would and done["comment"].endswith(f"x: build {site.current()}")
    second = site.current()
    assert site.linked() == {"alpha 1.1", "beta 2.0", "gamma 3.0"}
    site.quiet(more)
    # Back: the older build is taken, not built again.
    changes = site.apply(told)["x"]
    assert changes["build"] == {"old": second, "new": first}
    assert list(site.builds()) == [first, second]
    wait_for("the link is switched", lambda: site.linked() == {"alpha 1.1", "beta 2.0"}, timeout=30)
    site.quiet(told)
    # And only the current one is kept, the description changed in place.
    told["x"] |= {"keep_builds": 1, "description": "For some"}
    assert site.apply(told)["x"] == {
        "description": {"old": "For all", "new": "For some"},
        "builds": {"old": [first, second], "new": [first]},
    }
    assert list(site.builds()) == [first]
    site.quiet(told)


def test_a_build_that_fails_leaves_what_works_and_is_not_repeated(site, space):
    site.apply({"x": ["alpha"]})
    good = site.current()
    bad = site.state({"x": ["delta"]})
    assert bad["result"] is False and "missing" in bad["comment"] and "is FAILED" in bad["comment"], bad["comment"]
    assert f"environment/{space}/x" not in bad["changes"]
    assert site.current() == good and site.linked() == {"alpha 1.1"}
    builds = site.builds()
    for test in (False, True):
        again = site.state({"x": ["delta"]}, test=test)
        assert again["result"] is False and "is not built again until" in again["comment"]
        assert "missing" in again["comment"] and again["changes"] == {}
    assert site.builds() == builds
    # Whoever knows better says so; and a failing solve is told before anything is built.
    word = {"x": {"channels": [site.channels.tiny], "dependencies": ["delta"], "rebuild": "the channel is mended"}}
    would = site.modules.state("managed", "d", environments=site.declaration(word), solve=True, test=True)
    assert would["result"] is False and "cannot solve it" in would["comment"]
    site.quiet({"x": ["alpha"]})


def test_packages_from_pypi_are_out_of_reach_without_the_internet(site):
    packages = ["alpha", {"pip": ["six"]}]
    bad = site.state({"x": {"channels": [site.channels.tiny], "dependencies": packages}})
    assert bad["result"] is False, bad["comment"]
    assert "is FAILED: packages in {pip: [...]} come from the internet, which this machine" in bad["comment"]
    assert "Traceback" not in bad["comment"]


def test_what_people_made_with_options_of_pip_keeps_nothing_from_being_applied(site):
    packages = ["alpha", {"pip": ["--extra-index-url https://user:t0ken@pypi.example.org/simple"]}]
    specification = {"name": "x", "channels": [site.channels.tiny], "dependencies": packages}
    site.apply({"x": ["alpha"]})
    body = {"namespace": site.space, "specification": json.dumps(specification)}
    build = site.machine.ask("POST", "specification/", body).json()["data"]["build_id"]
    assert site.machine.finished(build)["status"] == "FAILED"
    changed = site.apply({"x": ["beta"]})
    assert site.linked() == {"alpha 1.1", "beta 2.0"}
    assert "t0ken" not in str(changed)


def test_channels_keep_their_order_and_a_word_asks_for_another_build(site):
    both = [site.channels.tiny, site.channels.second]
    told: dict[str, dict] = {name: {"channels": both, "dependencies": ["alpha"]} for name in ("x", "y")}
    site.apply(told)
    first = {name: site.current(name) for name in told}
    told["x"]["channels"] = both[::-1]
    told["y"]["rebuild"] = "2027-01"
    changes = site.apply(told)
    assert changes["x"]["channels"] == {"old": both, "new": both[::-1]}
    assert changes["y"]["rebuild"] == {"old": "", "new": "2027-01"}
    assert site.specification(site.current("x"))["channels"] == both[::-1]
    assert all(site.current(name) > build for name, build in first.items())
    site.quiet(told)
    # By hand, without a word: a build of what is there.
    build = site.modules.rebuild(f"{site.space}/x")
    assert site.machine.finished(build)["status"] == "COMPLETED" and site.current("x") == build
    site.quiet(told)


def test_an_environment_from_a_lockfile(site, tmp_path):
    file = tmp_path / "conda-lock.yml"
    file.write_text(json.dumps(site.locked("alpha-1.0")["lockfile"]))
    told = {"x": {"lockfile": str(file)}, "y": site.locked("gamma-3.0")}
    site.apply(told)
    assert site.linked("x") == {"alpha 1.0"} and site.linked("y") == {"gamma 3.0"}
    site.quiet(told)
    file.write_text(json.dumps(site.locked("alpha-1.1")["lockfile"]))
    told["y"]["rebuild"] = "once more"
    assert set(site.apply(told)) == {"x", "y"}
    assert site.linked("x") == {"alpha 1.1"}
    site.quiet(told)
    file.unlink()
    assert "cannot be read" in site.state(told)["comment"]


def test_a_pinned_build_stays_whatever_is_built(site):
    site.apply({"x": site.locked("alpha-1.0"), "y": site.locked("gamma-3.0")})
    first, foreign = site.current(), site.current("y")
    site.apply({"x": site.locked("alpha-1.1")})
    second = site.current()
    pinned = {"x": site.locked("alpha-1.1", "gamma-3.0", current_build=first)}
    assert site.apply(pinned)["x"] == {"build": {"old": second, "new": first}}
    site.quiet(pinned)
    # A later build becomes current by itself when it is complete.
    later = site.by_hand("gamma-3.0")
    assert site.current() == later
    assert site.apply(pinned)["x"] == {"build": {"old": later, "new": first}}
    # conda-store would take a build that is deleted, and one of another environment of this name.
    site.machine.ask("DELETE", f"build/{second}/")
    wait_for("the build is deleted", lambda: second not in site.builds(), timeout=30)
    for number in (second, foreign, 10**6):
        pinned["x"]["current_build"] = number
        refused = site.state(pinned)
        assert refused["result"] is False and "nothing was changed" in refused["comment"]
        assert (
            f"x.current_build: one of its builds that are complete and not deleted: {first}, {later}"
            in refused["comment"]
        )
    assert site.current() == first
    # What was deleted is built again where it is declared.
    assert site.apply({"x": site.locked("alpha-1.1")})["x"]["build"] == {"old": first, "new": "new"}


def test_what_somebody_made_by_hand_is_adopted_not_rebuilt_and_not_purged(site, space):
    site.apply({})
    build = site.machine.build(space, "x", "alpha", channels=[site.channels.tiny])
    mine = {"x": ["alpha"], "y": site.locked("gamma-3.0")}
    assert set(site.apply(mine)) == {"y"}
    assert site.current() == build
    site.quiet(mine)
    # Somebody's change of it is undone, by the build that is there.
    theirs = site.by_hand("gamma-3.0")
    assert site.apply(mine)["x"]["build"] == {"old": theirs, "new": build}
    # Nothing is removed that was not made here, nor anything when all is gone from the declaration.
    nothing = {**OPTIONS, "purge": "owned"}
    refused = site.modules.state("managed", "d", environments=nothing)
    assert refused["result"] is False and "none is declared any more" in refused["comment"]
    kept = {"x": ["alpha"]}
    assert site.apply(kept, options={"purge": "owned"}) == {"y": {"environment": {"old": "present", "new": "absent"}}}
    forced = site.modules.state("managed", "d", environments={**nothing, "force": True})
    assert forced["result"] is True and forced["changes"] == {}, forced
    assert [row["name"] for row in site.machine.get(f"environment/?namespace={space}")] == ["x"]


# -- builds that do not end ------------------------------------------------------------------------


def test_a_build_is_waited_for_to_its_deadline_and_by_the_next_run(site):
    told = {"x": site.locked("alpha-1.0")}
    site.machine.shell("systemctl kill -s STOP conda-store-worker")
    try:
        late = site.state(told, options={"timeout": 1})
        assert late["result"] is False and "is QUEUED" in late["comment"], late["comment"]
    finally:
        site.machine.shell("systemctl kill -s CONT conda-store-worker")
    assert site.state(told)["result"] is True
    assert list(site.builds().values()) == ["COMPLETED"]
    site.quiet(told)


def test_a_build_that_lost_its_worker_is_built_again(site):
    told = {"x": ["alpha"]}
    applied = threading.Thread(target=site.state, args=(told,))
    applied.start()
    wait_for("the build runs", lambda: set(site.builds().values()) == {"BUILDING"}, timeout=60)
    time.sleep(5)  # conda-store takes no build for lost before that
    site.machine.shell("systemctl kill -s KILL conda-store-worker")
    applied.join(timeout=120)
    site.machine.wait()
    done = site.state(told)
    assert done["result"] is True, done["comment"]
    assert list(site.builds().values()) == ["FAILED", "COMPLETED"]


def test_a_stuck_build_is_cancelled(site):
    told = {"x": site.locked("alpha-1.0")}
    site.apply(told)
    first, stuck = site.current(), site.by_hand("gamma-3.0")
    site.sql(f"update build set status='BUILDING', started_on=now() - interval '3 hours' where id={stuck}")  # noqa: S608
    site.machine.ask("PUT", f"environment/{site.space}/x/", {"build_id": first})
    changes = site.apply(told)
    assert changes == {"x": {f"build {stuck}": {"old": "BUILDING", "new": "CANCELED"}}}
    assert site.builds() == {first: "COMPLETED", stuck: "CANCELED"}
    site.quiet(told)


def test_a_server_that_does_not_know_its_disk_yet_is_asked_again(site):
    known = site.sql("select free_storage from conda_store_configuration").strip()
    site.apply({})
    site.sql("update conda_store_configuration set free_storage = null")
    answer = site.machine.submit(site.space, "z", "alpha", check=False)
    assert answer.status_code == 500
    soon = threading.Timer(3, site.sql, [f"update conda_store_configuration set free_storage={known}"])  # noqa: S608
    soon.start()
    done = site.state({"x": site.locked("alpha-1.0")})
    soon.join()
    assert done["result"] is True, done["comment"]
    assert len(site.builds()) == 1


def test_what_conda_store_says_against_a_build_is_passed_on(site):
    long = "n" * 230
    full = {"settings": {**OPTIONS["settings"], "storage_threshold": 10**15}}
    refused = site.state({"x": site.locked("gamma-3.0")}, options=full)
    assert refused["result"] is False and "insufficient storage space" in refused["comment"]
    normal = {"settings": {**OPTIONS["settings"], "storage_threshold": 100 * 2**20}}
    failed = site.state({"x": site.locked("gamma-3.0"), long: site.locked("alpha-1.0")}, options=normal)
    assert failed["result"] is False and "build_path too long: must be <= 255 characters" in failed["comment"]
    assert site.linked() == {"gamma 3.0"}  # the rest is done


# -- namespaces, settings, rights ------------------------------------------------------------------


def test_settings_are_part_of_what_is_built_and_do_not_leak(site, space):
    def told(**settings):
        return {"environments": {"x": {"dependencies": ["alpha"]}}, "settings": settings}

    channels = {"conda_default_channels": [site.channels.tiny]}
    top = {"settings": {**OPTIONS["settings"], "conda_default_channels": ["main"]}}
    assert (
        "conda_default_channels: only what is also in environments.settings"
        in site.state(**told(**channels))["comment"]
    )
    site.apply(**told(**channels), options=top)
    assert site.linked() == {"alpha 1.1"}
    site.quiet(**told(**channels), options=top)
    more = {**channels, "conda_included_packages": ["gamma"]}
    changes = site.apply(**told(**more), options=top)["x"]
    assert changes["dependencies"] == {"old": ["alpha"], "new": ["alpha", "gamma"]}
    site.quiet(**told(**more), options=top)
    assert site.machine.get(f"setting/{space}/")["conda_included_packages"] == ["gamma"]
    for elsewhere in ("setting/", "setting/global/"):
        settings = site.machine.get(elsewhere)
        assert settings["conda_included_packages"] == [] and settings["conda_default_channels"] == ["main"]
    # An environment's own, and what the server would refuse, which is refused before anything is written.
    own = {"dependencies": ["alpha"], "settings": {"conda_included_packages": ["beta"]}}
    changes = site.apply({"x": own}, settings=more, options=top)["x"]
    assert changes["settings.conda_included_packages"] == {"old": ["gamma"], "new": ["beta"]}
    assert changes["dependencies"]["new"] == ["alpha", "beta"]
    site.quiet({"x": own}, settings=more, options=top)
    narrow = {"settings": {**top["settings"], "conda_allowed_channels": [], "conda_required_packages": []}}
    limits = {**more, "conda_allowed_channels": ["main"], "conda_required_packages": ["python"]}
    before = site.everything()
    refused = site.state({"x": own}, settings=limits, options=narrow)["comment"]
    assert "x.channels" in refused and "not among conda_allowed_channels (main)" in refused
    assert "x.dependencies: python must be among them (conda_required_packages)" in refused
    assert site.everything() == before
    assert site.machine.get(f"setting/{space}/")["conda_required_packages"] == []
    # conda-store forgets nothing: what a namespace had is what the next of this name has.
    assert site.modules.state("namespace_absent", space)["result"] is True
    assert site.apply({"y": ["alpha"]}, options=top)["y"]["dependencies"]["new"] == ["alpha", "gamma"]


def test_namespaces_have_metadata_and_roles_and_go_when_others_refer_to_them(site, space):
    other = f"{space}-other"
    told: dict = {**OPTIONS, "namespaces": {space: {"metadata": {"who": "ada"}, "roles": {other: "editor"}}, other: {}}}

    def apply(expected):
        would = site.modules.state("managed", "d", environments=told, test=True)["changes"]
        done = site.modules.state("managed", "d", environments=told)
        assert done["result"] is True and done["changes"] == would, done
        assert done["changes"].get(f"namespace/{space}", {}) == expected

    created = {"old": "absent", "new": "present"}
    who = {"old": None, "new": "ada"}
    apply({"namespace": created, "metadata.who": who, "roles": {"old": {}, "new": {other: "developer"}}})
    apply({})
    told["namespaces"][space] = {"metadata": {"why": "physics"}, "roles": {other: "viewer", "global": "admin"}}
    roles = {"old": {other: "developer"}, "new": {other: "viewer", "global": "admin"}}
    apply({"metadata.why": {"old": None, "new": "physics"}, "roles": roles})
    assert site.machine.get(f"namespace/{space}/")["metadata_"] == {"who": "ada", "why": "physics"}
    told["namespaces"][space]["roles"] = {other: "viewer"}
    apply({"roles": {"old": roles["new"], "new": {other: "viewer"}}})
    # conda-store itself cannot delete a namespace that has a role somewhere, and keeps its name occupied.
    for _ in range(2):
        gone = site.modules.state("namespace_absent", other)
        assert gone["changes"] == {f"namespace/{other}": {"namespace": {"old": "present", "new": "absent"}}}, gone
        assert site.machine.get(f"namespace/{space}/roles") == []
        again = site.modules.state("namespace_present", other)
        assert again["result"] is True and again["changes"] == {f"namespace/{other}": {"namespace": created}}, again
    # Purging takes the empty one that is ours and no longer declared.
    del told["namespaces"][other]
    told |= {"purge": "owned"}
    del told["namespaces"][space]["roles"]
    done = site.modules.state("managed", "d", environments=told)
    assert done["changes"] == {f"namespace/{other}": {"namespace": {"old": "present", "new": "absent"}}}, done


def test_one_environment_alone(site, space):
    site.apply({})
    fields = site.locked("gamma-3.0")
    made = site.modules.state("environment_present", f"{space}/x", **fields)
    assert made["result"] is True and made["changes"], made
    assert site.modules.state("environment_present", f"{space}/x", **fields)["changes"] == {}
    gone = {f"environment/{space}/x": {"environment": {"old": "present", "new": "absent"}}}
    for test, result in ((True, None), (False, True)):
        done = site.modules.state("environment_absent", f"{space}/x", test=test)
        assert (done["result"], done["changes"]) == (result, gone)
    assert site.modules.state("environment_absent", f"{space}/x")["changes"] == {}
    # It can be made again at once: what is still being deleted would take it along.
    assert site.modules.state("environment_present", f"{space}/x", **fields)["result"] is True
    assert site.linked() == {"gamma 3.0"}


def test_a_token_of_limited_rights(site, space, tmp_path):
    site.apply({})
    file = tmp_path / "token"
    rights = {"role_bindings": {f"{space}/*": ["developer"]}, "primary_namespace": space}
    would = site.modules.state("token", str(file), test=True, **rights)
    assert would["result"] is None and not file.exists()
    made = site.modules.state("token", str(file), **rights)
    assert made["result"] is True and made["changes"] == would["changes"]
    token = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and token not in str(made)
    assert site.modules.state("token", str(file), **rights)["changes"] == {}
    body = {"namespace": space, "specification": "{name: t, channels: [x], dependencies: []}"}
    refused = site.machine.ask("POST", "specification/", {**body, "namespace": "global"}, token=token, check=False)
    assert refused.status_code == 403
    assert site.machine.ask("POST", "specification/", body, token=token, check=False).ok
    # It is replaced when it is about to end, when it is to have other rights, and when conda-store does not take it.
    renewed = site.modules.state("token", str(file), renew=400, **rights)
    assert list(renewed["changes"]) == ["expires"]
    rights["role_bindings"] = {f"{space}/*": ["viewer"]}
    assert set(site.modules.state("token", str(file), **rights)["changes"]) == {"role_bindings", "expires"}
    file.write_text("nonsense")
    assert "role_bindings" in site.modules.state("token", str(file), **rights)["changes"]
    too_much = site.modules.state("token", str(file), role_bindings={"*/*": ["king"]})
    assert too_much["result"] is False


# -- the whole -------------------------------------------------------------------------------------


def test_what_is_exported_declares_what_is_there(site, space):
    told = {
        "x": {"channels": [site.channels.tiny, site.channels.second], "dependencies": ["alpha=1.0"], "rebuild": "1"},
        "y": site.locked("gamma-3.0", description="Locked"),
    }
    settings = {"conda_included_packages": ["gamma"]}
    site.apply(told, roles={"global": "viewer"}, metadata={"who": "ada"}, settings=settings)
    exported = site.modules.export()
    assert exported[f"{space}/x"] == {**told["x"], "dependencies": ["alpha=1.0", "gamma"]}
    assert exported[f"{space}/y"]["description"] == "Locked"
    namespace = exported["namespaces"][space]
    assert namespace["roles"] == {"global": "viewer"} and namespace["metadata"] == {"who": "ada"}
    assert namespace["settings"] == settings
    assert exported["settings"]["conda_included_packages"] == []
    again = site.modules.state("managed", "d", environments=exported)
    assert (again["result"], again["changes"]) == (True, {}), again


def test_mistakes_are_refused_together_before_anything_is_written(site, space):
    told = {"x": {"dependences": ["alpha"]}, "y": {"dependencies": "alpha", "keep_builds": 0}}
    refused = site.state(told, roles={"nobody": "viewer"})
    assert refused["result"] is False and refused["changes"] == {}
    for line in (
        "nothing was changed",
        f"{space}/x.dependences: one of channels, current_build, dependencies",
        f"{space}/x: needs dependencies, a lockfile or current_build",
        f"{space}/y.dependencies[0]: a list of packages",
        f"{space}/y.keep_builds: a whole number from 1",
    ):
        assert line in refused["comment"], refused["comment"]
    refused = site.state({"x": ["alpha"]}, roles={"nobody": "viewer"})
    assert f"{space}.roles.nobody: a namespace that is there or declared" in refused["comment"]
    assert space not in [row["name"] for row in site.machine.get("namespace/")]


def test_a_conda_store_that_is_not_there_is_pending_in_test_mode_and_red_otherwise(site):
    nowhere = {**site.connection, "url": f"https://{HERE}:1/conda-store", "timeout": 1}
    for test, result in ((True, None), (False, False)):
        done = site.modules.state("managed", "d", environments={}, connection=nowhere, test=test)
        assert done["result"] is result and "did not answer within 1 s" in done["comment"]
    stranger = {**site.connection, "token": "not-this"}
    done = site.modules.state("managed", "d", environments={}, connection=stranger)
    assert done["result"] is False and "does not take Salt's token" in done["comment"]
    assert "not-this" not in str(done)
