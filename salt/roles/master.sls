# The machine that runs the services.
include:
  - salt.master
  - salt.minion
  - base
  - names.server
  - names
  - users.source
  - users
  - users.homes
  - nfs
  - mariadb
  - slurm.database
  - slurm.controller
  - slurm.accounting
  - node_exporter
