# The queues. One of them is the default.
partitions:
  debug:
    default: true
    # Nodes that have any of these features; [] is every node.
    features: []
    max_time: "1-00:00:00"
#   gpu:
#     features: [gpu]
#     max_time: "7-00:00:00"
#     default_time: "01:00:00"
#     max_nodes: 4
#     priority: 10
#     accounts: [physics]        # who may use it; default everyone
#     groups: [physics]
#     qos: long                  # limits of this QOS hold for the partition
#     config:                    # any other key of a partition in slurm.conf
#       DefMemPerCPU: 2000
