"""Bytes to arrays: fetches, checks, decodes and remembers data sets. Knows nothing of tasks or splits.

sets/       one module per data set: the folder is the registry
sources     what such a module says of its files
datasets    finds the module of a name
archives    reads ZIP archives that nobody vouches for
cache       keeps decoded arrays, and believes them only while they fit
storage     tells a full disk and a closed folder from a bug
fetching    downloads with checksum, and verifies what is there
"""
