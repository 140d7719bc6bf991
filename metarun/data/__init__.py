"""From bytes to arrays: data sets and a user's own files, checked and decoded. Knows nothing of tasks or splits.

sets/            one module for each published data set; the folder is the registry
sources          the files that a data set consists of
datasets         the module of a data set, by its name
downloads        downloads with checksums, and the check of files that are there
archives, idx    ZIP archives and idx files that nobody vouches for
picture_files    one picture file
class_folders    a folder with a folder of pictures for each class
sentence_pairs   a folder of sentences in pairs of languages
subwords         text as tokens of a learned vocabulary
examples         the examples that a user gives to a finished run
exports          data written as the files that a user would bring
cache            decoded arrays, kept between runs
observers        who hears of the progress of decoding
storage          the errors of full disks and closed folders
"""
