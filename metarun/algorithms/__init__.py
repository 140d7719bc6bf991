"""Algorithms: one file each; the folder is the registry. A name with a leading underscore is a helper."""
