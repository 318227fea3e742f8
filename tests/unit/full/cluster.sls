# A site that uses every section of the pillar, and settings of every kind.
cluster:
  name: grace
  domain: hpc.example.org
  public_name: hpc.example.org
  master: {id: head, address: 10.20.0.1}
  network: 10.20.0.0/16
  dns_servers: [10.20.0.2, 10.20.0.3]
  ids: {min: 2000, max: 100000}
artifacts:
  mirror: /srv/mirror
site:
  anything: {the: [site, wants]}

base:
  packages: [less, vim-tiny]
  chrony: {servers: [10.20.0.2]}
  trusted_cas: {site: "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n"}
names:
  manage_resolv_conf: false
mariadb:
  config: {innodb_buffer_pool_size: 2G, skip-networking: null}
nfs:
  exports:
    scratch: {id: 3, path: /srv/scratch, mount: /scratch, access: rw, mode: '1777'}
    shared: null
  server: {implementation: ganesha}
  client: {give_up_after: null, nconnect: 4}
node_exporter:
  options: {collector.systemd: null, collector.slabinfo: true}
ca:
  names: [portal.example.org]
  addresses: [198.51.100.7]
  certificates: {days_valid: 90, days_remaining: 30}
firewall:
  ssh: network
  rules: [ip saddr 10.1.0.0/16 tcp dport 10050 accept]
  local_users: {"5432": [billing]}
traefik:
  certificate:
    source: files
    files: {certificate: /etc/ssl/site/hpc.pem, key: /etc/ssl/site/hpc.key}
  auth_rate: {average: 5}
  config: {log: {level: DEBUG}}
salt:
  worker_threads: 8
  master_options: {job_cache: true}
slurm:
  config: {SlurmctldTimeout: 300, MpiDefault: null, DebugFlags: [Backfill, Gres], JobSubmitPlugins: lua}
  cgroup: {ConstrainSwapSpace: null}
  database: {config: {PurgeJobAfter: 36months}}
  gpu_autodetect: nvml
  power: {resume: "ipmitool -H {node}-bmc chassis power on", suspend: "ipmitool -H {node}-bmc chassis power soft", idle: 600}
  prolog: {10-scratch: "#!/bin/sh\nmkdir -p /scratch/$SLURM_JOB_ID\n"}
  epilog: {10-scratch: "#!/bin/sh\nrm -rf /scratch/$SLURM_JOB_ID\n"}
redis: {config: {maxmemory: 1gb, save: null}}
conda_store:
  channels: [conda-forge, /srv/channels/own]
  allowed_channels: [conda-forge, /srv/channels/own, https://channels.example.org/x]
  channel_alias: https://channels.example.org
  artifacts: [LOCKFILE, CONDA_PACK]
  retention: {builds: null, failed_days: null, packages: false}
  config: {CondaStore: {conda_flags: ""}}
postgresql: {config: {max_connections: 200, ssl: null}}
keycloak:
  master_realm_outside: true
  memory: 2048
  heap: 1024
  backups: {keep: 5}
  config: {features: passkeys, log-level: null}
