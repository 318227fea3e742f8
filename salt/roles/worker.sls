# A machine that runs jobs.
include:
  - salt.minion
  - base
  - firewall
  - firewall.ports
  - names
  - people
  - sshd
  - nfs
  - slurm.worker
  - jupyterhub.worker
  - sshgate.worker
  - dask_gateway.client
  - node_exporter

# A whole highstate knows all openings that there are.
extend:
  Firewall has no other openings:
    file:
      - clean: true
  Firewall knows no other local ports:
    file:
      - clean: true
