"""
The gate of the pillar: it reads the pillar's files, and nothing reaches a minion that does not make sense.

Salt calls :func:`ext_pillar` on the master whenever it compiles a minion's pillar. A problem raises; Salt
then refuses to apply states on that minion, so nothing is touched until the pillar is corrected. Only the minion's id,
as the master has authenticated it, decides which files a minion gets: grains, which a minion sets itself, never do.

Master configuration::

    ext_pillar:
      - qhub: {}
"""

import difflib
import hmac
import importlib
import ipaddress
import shlex
from pathlib import Path

import jsonschema_rs
import yaml
from _gate import credentials, files, homes

for part in (credentials, files, homes):
    importlib.reload(part)  # a master that runs keeps what it imported before the checkout changed
overlay = files.overlay

__opts__: dict

#: How many problems one message lists, and how many names it offers for one value.
MOST_PROBLEMS, MOST_NAMES = 50, 40
#: What :func:`ext_pillar` adds.
ADDED = ("roles", "highstate_token", "members", "keycloak_realm", "conda_store_env")
#: Where Slurm's own entries are used without being declared.
BUILT_IN_ACCOUNTS, BUILT_IN_QOS = {"root"}, {"normal"}
#: Where Keycloak listens on the master (formulas/keycloak).
KEYCLOAK = "http://127.0.0.1:8080/auth"
#: Where conda-store listens there (formulas/conda_store).
CONDA_STORE = "http://127.0.0.1:5000/conda-store"
ID_RANGE = {"min": 10000, "max": 60000}
#: Users and groups of the master itself: people's are elsewhere (formulas/people).
SYSTEM_NAMES = (Path("/etc/passwd"), Path("/etc/group"))
#: What an error of these kinds is in cannot be compared with the rest.
MISSHAPEN = {"type", "required", "format"}
#: A value is not shown where a key above it has one of these words.
SECRET = ("secret", "password", "token", "private")
SCALARS = ["string", "number", "boolean", "null"]


class PillarError(Exception):
    """The pillar was refused; the message lists every problem found."""


def ext_pillar(minion_id, pillar):
    """
    Check the pillar of ``minion_id``, add what was left out, and tell the master who is in the cluster.

    minion_id
        The id the pillar is compiled for.
    pillar
        The merged pillar so far (earlier external pillars, and pillar given on a command line).

    Returns what is merged into the pillar: what the files declare, the schema's defaults (``cluster``, ``artifacts``,
    ``realm``, ``monitoring``), the minion's ``roles`` and ``highstate_token`` (by which a return is known to be its
    own), and for the master's own id ``members: {id: {address, roles, features, weight, power}}``: the master, and
    every node of the pillar whose minion key is accepted; and ``keycloak_realm`` and ``conda_store_env``, how the
    modules of these names reach their services. ``{}`` for an id that is not listed. Raises :class:`PillarError`.
    """
    roots = __opts__["pillar_roots"]["base"]
    try:
        master, listed = machines(files.merged(roots, ("cluster", "nodes")))
        if minion_id not in listed:
            return {}
        names = (*files.EVERY_NODE, *files.MASTER_ONLY) if minion_id == master else files.EVERY_NODE
        pillar = overlay(files.merged(roots, names), pillar)
    except files.UnreadableError as error:
        raise PillarError(message(error.lines)) from None
    formulas = [Path(root) for root in __opts__["file_roots"]["base"]]
    schema = load_schema(formulas)
    # salt-call --local compiles over what it compiled before: what is added here is in ``pillar`` then.
    found = problems({key: value for key, value in pillar.items() if key not in ADDED}, schema)
    if minion_id == master:
        found += [problem(*each) for each in homes.problems(pillar, formulas)]
    if found:
        raise PillarError(message(found))
    added = left_out(pillar, schema)
    added["roles"] = roles(pillar, minion_id)
    secrets = files.read(roots, "secrets/master")["secrets"]
    if "highstate_key" not in secrets:
        raise PillarError("this version has secrets that are not there yet: run salt/bootstrap/master.sh again")
    added["highstate_token"] = token(secrets["highstate_key"], minion_id)
    public = f"{master}.{pillar['cluster'].get('domain', added['cluster'].get('domain'))}"
    added["cluster"].setdefault("public_name", pillar["cluster"].get("public_name", public))
    public = added["cluster"].get("public_name", pillar["cluster"].get("public_name"))
    added["cluster"]["people_name"] = pillar["cluster"].get("people_name", f"people.{public}")
    added["cluster"]["ids"] = {**ID_RANGE, **pillar["cluster"].get("ids", {})}
    if minion_id == master:
        added["members"] = members(pillar, accepted_keys(__opts__["pki_dir"]))
        added["keycloak_realm"] = {
            "url": KEYCLOAK,
            "client_id": "salt",
            "client_secret": pillar.get("secrets", {}).get("keycloak_salt_secret"),
        }
        added["conda_store_env"] = {
            "url": CONDA_STORE,
            "token": pillar.get("secrets", {}).get("conda_store_salt_token"),
        }
    return overlay(pillar, added)


