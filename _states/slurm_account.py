"""
Keep Slurm's accounting database as declared.

:func:`managed` takes the whole tree, usually from the pillar. The others take one object. All go through the
difference engine of the execution module ``slurm_account``, which describes the declared form, ownership and
purging.
"""

import salt.utils.args
from salt.exceptions import CommandExecutionError

__opts__: dict
__salt__: dict


def __virtual__():
    return True


def managed(name, pillar=False, accounts=None, qos=None, users=None, settings=None):  # noqa: PLR0917
    """
    Make accounts, associations, QOS, licences and reservations of a cluster what is declared.

    name
        The cluster's name (``ClusterName`` in slurm.conf). It is registered if slurmctld has not done that
        yet.
    pillar
        Take ``accounts``, ``qos``, ``users`` and ``slurm_accounting`` from the pillar's keys of these names,
        so that 10,000 users need not travel through a rendered SLS. Default ``False``.
    accounts, qos, users, settings
        The same given here; ``settings`` is ``slurm_accounting``. A part that is left out is not managed.

    .. code-block:: yaml

        Accounts, associations and QOS are as declared:
          slurm_account.managed:
            - name: qhub
            - pillar: true
    """
    return _reconcile(name, name, pillar=pillar, accounts=accounts, qos=qos, users=users, settings=settings)


def cluster_present(name):
    """
    Register a cluster with slurmdbd, unless its slurmctld has. Either order is right, as long as slurmctld's
    ``StateSaveLocation`` and the database are of one age: slurmctld refuses to start with another cluster's
    state.

    .. code-block:: yaml

        qhub:
          slurm_account.cluster_present
    """
    return _reconcile(name, name)


def account_present(name, cluster, **fields):
    """
    Ensure that an account has what is given.

    name
        The account.
    cluster
        The cluster's name.
    fields
        Its fields (``slurm_account.fields account``). A field that is left out is left alone, ``null`` clears
        it.

    .. code-block:: yaml

        physics:
          slurm_account.account_present:
            - cluster: qhub
            - parent: science
            - grp_tres: {cpu: 100}
    """
    return _reconcile(name, cluster, accounts={name: _fields(fields)}, settings=_ALONE)


def account_absent(name, cluster):
    """
    Ensure that an account is not there, nor anyone's association in it. Accounts below it are an error.

    .. code-block:: yaml

        physics:
          slurm_account.account_absent:
            - cluster: qhub
    """
    return _reconcile(name, cluster, absent={"account": [name]}, settings=_ALONE)


def user_present(name, cluster, **fields):
    """
    Ensure that a user has the associations and fields that are given; others stay.

    name
        The user.
    cluster
        The cluster's name.
    fields
        ``accounts`` and the user's other keys (``slurm_account.fields user``).

    .. code-block:: yaml

        ada:
          slurm_account.user_present:
            - cluster: qhub
            - accounts: {physics: {max_jobs: 3}}
            - admin_level: operator
    """
    return _reconcile(name, cluster, users={name: _fields(fields)}, settings=_ALONE)


def user_absent(name, cluster, running_jobs="block"):
    """
    Ensure that a user has no association.

    running_jobs
        What happens while the user has jobs: ``block`` (default: takes no new ones, goes with a later run) or
        ``cancel``.

    .. code-block:: yaml

        ada:
          slurm_account.user_absent:
            - cluster: qhub
    """
    settings = {**_ALONE, "running_jobs": running_jobs}
    return _reconcile(name, cluster, absent={"user": [name]}, settings=settings)


def qos_present(name, cluster, **fields):
    """
    Ensure that a QOS has what is given (``slurm_account.fields qos``).

    .. code-block:: yaml

        long:
          slurm_account.qos_present:
            - cluster: qhub
            - max_wall: "7-00:00:00"
    """
    return _reconcile(name, cluster, qos={name: _fields(fields)}, settings=_ALONE)


def qos_absent(name, cluster):
    """
    Ensure that a QOS is not there.

    .. code-block:: yaml

        long:
          slurm_account.qos_absent:
            - cluster: qhub
    """
    return _reconcile(name, cluster, absent={"qos": [name]}, settings=_ALONE)


def resource_present(name, cluster, **fields):
    """
    Ensure that a licence, ``name@server``, has what is given (``slurm_account.fields resource``).

    .. code-block:: yaml

        matlab@flex:
          slurm_account.resource_present:
            - cluster: qhub
            - count: 50
            - allowed: 40
    """
    settings = {**_ALONE, "resources": {name: _fields(fields)}}
    return _reconcile(name, cluster, settings=settings)


def resource_absent(name, cluster):
    """
    Ensure that a licence is not there.

    .. code-block:: yaml

        matlab@flex:
          slurm_account.resource_absent:
            - cluster: qhub
    """
    return _reconcile(name, cluster, absent={"resource": [name]}, settings=_ALONE)


def reservation_present(name, cluster, **fields):
    """
    Ensure that a reservation has what is given (``slurm_account.fields reservation``); needs slurmctld.

    .. code-block:: yaml

        maintenance:
          slurm_account.reservation_present:
            - cluster: qhub
            - start: "2027-01-31T08:00:00"
            - duration: "08:00:00"
            - nodes: ALL
            - users: [root]
            - flags: [MAINT]
    """
    settings = {**_ALONE, "reservations": {name: _fields(fields)}}
    return _reconcile(name, cluster, settings=settings)


def reservation_absent(name, cluster):
    """
    Ensure that a reservation is not there; needs slurmctld.

    .. code-block:: yaml

        maintenance:
          slurm_account.reservation_absent:
            - cluster: qhub
    """
    return _reconcile(name, cluster, absent={"reservation": [name]}, settings=_ALONE)


_ALONE = {"purge": "none"}  # one object says nothing about the others


def _fields(keywords):
    return salt.utils.args.clean_kwargs(**keywords)


def _reconcile(name, cluster, **declared):
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    call = __salt__["slurm_account.diff" if __opts__["test"] else "slurm_account.apply"]
    try:
        outcome = call(cluster, **declared)
    except CommandExecutionError as error:
        # In test mode a database that an earlier state will install is pending, not red.
        pending = __opts__["test"] and "is not installed" in str(error)
        return {**ret, "result": None if pending else False, "comment": str(error)}
    ret["changes"] = outcome["changes"]
    count = len(outcome["changes"])
    if not count:
        comment = "Slurm's accounting database is as declared."
    elif __opts__["test"]:
        ret["result"] = None
        comment = f"{count} object(s) of Slurm's accounting database would change."
    else:
        comment = f"{count} object(s) of Slurm's accounting database changed."
    if outcome["error"]:
        ret["result"] = False
    ret["comment"] = "\n".join(filter(None, [comment, *outcome["notes"], outcome["error"]]))
    return ret
