"""
Directives that print the pillar's schema (salt/schema/pillar.yaml), the settings of formulas (formulas/*/defaults.yaml)
and the alerts (formulas/prometheus/files/rules).

A key's ``title`` in the schema says what it is, its ``description`` what is allowed. Groups of keys that are the same
in several places are printed once and referred to.
"""

import functools
import json
import re
import sys
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "salt/schema/pillar.yaml"
#: $defs that are groups of keys: what their section is called.
SHARED = {
    "limits": "Limits of an association",
    "conda_level_settings": "Settings of conda-store at every level",
}
#: What stands for the names in a mapping.
PLACEHOLDERS = {
    "nodes": "NODE",
    "partitions": "PARTITION",
    "groups": "GROUP",
    "accounts": "ACCOUNT",
    "qos": "QOS",
    "users": "USER",
    "ldap": "DIRECTORY",
    "resources": "LICENCE@SERVER",
    "reservations": "RESERVATION",
    "environments": "NAMESPACE/NAME",
    "namespaces": "NAMESPACE",
    "roles": "NAMESPACE",
}


@functools.cache
def schema():
    """Return the schema; what is an alias in the file is one object here."""
    return yaml.safe_load(SCHEMA.read_text())


def groups(keys):
    """Return the names of the groups in $defs whose keys are all among ``keys``, a mapping."""
    of = schema()["$defs"]
    return [name for name in SHARED if all(keys.get(key) is each for key, each in of[name].items())]


def rows(rule, path=()):
    """
    Yield ``(path, rule, required)`` of every key below ``rule``.

    ``(path, name of the group, None)`` stands for all keys of a group of :data:`SHARED`.
    """
    properties = rule.get("properties", {})
    found = groups(properties)
    elsewhere = {key for name in found for key in schema()["$defs"][name]}
    for key, each in properties.items():
        if key not in elsewhere:
            yield (*path, key), each, key in rule.get("required", [])
            yield from rows(each, (*path, key))
    for name in found:
        yield path, name, None
    for each in (*rule.get("patternProperties", {}).values(), rule.get("additionalProperties")):
        if isinstance(each, dict):
            yield from rows(each, (*path, PLACEHOLDERS.get(path[-1] if path else "", "NAME")))


def anchor(path):
    """Return the id of a key's place on the page."""
    return nodes.make_id("-".join(("pillar", *path)))


def allowed(rule, required):
    """Return what may be there, in words."""
    words = rule.get("description", "")
    if rule.get("type") == "object":
        each = rule.get("additionalProperties") or {}
        words = f"a mapping; each value is {each['description']}" if "description" in each else "a mapping"
    if "enum" in rule.get("items", {}):
        words += f" ({', '.join(rule['items']['enum'])})"
    if isinstance(rule.get("type"), list) and "null" in rule["type"] and "null" not in words:
        words += ", or null"
    if required:
        words += "; required"
    if "default" in rule:
        words += f"; default {json.dumps(rule['default']).strip(chr(34))}"
    return words


def meaning(path, rule):
    """Return what a key is: its title, or the option of Slurm's that it stands for."""
    if "title" in rule or rule.get("type") == "object":
        return rule.get("title") or rule.get("description", "")
    kind = {"accounts": "account", "qos": "qos", "users": "user", "limits": "association"}.get(path[0])
    kind = path[1].removesuffix("s") if path[0] == "slurm_accounting" and len(path) > 3 else kind
    field = sys.modules["modules.slurm_account"].TABLES.get(kind, {}).get(path[-1])
    if not field:
        raise ValueError(f"{SCHEMA.name}: {'.'.join(path)} has no title that says what it is")
    return f"Slurm's {field.option}"


def table(found, section=()):
    """Return the table of ``found`` (see :func:`rows`), whose paths begin with ``section``."""
    group = nodes.tgroup(cols=3)
    group += [nodes.colspec(colwidth=width) for width in (28, 32, 40)]
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    head += row(*(nodes.paragraph(text=text) for text in ("Key", "What it is", "Allowed")))
    for path, rule, required in found:
        key = ".".join(path[len(section) :])
        if required is None:
            link = nodes.reference("", SHARED[rule], refid=nodes.make_id(f"shared-{rule}"), internal=True)
            cells = (
                nodes.paragraph("", "", nodes.literal(text=f"{key}.…" if key else "…")),
                nodes.paragraph("", "", link),
            )
            body += row(*cells, nodes.paragraph(text="any of those keys"))
            continue
        name = nodes.paragraph("", "", nodes.literal(text=key), ids=[anchor(path)])
        text = (meaning(path, rule), allowed(rule, required))
        body += row(name, *(nodes.paragraph(text=each) for each in text))
    return nodes.table("", group, classes=["pillar", "colwidths-given"])


