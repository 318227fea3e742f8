# Bring back what is in a backup: salt-run state.orchestrate orch.restore pillar='{snapshot: latest}'
#
#   snapshot    the id of a snapshot tagged qhub-cluster (qhub-backup restic snapshots), or latest
#
# It replaces the databases and the state of services, which are stopped meanwhile; of homes, groups' folders and conda
# environments it brings back those that are missing. Pillar, secrets and keys stay: for a bare machine they come out of the
# backup by salt/bootstrap/master.sh --restore, which ends with this. What failed or was interrupted is run again.
{% set master = opts.id %}

Databases can be restored:
  salt.state:
    - tgt: {{ master | json }}
    - sls: [backup]
    - queue: 5

Data is restored:
  salt.runner:
    - name: backup.restore
    - snapshot: {{ pillar.get("snapshot") | json }}
    - require:
      - salt: Databases can be restored

Master is as declared:
  salt.state:
    - tgt: {{ master | json }}
    - highstate: true
    - queue: 5
    - require:
      - salt: Data is restored

# They kept their keys and know the master by its own, so they are back. Who joined after the backup was made, or does not
# serve for another reason, is brought in as ever.
Workers are in service:
  salt.runner:
    - name: membership.bring_in
    - require:
      - salt: Master is as declared
