"""Features of pictures by a frozen network, computed once and kept: a table of one row for each picture.

picture_features   the rows of a list of picture files, from the cache as far as they are there
feature_table      one append-only table of rows on the disk, by the digest of a picture's bytes
"""

from metarun.features.picture_features import Extractor, FeatureTable, extract

__all__ = ["Extractor", "FeatureTable", "extract"]
