"""What Slurm does, for Prometheus: three of Slurm's own commands at a time, and what they say as metrics."""
