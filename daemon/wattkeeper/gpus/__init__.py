"""Reading GPUs: one file per vendor library."""