def machines(declared):
    """
    Return the master's minion id, and the ids of all listed machines (a set).

    declared
        What ``cluster.sls`` and ``nodes.sls`` declare. Neither is taken from the pillar: a minion that asks for its
        pillar may add to that.
    """
    try:
        master = declared["cluster"]["master"]["id"]
    except (KeyError, TypeError):
        raise PillarError("cluster.master.id: missing: the Salt minion id of the master") from None
    nodes = declared.get("nodes")
    return master, {master, *(nodes if isinstance(nodes, dict) else ())}


def left_out(pillar, schema):
    """
    Return the schema's defaults that are not in ``pillar``: ``{section: {key: value}}``. Who has no people has no
    realm of theirs, and shows nobody anything.
    """
    sections = ("cluster", "artifacts", "realm", "monitoring") if "users" in pillar else ("cluster", "artifacts")
    return {
        section: {
            key: setting["default"]
            for key, setting in rule["properties"].items()
            if "default" in setting and key not in pillar.get(section, {})
        }
        for section, rule in schema["properties"].items()
        if section in sections
    }


def token(key, minion_id):
    """Return what only the master and the minion ``minion_id`` know."""
    return hmac.new(key.encode(), minion_id.encode(), "sha256").hexdigest()


def roles(pillar, minion_id):
    """Return the roles (a list) that the pillar gives a minion; what its own grain says is a claim."""
    node = pillar.get("nodes", {}).get(minion_id)
    listed = [role for role in node.get("roles", ["worker"]) if role != "master"] if node else []
    return (["master"] if minion_id == pillar["cluster"]["master"]["id"] else []) + listed


def accepted_keys(pki_dir):
    """Return the ids (a set) whose minion keys are accepted in the master's ``pki_dir``."""
    directory = Path(pki_dir) / "minions"
    return {key.name for key in directory.iterdir()} if directory.is_dir() else set()


def members(pillar, accepted):
    """
    Return who belongs to the cluster now: ``{id: {"address", "roles", "features", "weight", "power"}}``.

    pillar
        A pillar that :func:`problems` found nothing in.
    accepted
        Ids with an accepted key. The master belongs to its cluster in any case.
    """
    master = pillar["cluster"]["master"]
    nodes = pillar.get("nodes", {})
    found = {}
    for name in [master["id"], *(name for name in nodes if name in accepted and name != master["id"])]:
        node = nodes.get(name, {"address": master["address"], "roles": []})
        found[name] = {
            "address": node["address"],
            "roles": roles(pillar, name),
            "features": node.get("features", []),
            "weight": node.get("weight", 1),
            "power": node.get("power", False),
        }
    return found


# What is allowed


def load_schema(roots):
    """
    Return the pillar's JSON Schema: ``schema/pillar.yaml`` and the settings of every formula.

    roots
        Directories (:class:`~pathlib.Path`) searched in order, as Salt's ``file_roots``: the first that has
        ``schema/pillar.yaml``, and every ``<formula>/defaults.yaml``.
    """
    schema = read_yaml(next(path for root in roots if (path := root / "schema/pillar.yaml").is_file()))
    for root in reversed(roots):
        for defaults in sorted(root.glob("*/defaults.yaml")):
            schema["properties"].setdefault(defaults.parent.name, formula_schema(read_yaml(defaults)))
    return schema


