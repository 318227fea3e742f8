"""What this cluster's JupyterHub does beside JupyterHub's own."""
