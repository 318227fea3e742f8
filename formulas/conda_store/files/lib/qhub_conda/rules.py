"""What conda-store 2025.2.2 lets pass and this site does not: names, channels, settings that leak.

Server and worker call :func:`install` before they start.
"""

import copy
import functools
import re

from conda.models.match_spec import MatchSpec
from conda_store_server import api, conda_store
from conda_store_server._internal import conda_utils, schema, settings
from conda_store_server.exception import CondaStoreError

#: The rule of the pillar's schema (``conda_name``): parts of paths that no program takes for an option or a directory.
NAME = re.compile(r"[A-Za-z0-9+_@$&?^~=][A-Za-z0-9+_@$&?^~.=-]*")
ALLOWED = "letters, digits and + _ @ $ & ? ^ ~ . = -, not beginning with . or -"


def refused_name(kind, name):
    """Return why a name is refused; ``None`` if the name is allowed."""
    return None if NAME.fullmatch(name) else f"{kind} {name!r} is not allowed: a name of {ALLOWED}"


def refused_sources(sources, allowed, alias):
    """
    Return why packages are refused; ``None`` if they are allowed.

    sources
        Channels, or URLs of packages.
    allowed
        The channels that packages may come from, by name or URL; ``[]`` allows all.
    alias
        Where channels are that are only named.
    """

    def address(channel):
        return f"{conda_utils.normalize_channel_name(alias, channel).rstrip('/')}/"

    channels = tuple(map(address, allowed))
    for source in sources if channels else ():
        if ".." in source or not address(source).startswith(channels):
            return f"{source} is not allowed: a package of the channels {', '.join(allowed)}"
    return None


def sources_of(specification):
    """Yield the channels and URLs that a specification or lockfile names for single packages."""
    if isinstance(specification, schema.LockfileSpecification):
        yield from (package.url for package in specification.lockfile.package if package.manager == "conda")
        return
    for dependency in specification.dependencies:
        if isinstance(dependency, str):
            package = MatchSpec(dependency)
            channel = package.get_exact_value("channel")
            yield from filter(None, [channel and channel.base_url or channel and channel.name, package.get("url")])


def create_namespace(original, db, name):
    if reason := refused_name("namespace", name):
        raise ValueError(reason)
    return original(db, name)


def register_environment(original, self, db, specification, namespace=None, *arguments, is_lockfile=False, **options):
    """Register an environment whose name, and whose sources of single packages, are allowed."""
    if not is_lockfile:
        specification = schema.CondaSpecification.model_validate(specification)
    reason = refused_name("environment", specification.name)
    if not reason:
        found = self.get_settings(namespace=namespace, environment_name=specification.name)
        reason = refused_sources(sources_of(specification), found.conda_allowed_channels, found.conda_channel_alias)
    if reason:
        raise CondaStoreError(reason)
    return original(self, db, specification, namespace, *arguments, is_lockfile=is_lockfile, **options)


def get_settings(original, self, namespace=None, environment_name=None):
    """Return the settings of a level. The original writes a level's settings into the defaults that it is given."""
    scratch = copy.copy(self)
    scratch.deployment_default = copy.deepcopy(self.deployment_default)
    return original(scratch, namespace, environment_name)


def around(owner, name, function):
    """Let ``function``, whose first argument is the original, replace ``owner.name``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(*arguments, **options):
        return function(original, *arguments, **options)

    setattr(owner, name, replacement)


def install():
    """Put these rules in force."""
    around(api, "create_namespace", create_namespace)
    around(conda_store.CondaStore, "register_environment", register_environment)
    around(settings.Settings, "get_settings", get_settings)
