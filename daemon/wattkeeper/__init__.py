"""Wattkeeper: power limits for the GPUs of Slurm jobs, from policy, with every joule accounted for."""

__version__ = "0.1.0"
