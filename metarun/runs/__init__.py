"""The run directory. Only this package writes to one, and only its checkpoints need jax."""
