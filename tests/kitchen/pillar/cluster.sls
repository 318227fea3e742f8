# The site that kitchen's machines are: containers, so what a container cannot have is said as any site would say it.
cluster:
  name: kitchen
  master: {id: master, address: 10.250.0.10}
  network: 10.250.0.0/24
base:
  time_sync: false
nfs:
  server: {implementation: null}
  client: {enabled: false}
slurm:
  config: {ProctrackType: proctrack/linuxproc, TaskPlugin: task/affinity}
  cgroup: {CgroupPlugin: disabled}
