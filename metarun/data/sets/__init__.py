"""The published data sets: one module `NAME_files.py` for the data set NAME.

A data-set module has
    NAME              its own name, as in `metarun data fetch NAME`
    SOURCES           tuple of sources.Source: the files that it consists of
    content_digest    (source, path, progress=None) -> SHA-256 of what the file holds, however it is packed; raises
                      DataError if the file cannot be read
    load              (root, ..., progress=None) -> a NamedTuple of arrays
"""
