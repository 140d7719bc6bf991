"""What one does with a finished run. Nothing here writes to a run, and nothing prints.

finished_run.py   which run, stage, checkpoint and settings are meant; what the run left. Imports no jax
opened_run.py     the door: its stages built, and their weights restored
prediction.py     a learner that adapts to somebody's own examples
drift.py          learners along tasks that drift
task_vectors.py   tasks as vectors, and which of them are near each other
retrieval.py      whether the nearest tasks share a fact
neighbours.py     the same of two stages, beside one another
comparison.py     finished runs against each other, pairwise
run_list.py       the runs below a folder: how each stands, what came out, and in what they differ
adaptation.py     how many inner steps each of some runs needs
"""
