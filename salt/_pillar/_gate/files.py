"""
The pillar's files: plain YAML, in which a mistake is reported with its place and without the text of its line.

Salt's own rendering reports neither the line nor the column, lets Jinja take parts of a value away, and logs the lines
around a mistake, in which passwords may be.
"""

import re
from pathlib import Path

import yaml
from salt.utils.yamlloader import SaltYamlSafeLoader

#: What every listed machine gets, and what only the master gets beside it.
EVERY_NODE = ("cluster", "nodes", "partitions", "secrets/nodes")
MASTER_ONLY = ("users", "realm", "environments", "backup", "monitoring", "secrets/master")
#: libyaml's words for the most common mistakes, and ours.
WORDS = {
    "found character that cannot start any token": "text that begins with one of @ ` % has to be in quotes",
    "mapping values are not allowed in this context":
        "a colon is not allowed here: put the text in quotes, or correct the indentation",
    "found unexpected end of stream": "a quotation mark is not closed",
    "found unhashable key": "{ is not allowed here: put the text in quotes",
}  # fmt: skip
#: Text in a message of the YAML library that may come from a value: whatever is quoted, but for YAML's own signs.
QUOTED = re.compile(r"'(?![][<>{}:,?-]+')[^']*'|\"[^\"]*\"")


class UnreadableError(Exception):
    """Files that cannot be read; ``lines`` has one line for each: ``FILE, line N, column N: reason``."""

    def __init__(self, lines):
        super().__init__("\n".join(lines))
        self.lines = lines


class Loader(SaltYamlSafeLoader):
    """Salt's YAML, in which a key is text and is there once."""

    def construct_mapping(self, node, deep=False):
        """Return a mapping; raise ``ConstructorError`` for a key that is not text, or there twice."""
        first = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise refusal("{ or [ is not allowed in a key: put the text in quotes", key)
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:value", "tag:yaml.org,2002:timestamp"):
                kind = key.tag.rpartition(":")[2]
                raise refusal(f"the key {key.value} is not allowed: YAML reads a {kind}; write it in quotes", key)
            if key.value in first:
                raise refusal(f"the key {key.value} is there already, in line {first[key.value] + 1}", key)
            first[key.value] = key.start_mark.line
        return super().construct_mapping(node, deep)

    def construct_object(self, node, deep=False):
        """Return what a node stands for; what looks like a number and is none is refused with its place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, IndexError, OverflowError) as error:
            raise refusal("this number cannot be read: put the text in quotes", node) from error


def refusal(reason, node):
    """Return the error that refuses a YAML node."""
    return yaml.constructor.ConstructorError(problem=reason, problem_mark=node.start_mark)


def merged(roots, names):
    """
    Return what pillar files declare together.

    roots
        Pillar roots (directories) in order: of files of the same name, the first is read.
    names
        Files in order, without ``.sls``; of the same key, the last counts.

    Raises :class:`UnreadableError` for all of them together.
    """
    tops = [path for root in roots if (path := Path(root, "top.sls")).is_file()]
    result, lines = (
        {},
        [f"{path}: not allowed: delete the file; the minion's id decides who gets which" for path in tops],
    )
    for name in names:
        try:
            result = overlay(result, read(roots, name))
        except UnreadableError as error:
            lines += error.lines
    if lines:
        raise UnreadableError(lines)
    return result


def read(roots, name):
    """Return what the first ``NAME.sls`` of the pillar roots declares, ``{}`` for an empty file."""
    path = next((path for root in roots if (path := Path(root, f"{name}.sls")).is_file()), None)
    if path is None:
        raise UnreadableError([f"{name}.sls: missing in {', '.join(map(str, roots))}"])
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(errors="replace")
        raise UnreadableError([line(name, position(before), "a character is not UTF-8")]) from None
    if odd := yaml.reader.Reader.NON_PRINTABLE.search(text):
        raise UnreadableError([line(name, position(text[: odd.start()]), "a control character is not allowed")])
    try:
        declared = yaml.load(text, Loader=Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        raise UnreadableError([line(name, *explained(error, text))]) from None
    except RecursionError:
        raise UnreadableError([f"{name}.sls: too many brackets are open"]) from None
    if not isinstance(declared or {}, dict):
        raise UnreadableError([line(name, (0, 0), "the file has to be a mapping ({} for none)")])
    return declared or {}


def line(name, place, reason):
    """Return one line for a mistake in ``NAME.sls``; ``place`` is its row and column, which count from 0."""
    return f"{name}.sls, line {place[0] + 1}, column {place[1] + 1}: {reason}"


def position(before):
    """Return the row and column (from 0) of what comes after the text ``before``."""
    return before.count("\n"), len(before) - before.rfind("\n") - 1


def explained(error, text):
    """Return the place (row and column, from 0) and the reason of a YAML error, without any of the file's values."""
    place = error.problem_mark
    if error.context_mark and (place is None or error.problem == "found unexpected end of stream"):
        place = error.context_mark
    rows = text.splitlines()
    row = rows[place.line] if place.line < len(rows) else ""
    indentation = row[: len(row) - len(row.lstrip())]
    if "\t" in indentation:
        return (place.line, indentation.index("\t")), "a tab is not allowed: indent with spaces"
    reason = WORDS.get(error.problem) or QUOTED.sub("**", str(error.problem))
    first = error.context_mark.line if error.context_mark else place.line
    if any(sign in each for each in rows[first : place.line + 1] for sign in ("{%", "{{", "{#")):
        reason += " (Jinja is not read in pillar files)"
    return (place.line, place.column), reason


def overlay(base, extra):
    """Return mapping ``base`` with ``extra`` merged into it, mapping by mapping."""
    result = dict(base)
    for key, value in (extra or {}).items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = overlay(result[key], value) if both else value
    return result
