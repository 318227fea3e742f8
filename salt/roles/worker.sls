# A machine that runs jobs.
include:
  - salt.minion
  - base
  - names
  - users
  - nfs
  - slurm.worker
  - node_exporter
