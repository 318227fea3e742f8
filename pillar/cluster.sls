# The cluster as a whole. Every listed machine gets this file: no secrets here.
cluster:
  # The cluster's name in Slurm. Jobs are accounted under it: choose it once.
  name: qhub
  # The domain the nodes' names are in. It need not exist outside.
  domain: cluster.internal
  # The machine that runs the services: its Salt minion id, and its address in the network below.
  master:
    id: master
    address: 10.0.0.10
  # The name people type into their browser; by default the master's id in the domain above.
  # public_name: hpc.example.org
  # The name of people's own web servers: notebooks and Dask dashboards. It needs an entry in the DNS as well; by default
  # people.<public_name>. With *.DOMAIN each person has a name of their own (docs/security.md).
  # people_name: people.hpc.example.org
  # Every node's address is in this network; services between nodes are bound to it.
  network: 10.0.0.0/24
  # Name servers for names outside the cluster. [] takes what the master's own resolv.conf says.
  dns_servers: []
  # uids and gids of people and groups are in this range.
  # ids: {min: 10000, max: 60000}

# Packages come from where each machine has them configured (null), or from a directory made by
# salt/bootstrap/mirror.py that is at the same place on every machine (a site without a way out).
artifacts:
  mirror: null

# Any setting in formulas/<name>/defaults.yaml is changed here under the formula's name. For instance:
#
# slurm:
#   config:
#     SlurmctldTimeout: 300
#     SlurmdTimeout: null      # null takes a key away

# The site's own additions live under one key, in any shape:
#
# site: {}
