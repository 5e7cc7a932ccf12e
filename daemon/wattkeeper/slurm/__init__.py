"""What Slurm tells a node: hook events, the numbering of its GPUs, and which jobs run."""
