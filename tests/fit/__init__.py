"""How well the simulated GPUs follow what was measured on real ones."""
