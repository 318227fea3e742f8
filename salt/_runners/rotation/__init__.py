"""
New secrets in the place of old ones, for the orchestration ``orch.rotate``. docs/rotation.md says what a class is and
what its rotation stops for how long. No secret is ever returned, logged, or in a command line.

What is imported inside functions is of this package: Salt's loader knows it only when it is loaded.
"""

from pathlib import Path

from salt.exceptions import CommandExecutionError


def plan(secrets=None):
    """
    Return what a rotation of these classes takes.

    secrets
        A class, a list of classes, or ``all``.

    Returns ``{"classes": [class, ...], "master": [SLS, ...], "workers": [SLS, ...], "orch": [SLS, ...], "connected":
    [id, ...]}``: the states of the classes, their own orchestrations, and the workers that there are to apply states
    to. Raises :class:`~salt.exceptions.CommandExecutionError` with the classes that there are if one is unknown.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.plan hub
    """
    from .classes import CLASSES, chosen

    classes = chosen(secrets)
    master, workers, orch = (
        list(dict.fromkeys(name for each in classes for name in CLASSES[each].get(part, [])))
        for part in ("master", "workers", "orch")
    )
    connected = [name for name in __salt__["membership.connected"]() if name != __opts__["id"]]
    return {"classes": classes, "master": master, "workers": workers, "orch": orch, "connected": connected}


def renew(classes):
    """
    Generate new secrets for these classes, keep those of before until :func:`prove`, and seal anew what they seal.

    One that an earlier run replaced and did not prove stays as it is: that rotation is completed. Workers that are away
    are brought in anew when they come, if they hold one of the secrets.

    Returns the names (a list) of the secrets that are being rotated.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.renew '[hub]'
    """
    from . import sealed, values
    from .classes import CLASSES, chosen, secrets_of

    names = secrets_of(classes)
    before = values.renew(names)
    sealed.again({name: before[name] for name in names}, values.current())
    if any("workers" in CLASSES[each] for each in chosen(classes)):
        _expect_absent()
    return names


def prove(classes):
    """
    See that what uses the secrets of these classes takes the new ones and not those of before; then forget these.

    Returns what was seen, a list of lines. Raises :class:`~salt.exceptions.CommandExecutionError` naming what is not as
    it should be; then the secrets of before are kept, and the rotation is completed by running it again.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.prove '[hub]'
    """
    from . import takes, values
    from .classes import secrets_of

    before = values.replaced()
    names = [name for name in secrets_of(classes) if name in before]
    takes.wait(names, before, values.current())
    values.keep({name: value for name, value in before.items() if name not in names})
    return [f"{name}: the new one works, that of before does not" for name in names]


def begin_authority():
    """
    Let there be a certificate authority beside the present one; the states of ``ca`` make its key and its certificate.

    One that an interrupted rotation began stays. Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.begin_authority
    """
    from . import authority

    authority.begin()
    _expect_absent()
    return True


def change_authority():
    """
    Let the authority beside the present one be the one that certifies, and the other the one beside it, still trusted.

    Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.change_authority
    """
    from . import authority

    authority.change()
    return True


def end_authority():
    """
    Let nobody trust the authority of before any more, from each node's next states on. Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.end_authority
    """
    from . import authority

    authority.end()
    return True


def prove_authority():
    """
    See that the front door's certificate is good for who trusts the authority, and not for who trusts that of before.

    Services that read whom to trust when they start are started anew before. Returns what was seen. Raises
    :class:`~salt.exceptions.CommandExecutionError` if it is not so.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.prove_authority
    """
    from . import authority

    pillar, errors = __salt__["cluster.compiled_pillar"]()
    if errors:
        raise CommandExecutionError("\n".join(errors))
    authority.prove(pillar)
    return "the front door is trusted by who trusts the new authority, and not by who trusts that of before"


def begin_master_key():
    """
    Generate the Salt master's next key, and let minions fetch its public half as ``salt://salt/next_master.pub``.

    One that an interrupted rotation generated stays. Returns ``True``.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.begin_master_key
    """
    from . import master_key

    master_key.begin(__opts__["keysize"])
    return True


def change_master_key(workers):
    """
    Let the Salt master have its next key, and wait until the minions that know it answer.

    workers
        Ids of the workers that were told to go over to it.

    Returns what was seen, a list of lines, with the workers that were away. Raises
    :class:`~salt.exceptions.CommandExecutionError` naming those that do not answer.

    CLI Example:

    .. code-block:: bash

        salt-run rotation.change_master_key '[w1, w2]'
    """
    from . import master_key

    members = __salt__["membership.members"]()
    master_key.change(Path(__opts__["pki_dir"]))
    master_key.wait({__opts__["id"], *workers})
    away = sorted(set(members) - {__opts__["id"], *workers})
    return ["minions answer to the new key", *(f"{name} was away. {master_key.ANEW.format(name)}" for name in away)]


def _expect_absent():
    """Let members that are away be brought in anew when they come, with what they have missed."""
    connected = __salt__["membership.connected"]()
    for name in __salt__["membership.members"]():
        if name not in connected:
            __salt__["membership.expect"](name)
