partitions:
  debug: {default: true, features: [], max_time: "00:30:00", default_time: "5", priority: 10}
  cpu: {features: [cpu], max_time: "7-00:00:00", min_nodes: 1, max_nodes: 8, oversubscribe: "FORCE:2", state: UP}
  GPU:
    features: [gpu.a100]
    max_time: UNLIMITED
    default_mem_per_cpu: 2000
    max_mem_per_cpu: 8000
    max_mem_per_node: 500000
    hidden: true
    accounts: [physics]
    groups: [physics]
    qos: long
    allow_qos: [normal, long]
    config: {DefCpuPerGPU: 8, DisableRootJobs: true, OverTimeLimit: null}