def read_yaml(path):
    """Return the content of one YAML file."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(), Loader=loader)  # noqa: S506


def formula_schema(defaults):
    """
    Return the schema of a formula's settings from its ``defaults.yaml``.

    A setting has the type of its default; an empty mapping is free-form, ``null`` takes any single value.
    Mappings whose defaults are only a start (settings passed on to a configuration file, entries of which a
    site has its own) are named in the file's own list ``free_form: [config, ...]``, dotted where nested.
    """
    tree = {}
    for family, settings in defaults.items():
        if family != "free_form":
            tree = overlay(tree, settings)
    return setting_schema(tree, set(defaults.get("free_form", [])))


def setting_schema(default, free_form, path=""):
    """Return the schema of one setting from its default; ``path`` is where it is in the formula, dotted."""
    if isinstance(default, dict):
        if not default or path in free_form:
            return {"type": "object"}
        prefix = f"{path}." if path else ""
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: setting_schema(value, free_form, prefix + key) for key, value in default.items()},
        }
    if isinstance(default, list):
        return {"type": "array", "description": "a list"}
    if default is None:
        return {"type": SCALARS, "description": "a single value"}
    kinds = {
        bool: ("boolean", "true or false"),
        int: ("integer", "a whole number"),
        float: ("number", "a number"),
    }
    kind, description = kinds.get(type(default), ("string", "text (in quotes if it looks like a number)"))
    return {"type": [kind, "null"], "description": description}


# What is wrong


def problems(pillar, schema):
    """
    Return everything that is wrong with a pillar: lines such as ``"path: value is not allowed: what is"``.

    pillar
        The pillar as one minion gets it. Cross-checks compare only what is there.
    schema
        As :func:`load_schema` returns it.
    """
    try:
        errors = list(jsonschema_rs.validator_for(schema, validate_formats=True).iter_errors(pillar))
    except ValueError:  # keys that are not text
        return [problem(path, key, "a key in quotes") for path, key in odd_keys(pillar)]
    found = [line for error in errors for line in schema_problems(error, schema)]
    found += [problem(*each) for each in credentials.problems(pillar, schema)]
    broken = {tuple(error.instance_path[:2]) for error in errors if error.kind.name in MISSHAPEN}
    return found + [problem(*each) for each in cross_problems(Parts(pillar, broken))]


def message(found):
    """Return the one message for a list of problems (never empty)."""
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    more = [f"... and {len(found) - MOST_PROBLEMS} more"] if len(found) > MOST_PROBLEMS else []
    lines = "\n".join(f"  - {line}" for line in [*found[:MOST_PROBLEMS], *more])
    return f"the pillar has {count}; nothing was changed:\n{lines}"


def problem(path, value, allowed):
    """Return one line: where (keys and indices, outermost first), what is there, what is allowed there."""
    return f"{dotted(path)}: {shown(path, value)} is not allowed: {allowed}"


def dotted(path):
    """Return a path as an administrator writes it: ``users.ada.accounts[1]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.lstrip(".")


