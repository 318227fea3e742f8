"""What this cluster's Dask-Gateway does beside Dask-Gateway's own."""
