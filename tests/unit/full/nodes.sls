nodes:
  w1: {address: 10.20.1.1, features: [cpu]}
  w2: {address: 10.20.1.2, features: [cpu, gpu.a100], weight: 10, roles: [worker], gres: "gpu:a100:4", power: true}
