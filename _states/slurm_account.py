"""
Keep Slurm's accounting database as declared. The form is described in the execution module ``slurm_account``.
"""

from salt.exceptions import CommandExecutionError


def __virtual__():
    return True


def managed(name, pillar=False, accounts=None, qos=None, users=None, settings=None):
    """
    Make accounts, associations, QOS, licences and reservations of a cluster what is declared.

    name
        The cluster's name (``ClusterName`` in slurm.conf).
    pillar
        Take ``accounts``, ``qos``, ``users`` and ``slurm_accounting`` from the pillar's keys of these names, so that
        10,000 users need not travel through a rendered SLS. Default ``False``.
    accounts, qos, users, settings
        The same given here; ``settings`` is ``slurm_accounting``. A part that is left out is not managed.

    .. code-block:: yaml

        Accounts, associations and QOS are as declared:
          slurm_account.managed:
            - name: qhub
            - pillar: true
    """
    return _reconcile(name, pillar=pillar, accounts=accounts, qos=qos, users=users, settings=settings)


def _reconcile(cluster, **declared):
    ret = {"name": cluster, "changes": {}, "result": True, "comment": ""}
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
        ret["comment"] = "Slurm's accounting database is as declared."
    elif __opts__["test"]:
        ret.update(result=None, comment=f"{count} object(s) of Slurm's accounting database would change.")
    else:
        ret["comment"] = f"{count} object(s) of Slurm's accounting database changed."
    ret["comment"] = "\n".join([ret["comment"], *outcome["notes"]])
    return ret
