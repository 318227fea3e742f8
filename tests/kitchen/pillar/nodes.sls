# The suite `master` is a cluster whose one worker has not joined yet; the suite `single-node` replaces this file.
nodes:
  w1: {address: 192.168.61.11}
