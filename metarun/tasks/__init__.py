"""Task families: one file or folder each; this folder is the registry.

A name with a leading underscore is a helper that several families share. A family that needs files has a function
`example(folder) -> Config`, which writes a small data set into an empty folder; see `plugins`.
"""
