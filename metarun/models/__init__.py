"""Models: one file each; this folder is the registry. Only here is flax imported.

A name with a leading underscore is a helper that several models share. `base.Model` says which names of parameters
algorithms rely on.
"""
