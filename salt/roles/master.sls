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
  - traefik
  - node_exporter

# A whole highstate knows all routes that there are.
extend:
  Traefik has no other routes:
    file:
      - clean: true
