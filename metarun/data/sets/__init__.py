"""One module per data set; a module whose name starts with _ is a helper.

A data-set module has
    NAME              its own name, as in `metarun data fetch NAME`
    SOURCES           tuple of sources.Source: the files it is made of
    content_digest    (source, path, progress=None) -> SHA-256 of what the file holds, however it is packed;
                      DataError when it cannot be read
    load              (root, ..., progress=None) -> a NamedTuple of arrays
"""