def row(*cells):
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def section(document, title, name, *content):
    """Return a section that links can name, as in ``pillar.md#pillar-users``."""
    found = nodes.section("", nodes.title(text=title), *content, ids=[nodes.make_id(name)], names=[name])
    document.note_explicit_target(found)
    return found


def where(key):
    """Return the pillar's file that a section is in by default."""
    files = (path for path in sorted((ROOT / "pillar").glob("*.sls")))
    return next((path.name for path in files if re.search(rf"^{key}:", path.read_text(), re.MULTILINE)), None)


class PillarReference(Directive):
    """Every section of the pillar, and the groups of keys that they share."""

    def run(self):
        sections, arguments, document = [], [], self.state.document
        for key, rule in schema()["properties"].items():
            found = list(rows(rule, (key,)))
            if rule.get("type") != "object":
                arguments.append(((key,), rule, False))
                continue
            text = f"{rule['description'][0].upper()}{rule['description'][1:]}."
            intro = nodes.paragraph("", text)
            if file := where(key):
                intro += [nodes.Text(" In "), nodes.literal(text=file), nodes.Text(".")]
            sections.append(section(document, key, anchor((key,)), intro, *([table(found, (key,))] if found else [])))
        for name, title in SHARED.items():
            found = [((name, key), rule, False) for key, rule in schema()["$defs"][name].items()]
            sections.append(section(document, title, f"shared-{name}", table(found, (name,))))
        example = nodes.literal(text="pillar='{node: w2}'")
        intro = nodes.paragraph(
            "", "These are said on an orchestration's command line, as in ", example, nodes.Text(".")
        )
        sections.append(section(document, "Arguments of orchestrations", "pillar-arguments", intro, table(arguments)))
        return sections


class FormulaReference(Directive):
    """The settings of every formula, as its defaults.yaml has them."""

    def run(self):
        for path in sorted((ROOT / "formulas").glob("*/defaults.yaml")):
            self.state.document.settings.env.note_dependency(str(path))
        return [
            section(
                self.state.document,
                path.parent.name,
                f"formula-{path.parent.name}",
                nodes.literal_block(text, text, language="yaml", classes=["settings"]),
            )
            for path in sorted((ROOT / "formulas").glob("*/defaults.yaml"))
            for text in [path.read_text()]
        ]


class AlertReference(Directive):
    """Every alert of formulas/prometheus/files/rules."""

    def run(self):
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (25, 15, 60)]
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        head += row(*(nodes.paragraph(text=text) for text in ("Alert", "Severity", "What to do")))
        for path in sorted((ROOT / "formulas/prometheus/files/rules").glob("*.yml")):
            self.state.document.settings.env.note_dependency(str(path))
            rules = [rule for each in yaml.safe_load(path.read_text())["groups"] for rule in each["rules"]]
            for rule in (rule for rule in rules if "alert" in rule):
                advice = re.sub(r"{{ *\$value[^}]*}}", "…", rule["annotations"]["description"])
                advice = re.sub(r"{{ *\$labels\.(\w+) *}}", lambda label: label[1].upper(), advice)
                words = [
                    nodes.literal(text=word) if index % 2 else nodes.Text(word)
                    for index, word in enumerate(advice.split("`"))
                ]
                name = nodes.paragraph("", "", nodes.literal(text=rule["alert"]))
                body += row(name, nodes.paragraph(text=rule["labels"]["severity"]), nodes.paragraph("", "", *words))
        return [nodes.table("", group, classes=["pillar", "colwidths-given"])]


def setup(app):
    app.add_directive("alert-reference", AlertReference)
    app.add_directive("pillar-reference", PillarReference)
    app.add_directive("formula-reference", FormulaReference)
    return {"parallel_read_safe": True, "version": "1"}
