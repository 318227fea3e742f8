# The site of Test Kitchen's machine, which is a container: this file declares what a container lacks.
cluster:
  name: kitchen
  master: {id: master, address: 192.168.61.10}
  network: 192.168.61.0/24 # in 192.168.56.0/21, the only range that VirtualBox accepts by default
base:
  time_sync: false
nfs:
  server: {implementation: null}
  client: {enabled: false}
slurm:
  config: {ProctrackType: proctrack/linuxproc, TaskPlugin: task/affinity}
  cgroup: {CgroupPlugin: disabled}
