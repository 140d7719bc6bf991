"""One file with a learner that runs without metarun: adapt and predict as portable programs, and the weights.

portable.py   adapt and predict as programs of `jax.export`
header.py     what the file says of the learner and of the examples that it takes
exporter.py   a run becomes a file, which is checked against the run before it is written
loader.py     reads such a file. It needs jax and what `jax.export` needs, and travels in the file
"""
