"""What services may do with Slurm for people: limits say what, slurm does it."""
