"""The run directory: nothing outside this package writes to one. Only checkpoints need jax."""
