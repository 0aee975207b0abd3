"""The SLURM backend: segments become jobs of a cluster, through submitit."""
