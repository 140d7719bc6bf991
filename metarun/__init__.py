"""metarun: a command-line experiment runner for meta-learning on JAX."""

__version__ = "0.1.0"
