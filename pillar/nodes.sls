# The machines beside the master, by Salt minion id, which is the host name as well. CPUs, memory and GPUs are found by
# the node itself. List the master only if it runs jobs too.
nodes: {}
#   w1:
#     address: 10.0.0.11
#   w2:
#     address: 10.0.0.12
#     features: [gpu]        # what partitions choose nodes by; default none
#     weight: 10             # nodes of lower weight get jobs first; default 1
#     gres: "gpu:a100:4"     # only what the node cannot find by itself (slurm.gpu_autodetect)
#     devices: {"gpu:a100": "/dev/nvidia[0-3]"}   # the device files of gres
#     power: true            # switched off while no job needs it (slurm.power says how); default false
#     roles: [worker]        # the default
