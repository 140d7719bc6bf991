"""metarun from Python, for a notebook or a script: what `import metarun` offers. Imports nothing of the command line.

calls.py          train, sweep, compare, list
access.py         load, evaluate and export one run
few_labels.py     classify: pictures named after few labelled ones
call_options.py   what these share
run.py            a run with its result, its metrics, its pictures and its learner
views.py          what these return: dicts of plain values that a notebook shows as tables and pictures
"""
