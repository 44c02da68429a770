"""HTTP: reading requests, writing answers, nothing else."""
