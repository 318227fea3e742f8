# The machine that runs the services.
include:
  - salt.master
  - salt.cloud
  - salt.minion
  - base
  - firewall
  - firewall.ports
  - names.server
  - names
  - people.source
  - people
  - people.homes
  - sshd.source
  - sshd.known_hosts
  - sshd
  - nfs
  - mariadb
  - slurm.database
  - slurm.controller
  - slurm.accounting
  - traefik
  - postgresql
  - keycloak
  - keycloak.realm
  - jobs
  - redis
  - conda_store
  - conda_store.environments
  - jupyterhub
  - sshgate
  - dask_gateway
  - dask_gateway.client
  - node_exporter
  - backup
  - prometheus.targets
  - prometheus
  - prometheus.page
  - grafana
  - alertmanager
  - exporters
  - slurm_exporter
  - salt.metrics

# A whole highstate knows all routes, all openings and all that is scraped.
extend:
  Firewall has no other openings:
    file:
      - clean: true
  Firewall knows no other local ports:
    file:
      - clean: true
  Traefik has no other routes:
    file:
      - clean: true
  Prometheus scrapes nothing else:
    file:
      - clean: true
