"""
Keep conda-store's environments, namespaces and settings as declared.

:func:`managed` takes the whole tree, usually from the pillar. The others take one object. All go through the
difference engine of the execution module ``conda_store_env``, which describes the declared form, what is
compared, and ownership. Each takes ``connection`` as that module does.
"""

import salt.utils.args
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict


def __virtual__():
    return True


def managed(name, environments=None, pillar=False, solve=False, connection=None):
    """
    Make environments, namespaces and settings of conda-store what is declared, and wait for the builds.

    name
        Any text.
    environments
        What is declared, as in ``pillar/environments.sls``. What is left out is not managed.
    pillar
        Take it from the pillar's ``environments``. Default ``False``.
    solve
        In test mode, let conda-store solve what would be built, and tell which packages would change; takes
        as long as the solver does. Default ``False``.

    .. code-block:: yaml

        Environments are as declared:
          conda_store_env.managed:
            - pillar: true
    """
    return _reconcile(name, environments, connection, pillar=pillar, **({"solve": True} if solve else {}))


def environment_present(name, connection=None, **fields):
    """
    Ensure that an environment has what is given; ``name`` is ``namespace/name``. A field that is left out is
    left alone.

    .. code-block:: yaml

        global/analysis:
          conda_store_env.environment_present:
            - dependencies: [python=3.13, numpy]
            - keep_builds: 3
    """
    return _reconcile(name, {name: salt.utils.args.clean_kwargs(**fields)}, connection)


def environment_absent(name, connection=None):
    """
    Ensure that an environment, ``namespace/name``, is not there, nor any build of it.

    .. code-block:: yaml

        global/analysis:
          conda_store_env.environment_absent
    """
    return _reconcile(name, None, connection, absent={"environment": [name]})


def namespace_present(name, connection=None, **fields):
    """
    Ensure that a namespace has what is given: ``metadata``, ``roles``.

    .. code-block:: yaml

        physics:
          conda_store_env.namespace_present:
            - roles: {chemistry: viewer}
    """
    return _reconcile(name, {"namespaces": {name: salt.utils.args.clean_kwargs(**fields)}}, connection)


def namespace_absent(name, connection=None):
    """
    Ensure that a namespace is not there, nor any environment in it.

    .. code-block:: yaml

        physics:
          conda_store_env.namespace_absent
    """
    return _reconcile(name, None, connection, absent={"namespace": [name]})


def token(name, role_bindings, primary_namespace="default", days=365, renew=30, connection=None):  # noqa: PLR0917
    """
    Ensure that a file, which only its owner reads, holds a token of these rights that conda-store takes.

    name
        The file.
    role_bindings, primary_namespace, days, renew
        As of the execution function ``conda_store_env.token``.

    .. code-block:: yaml

        /etc/dask-gateway/conda-store.token:
          conda_store_env.token:
            - role_bindings: {"*/*": [viewer]}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} holds such a token."}
    rights = {"primary_namespace": primary_namespace, "days": days, "renew": renew, "connection": connection}
    try:
        ret["changes"] = __salt__["conda_store_env.token"](name, role_bindings, test=__opts__["test"], **rights)
    except (CommandExecutionError, OSError) as error:
        return {**ret, "result": _pending(error), "comment": str(error)}
    if ret["changes"]:
        made = "would be" if __opts__["test"] else "was"
        return {**ret, "result": None if __opts__["test"] else True, "comment": f"{name}: a new token {made} made."}
    return ret


def _pending(error):
    """In test mode a conda-store that an earlier state will start is pending, not red."""
    return None if __opts__["test"] and "did not answer" in str(error) else False


def _reconcile(name, environments, connection, **options):
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    call = __salt__["conda_store_env.diff" if __opts__["test"] else "conda_store_env.apply"]
    if not __opts__["test"]:
        options.pop("solve", None)
    try:
        outcome = call(environments, connection=connection, **options)
    except CommandExecutionError as error:
        return {**ret, "result": _pending(error), "comment": str(error)}
    ret["changes"] = outcome["changes"]
    count = len(outcome["changes"])
    would = "would change" if __opts__["test"] else "changed"
    comment = f"{count} object(s) of conda-store {would}." if count else "conda-store is as declared."
    if count and __opts__["test"]:
        ret["result"] = None
    if outcome["error"]:
        ret["result"] = False
        comment = f"{f'{comment} ' if count else ''}Not everything is as declared:"
    ret["comment"] = "\n".join(filter(None, [comment, *outcome["notes"], outcome["error"]]))
    return ret
