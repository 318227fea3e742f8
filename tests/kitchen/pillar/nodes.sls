nodes:
  w1: {address: 10.250.0.11}
