# Back the master up now, as every night: salt-run state.orchestrate orch.backup
Backup is made:
  salt.runner:
    - name: backup.make
