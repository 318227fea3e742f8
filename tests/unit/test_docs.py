"""README.md and docs/: they build without a warning, leave nothing out, and what they tell to type is tried."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests import commands
from tests.unit.conftest import ROOT
from tests.unit.test_pillar import qhub

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.M | re.S)
REASON = re.compile(r"<!-- not run: [^>]+ -->\n\Z")
#: Inside a line, only what is ours is looked for; what else is there are commands of Debian's and Slurm's.
OURS = ("make", "salt", "salt-call", "salt-key", "salt-run", "salt-ssh", "qhub-backup", "qhub-keycloak")
LISTED = {command for each in commands.RUN_BY.values() for command in each} | set(commands.NOT_RUN)


class Page(HTMLParser):
    """The ids of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.text = set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.ids |= {value for name, value in attributes if name == "id"}

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the pages, as ``make docs`` does; return a function from a page's name to it."""
    target = tmp_path_factory.mktemp("docs")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--fresh-env", "--builder", "html"]
    command = [Path(sys.executable).with_name("sphinx-build"), *options, ROOT / "docs", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return lambda name: Page((target / f"{name}.html").read_text())


def blocks(page):
    """Yield ``(language, text, what is before it)`` of each fenced block."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        yield found[2], found[3], text[: found.start()]


def typed(text):
    """Return the commands of a block: without comments, those over several lines as one."""
    lines = [re.split(r"\s+# ", line)[0].rstrip() for line in text.splitlines()]
    joined = re.sub(r"(\||\\)\n\s*", r"\1 ", "\n".join(lines))
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


# Complete


def test_it_builds_without_a_warning(built):
    assert "Security" in built("security").text


def keys(rule, path=()):
    """Yield the path of every key in the schema, with ``None`` for a name of the site's choice."""
    for key, each in rule.get("properties", {}).items():
        yield (*path, key)
        yield from keys(each, (*path, key))
    for each in (*rule.get("patternProperties", {}).values(), rule.get("additionalProperties")):
        if isinstance(each, dict):
            yield from keys(each, (*path, None))


def test_every_key_of_the_pillar_is_in_the_reference(built):
    ids = built("reference/pillar").ids
    found = list(keys(yaml.safe_load((ROOT / "salt/schema/pillar.yaml").read_text())))
    assert len(found) > 300
    for path in found:
        words = [key.replace("_", "-") if key else "[a-z0-9-]+" for key in path]
        # A group of keys that is the same in several places is printed once.
        places = re.compile(f"pillar-({'-'.join(words)}|(limits|conda-level-settings)-{words[-1]})")
        assert any(places.fullmatch(each) for each in ids), path


def test_every_setting_of_a_formula_is_in_the_reference(built):
    page = built("reference/formulas")
    for path in ROOT.glob("formulas/*/defaults.yaml"):
        assert f"formula-{path.parent.name.replace('_', '-')}" in page.ids
        for line in path.read_text().splitlines():
            assert line in page.text, path


def public(path):
    """Return the names of the functions that Salt's loader offers of a module."""
    tree = ast.parse(path.read_text())
    assigned = [each for each in tree.body if isinstance(each, ast.Assign)]
    offered = [ast.literal_eval(each.value) for each in assigned if ast.unparse(each.targets[0]) == "__load__"]
    defined = [each.name for each in tree.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]
    return offered[0] if offered else defined


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("modules", "_modules/*.py"),
        ("states", "_states/*.py"),
        ("runners", "salt/_runners/*.py"),
        ("runners", "salt/_runners/*/__init__.py"),
    ],
)
def test_every_function_is_in_the_reference(built, kind, pattern):
    page, paths = built(f"reference/{kind}"), list(ROOT.glob(pattern))
    assert paths
    for path in paths:
        name = path.parent.name if path.stem == "__init__" else path.stem
        assert not {f"{kind}.{name}.{function}" for function in public(path)} - page.ids


def test_every_alert_is_on_its_page(built):
    text = built("monitoring").text
    rules = [yaml.safe_load(path.read_text()) for path in ROOT.glob("formulas/prometheus/files/rules/*.yml")]
    names = {rule["alert"] for each in rules for group in each["groups"] for rule in group["rules"] if "alert" in rule}
    assert names and not {name for name in names if name not in text}


# Links


def anchors(page):
    """Return the anchors of a page, as they are made of its headings."""
    text = FENCE.sub("", page.read_text())
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", page.read_text())):
        if re.match("https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor and not anchor.startswith(("formula-", "pillar-")):  # those Sphinx knows
            assert anchor in anchors(there), target


# Commands


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name):
    text = (ROOT / name).read_text()
    languages = {language for language, _, _ in blocks(ROOT / name)}
    known = {"sh", "yaml", "python", "text"}
    assert not {each for each in languages if each not in known and not each.startswith("{")}
    outside = FENCE.sub("", text)
    assert not re.search(r"\n\n    \S", outside), "a block is fenced"


def told(page):
    """Yield every command that a page tells to type and gives no reason for not being run."""
    for language, text, before in blocks(page):
        if language == "sh" and not REASON.search(before):
            yield from typed(text)
    for span in re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text())):
        words = span.split()
        if words[0] in OURS and len(words) > 1:
            yield " ".join(words)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_run_by_something_or_says_why_not(name):
    unlisted = set(told(ROOT / name)) - LISTED
    assert not unlisted, "say in tests/commands.py what runs them"


def test_no_command_is_listed_that_nobody_tells():
    assert not LISTED - {command for page in PAGES for command in told(page)}


@pytest.mark.parametrize("runner", commands.RUN_BY)
def test_what_runs_a_command_is_there_and_has_its_words(runner):
    file, _, function = runner.partition("::")
    source = (ROOT / file).read_text()
    if function:
        defined = {each.name for each in ast.walk(ast.parse(source)) if isinstance(each, ast.FunctionDef)}
        assert function in defined
    for command in commands.RUN_BY[runner]:
        for word in re.findall(r"(?:^|(?<=[\s/]))(?:qhub-\w+|[a-z_]+\.[a-z_]+)(?=\s|$)", command):
            # Functions of Salt's modules may be called in process.
            assert word in source or f".{word.partition('.')[2]}(" in source, f"{runner} has no {word}"


# Examples of the pillar


def examples(page):
    """Return the pillar files that are shown on a page, ``{name: content}``: each block begins with a file's name."""
    files = {}
    for language, text, _ in blocks(page):
        if language == "yaml":
            file = re.match(r"# ([a-z]+)\.sls\n", text)
            assert file and (ROOT / f"pillar/{file[1]}.sls").exists(), text
            files = qhub.overlay(files, {file[1]: yaml.safe_load(text)})
    return files


@pytest.mark.parametrize("name", [name for name in NAMES if examples(ROOT / name)])
def test_examples_of_the_pillar_are_valid(name, site):
    """All pages' are of one site; where they differ, it is as on this page."""
    files = {}
    for page in (*PAGES, ROOT / name):
        files = qhub.overlay(files, examples(page))
    site.write(**files)
    site.accept("w1", "w2")
    for minion in ("master", "w1"):
        assert not site.refusal(minion)


def test_make_help_lists_what_there_is():
    listed = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert sorted(line.split()[1] for line in listed.splitlines()) == sorted(targets)
