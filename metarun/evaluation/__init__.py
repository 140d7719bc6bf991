"""Measuring built stages on a frozen list of episodes.

episodes.py          the frozen episodes of a split, their groups and their hash
variants.py          the learners that are measured for one stage
measurement.py       the compiled program that measures them
statistics.py        means and their intervals
results.py           the values of one stage as a part of result.json
run_evaluation.py    all stages of a run
"""