def shown(path, value):
    """Return a value for a message: short, and ``**`` where it could be a secret."""
    secret = any(word in str(step).lower() for step in path for word in SECRET)
    if secret or "PRIVATE KEY" in str(value):
        return "**"
    words: dict[type, str] = {dict: "a mapping", list: "a list", type(None): "null", bool: str(value).lower()}
    if isinstance(value, str):
        value = credentials.masked(value)
    text = next((word for kind, word in words.items() if isinstance(value, kind)), repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def one_of(value, names):
    """Return what is allowed where one of ``names`` is, with the nearest to ``value`` first."""
    names = sorted(names)
    near = difflib.get_close_matches(str(value), names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    rest = ", ..." if len(names) > MOST_NAMES else ""
    return f"{hint}one of {', '.join(names[:MOST_NAMES])}{rest}" if names else "there is none"


def odd_keys(value, path=()):
    """Yield the path and name of every key in ``value`` that is not text."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, dict) and not isinstance(key, str):
            yield (*path, str(key)), key
        yield from odd_keys(inner, (*path, key))


def schema_problems(error, schema):
    """Yield a line for what one error of the schema's validator says."""
    rule = schema
    for step in error.schema_path[:-1]:
        rule = rule[step]
    path, kind = tuple(error.instance_path), error.kind.name
    if kind == "additionalProperties":
        for key in error.kind.unexpected:
            yield f"{dotted((*path, key))}: unknown key: {one_of(key, rule['properties'])}"
    elif kind == "required":
        allowed = rule["properties"][error.kind.property]["description"]
        yield f"{dotted((*path, error.kind.property))}: missing: {allowed}"
    elif kind == "propertyNames":
        name = error.kind.error.instance
        yield problem((*path, name), name, rule["description"])
    elif kind == "uniqueItems":
        yield problem(path, error.instance, "each only once")
    elif kind == "minProperties":
        yield problem(path, error.instance, "at least one")
    elif rule.get("type") == "object":
        yield problem(path, error.instance, "a mapping ({} for none)")
    else:
        yield problem(path, error.instance, rule["description"])


class Parts:
    """What of a pillar is there and well-formed enough to be compared."""

    def __init__(self, pillar, broken):
        self.pillar, self.broken = pillar, broken

    def __contains__(self, section):
        """Whether ``section`` is a mapping here."""
        return isinstance(self.pillar.get(section), dict)

    def names(self, section):
        """Return every name declared in ``section``."""
        return set(self.pillar[section]) if section in self else set()

    def entries(self, section):
        """Return ``section``'s sound entries as ``{name: settings}``."""
        declared = self.pillar[section] if section in self else {}
        return {name: entry for name, entry in declared.items() if (section, name) not in self.broken}


def cross_problems(parts):
    """Yield ``(path, value, allowed)`` for what makes sense alone and not together."""
    yield from address_problems(parts)
    yield from people_name_problems(parts)
    yield from power_problems(parts)
    yield from gres_problems(parts)
    yield from partition_problems(parts)
    yield from id_problems(parts)
    yield from account_problems(parts)
    yield from user_problems(parts)
    yield from accounting_problems(parts)
    yield from realm_problems(parts)
    yield from environment_problems(parts)
    yield from backup_problems(parts)


def backup_problems(parts):
    """Backups: what their repository asks for is not for workers, whose pillar has no users."""
    if "backup" in parts and "users" not in parts:
        yield ("backup",), {}, "in backup.sls, which only the master gets"


def unknown(path, values, names):
    """Yield a problem for each of ``values`` (a list, or one name) that is not among ``names``."""
    if isinstance(values, str):
        values = {(): values}
    elif isinstance(values, list):
        values = {(index,): value for index, value in enumerate(values)}
    for step, value in (values or {}).items():
        if value not in names:
            yield (*path, *step), value, one_of(value, names)


def but_for_case(path, names):
    """Yield a problem for each of the partition ``names`` that an earlier one differs from in capital letters only."""
    kept: dict[str, str] = {}
    for name in names:
        if kept.setdefault(name.lower(), name) != name:
            other = kept[name.lower()]
            yield (*path, name), name, f"another name than {other!r}: Slurm's accounting keeps both as {name.lower()!r}"


def twice(declared, what):
    """Yield a problem for each ``(path, value)`` whose value an earlier one has."""
    first = {}
    for path, value in declared:
        if value in first:
            yield path, value, f"{dotted(first[value])} has this {what}"
        first.setdefault(value, path)


def address_problems(parts):
    """Nodes: addresses are inside the network and each one's own; roles and ids are known."""
    cluster, nodes = parts.pillar.get("cluster"), parts.entries("nodes")
    if not isinstance(cluster, dict) or any(path[0] == "cluster" for path in parts.broken if path):
        return
    master, declared = cluster["master"], [(("cluster", "master", "address"), cluster["master"]["address"])]
    for name, node in nodes.items():
        path = ("nodes", name, "address")
        if name != master["id"]:
            declared.append((path, node["address"]))
            if "master" in node.get("roles", []):
                yield ("nodes", name, "roles"), "master", f"worker (cluster.master.id is {master['id']!r})"
            continue
        if node.get("power"):
            yield ("nodes", name, "power"), True, "false, for the master"
        if node["address"] != master["address"]:
            yield path, node["address"], f"{master['address']} (cluster.master.address)"
    yield from twice(declared, "address")
    try:
        network = ipaddress.ip_network(cluster["network"])
    except ValueError:
        yield ("cluster", "network"), cluster["network"], "a network such as 10.0.0.0/24 (host bits zero)"
        return
    ends = (network.network_address, network.broadcast_address)
    for path, value in declared:
        address = ipaddress.ip_address(value)
        if address not in network or address in ends:
            yield path, value, f"a host's address in {network} (cluster.network)"


def people_name_problems(parts):
    """The host name of people's servers is none at which people sign in, and can have a certificate."""
    cluster = parts.pillar.get("cluster")
    name = cluster.get("people_name") if isinstance(cluster, dict) else None
    if not isinstance(name, str) or any(path[0] == "cluster" for path in parts.broken if path):
        return
    path, ca, traefik = ("cluster", "people_name"), parts.pillar.get("ca") or {}, parts.pillar.get("traefik") or {}
    master, domain = cluster["master"]["id"], cluster.get("domain", "cluster.internal")
    others = [cluster.get("public_name"), master, f"{master}.{domain}", *(ca.get("names") or [])]
    for other in others:
        below = name.startswith("*.") and str(other).partition(".")[2] == name[2:]
        if below or (name == other and name != cluster.get("public_name", f"{master}.{domain}")):
            yield path, name, f"a name without {other}, where people sign in"
    if name.startswith("*.") and (traefik.get("certificate") or {}).get("source") == "acme":
        yield path, name, "a name without * (with traefik.certificate.source acme, which certifies single names)"


def power_problems(parts):
    """Nodes that are switched off: the commands are there and sound."""
    power = {name for name, node in parts.entries("nodes").items() if node.get("power")}
    if not power or "users" not in parts or ("slurm", "power") in parts.broken:
        return  # a worker's pillar need not have the commands
    settings = (parts.pillar.get("slurm") or {}).get("power") or {}
    for key in ("resume", "suspend"):
        command = settings.get(key)
        if not isinstance(command, str) or "{node}" not in command:
            allowed = f"a command with {{node}} in it, as nodes.{min(power)}.power is true"
            yield ("slurm", "power", key), command, allowed
        elif not splits(command):
            yield ("slurm", "power", key), command, "a command whose quotes are closed"


def gres_problems(parts):
    """Generic resources: GPUs are found by the node or have devices, as many as there are; shards are of GPUs."""
    slurm = parts.pillar.get("slurm")
    found_by_node = isinstance(slurm, dict) and slurm.get("gpu_autodetect")
    for name, node in parts.entries("nodes").items():
        path, devices, counts = ("nodes", name), node.get("devices", {}), {}
        for entry in filter(None, (node.get("gres") or "").split(",")):
            kind, _, count = entry.rpartition(":")
            if not count.isdigit():
                return  # the schema says so
            if kind in counts:
                yield (*path, "gres"), entry, f"{kind} only once"
            counts[kind] = int(count)
        kinds = {kind.partition(":")[0] for kind in counts}
        for kind in [kind for kind in counts if kind.partition(":")[0] == "gpu" and kind not in devices]:
            if not found_by_node and "users" in parts:  # a worker's pillar need not have slurm.gpu_autodetect
                yield (
                    (*path, "devices", kind),
                    None,
                    'the device files, such as "/dev/nvidia[0-3]"; or slurm.gpu_autodetect',
                )
        for kind, paths in devices.items():
            number = device_count(paths)
            if kind not in counts:
                yield (*path, "devices", kind), paths, one_of(kind, counts)
            elif number not in (None, counts[kind]):
                yield (
                    (*path, "devices", kind),
                    paths,
                    f"{counts[kind]} device(s), as in nodes.{name}.gres; these are {number}",
                )
        if kinds & {"shard", "mps"} and "gpu" not in kinds and not found_by_node:
            yield (*path, "gres"), node["gres"], "gpu beside shard and mps, which are parts of GPUs"


def device_count(files):
    """Return how many devices ``/dev/nvidia[0-2,5]`` names, ``None`` if the text is not of this form."""
    if "[" not in files:
        return 1
    ranges = [part.split("-") for part in files.partition("[")[2].rstrip("]").split(",")]
    if not all(end.isdigit() for each in ranges for end in each):
        return None
    return sum(max(int(each[-1]) - int(each[0]) + 1, 0) for each in ranges)


def splits(command):
    """Whether a command line can be split into words."""
    try:
        return bool(shlex.split(command))
    except ValueError:
        return False


def partition_problems(parts):
    """Partitions: one default, features that some node has, accounts, groups and QOS that exist."""
    if "partitions" not in parts:
        return
    partitions = parts.entries("partitions")
    features = {feature for node in parts.entries("nodes").values() for feature in node.get("features", [])}
    defaults = [name for name, partition in partitions.items() if partition.get("default")]
    for name in defaults[1:]:
        yield ("partitions", name, "default"), True, f"only one default, {defaults[0]!r} is"
    if not defaults and partitions and len(partitions) == len(parts.names("partitions")):
        yield ("partitions",), sorted(partitions), "one of them with default: true"
    yield from but_for_case(("partitions",), partitions)
    for name, partition in partitions.items():
        path = ("partitions", name)
        yield from unknown((*path, "features"), partition.get("features"), features)
        if "users" not in parts:
            continue  # a worker's pillar has no accounts
        yield from unknown((*path, "accounts"), partition.get("accounts"), parts.names("accounts"))
        yield from unknown((*path, "groups"), partition.get("groups"), parts.names("groups"))
        for key in ("qos", "allow_qos"):
            yield from unknown((*path, key), partition.get(key), parts.names("qos") | BUILT_IN_QOS)


def id_problems(parts):
    """Users and groups: ids in range and nobody else's; a user's own group has the user's name and id."""
    cluster = parts.pillar.get("cluster")
    ids = cluster.get("ids") if isinstance(cluster, dict) else None
    low, high = ({**ID_RANGE, **(ids if isinstance(ids, dict) else {})}[end] for end in ("min", "max"))
    declared = [
        ((section, name, key), entry[key])
        for section, key in (("groups", "gid"), ("users", "uid"))
        for name, entry in parts.entries(section).items()
    ]
    for path, value in declared:
        if not low <= value <= high:
            yield path, value, f"{low} to {high} (cluster.ids)"
    yield from twice(declared, "id")
    system = system_names(low, high) if declared else set()
    for section in ("users", "groups"):
        for name in sorted(parts.names(section) & system):
            yield (section, name), name, "another name: a user or group of the system has this one"
    for name in sorted(parts.names("users") & parts.names("groups")):
        yield ("groups", name), name, "another name: the user has a group of this name already"


def system_names(low, high):
    """Return the names of this machine's own users and groups, but for those with an id from ``low`` to ``high``."""
    rows = [line.split(":") for path in SYSTEM_NAMES if path.is_file() for line in path.read_text().splitlines()]
    return {row[0] for row in rows if len(row) > 2 and row[2].isdigit() and not low <= int(row[2]) <= high}


def account_problems(parts):
    """Accounts and QOS: parents exist and do not go round; QOS exist."""
    accounts, known = parts.entries("accounts"), parts.names("accounts") | BUILT_IN_ACCOUNTS
    qos = parts.names("qos") | BUILT_IN_QOS
    for name, account in accounts.items():
        path = ("accounts", name)
        yield from unknown((*path, "parent"), account.get("parent"), known)
        yield from qos_problems(path, account, qos)
        yield from qos_problems((*path, "user_defaults"), account.get("user_defaults", {}), qos)
        trail, above = [name], account.get("parent")
        while above in accounts and above not in trail:
            trail.append(above)
            above = accounts[above].get("parent")
        if above == name:
            yield (*path, "parent"), account["parent"], f"an account that is not below {name!r} itself"
    for name, settings in parts.entries("qos").items():
        yield from unknown(("qos", name, "preempt"), settings.get("preempt"), qos)
        reached, ahead = set(), list(settings.get("preempt") or [])
        while ahead:
            other = ahead.pop()
            if other not in reached:
                reached.add(other)
                ahead += parts.entries("qos").get(other, {}).get("preempt") or []
        if name in reached:
            yield ("qos", name, "preempt"), settings["preempt"], f"QOS that do not preempt {name!r} themselves"


def qos_problems(path, association, qos):
    """An association's QOS: exist, and the default is among them."""
    own = association.get("qos") or []
    relative = any(name.startswith(("+", "-")) for name in own)
    signed = {sign + name for sign in "+-" for name in qos}
    yield from unknown((*path, "qos"), own, signed if relative else qos)
    default = association.get("default_qos")
    yield from unknown((*path, "default_qos"), default, set(own) if own and not relative else qos)


def user_problems(parts):
    """Users: groups, accounts, partitions and QOS exist; defaults are among what the user has."""
    groups, accounts = parts.names("groups"), parts.names("accounts")
    partitions, qos = parts.names("partitions"), parts.names("qos") | BUILT_IN_QOS
    for name, user in parts.entries("users").items():
        path = ("users", name)
        yield from unknown((*path, "groups"), user.get("groups"), groups)
        yield from unknown((*path, "coordinator_of"), user.get("coordinator_of"), accounts)
        yield from qos_problems(path, user, qos)
        own = user.get("accounts", [])
        if isinstance(own, list):
            yield from unknown((*path, "accounts"), own, accounts)
        else:
            yield from unknown((*path, "accounts"), {(account,): account for account in own}, accounts)
            for account, limits in own.items():
                named = [step[-1] for step, _ in partition_limits(limits)]
                yield from but_for_case((*path, "accounts", account, "partitions"), named)
                for step, partition in (((), None), *partition_limits(limits)):
                    where = (*path, "accounts", account, *step)
                    yield from qos_problems(where, partition or limits or {}, qos)
                    if step and "partitions" in parts:
                        yield from unknown(where, step[-1], partitions)
        yield from unknown((*path, "default_account"), user.get("default_account"), set(own))
        if "wckeys" in user:
            yield from unknown((*path, "default_wckey"), user.get("default_wckey"), set(user["wckeys"] or []))


def accounting_problems(parts):
    """Settings of the accounting: what they name exists."""
    if any(path[:1] == ("slurm_accounting",) for path in parts.broken):
        return
    settings, qos = parts.pillar.get("slurm_accounting", {}), parts.names("qos") | BUILT_IN_QOS
    yield from qos_problems(("slurm_accounting", "defaults"), settings.get("defaults", {}), qos)
    for name, reservation in settings.get("reservations", {}).items():
        path = ("slurm_accounting", "reservations", name)
        yield from unknown((*path, "users"), reservation.get("users"), parts.names("users"))
        yield from unknown((*path, "accounts"), reservation.get("accounts"), parts.names("accounts"))
        yield from unknown((*path, "partition"), reservation.get("partition"), parts.names("partitions"))


def realm_problems(parts):
    """The realm: a directory's search needs both its name and its password, or neither."""
    if any(path[:1] == ("realm",) for path in parts.broken):
        return
    for name, directory in (parts.pillar.get("realm") or {}).get("ldap", {}).items():
        missing = [key for key in ("bind_dn", "bind_password") if key not in directory]
        if len(missing) == 1:
            yield (
                ("realm", "ldap", name, missing[0]),
                None,
                "needed: bind_dn and bind_password go together",
            )


def environment_problems(parts):
    """Environments: something to build, of one kind; settings below are set above, without which they would leak."""
    declared = parts.entries("environments")
    namespaces = {} if ("environments", "namespaces") in parts.broken else declared.get("namespaces", {})
    above = declared.get("settings", {})
    levels: dict[tuple, dict] = {("environments", name): entry for name, entry in declared.items() if "/" in name}
    for (*path, name), entry in levels.items():
        if not {"dependencies", "lockfile", "current_build"} & set(entry):
            yield (*path, name), {}, "dependencies, a lockfile or current_build in it"
        if "lockfile" in entry:
            for key in sorted({"channels", "dependencies", "variables"} & set(entry)):
                yield (*path, name, key), entry[key], "not beside a lockfile"
    levels |= {("environments", "namespaces", name): entry for name, entry in namespaces.items()}
    for where, entry in levels.items():
        for key in sorted(set(entry.get("settings", {})) - set(above)):
            step = (*where, "settings", key)
            yield step, entry["settings"][key], f"only what environments.settings.{key} says for all others"


def partition_limits(limits):
    """Return ``[(("partitions", name), limits), ...]`` of one of a user's accounts."""
    return [(("partitions", name), each) for name, each in (limits or {}).get("partitions", {}).items()]
