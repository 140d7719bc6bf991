"""Models: one file each; the folder is the registry. Only here is flax imported."""
