"""Training one stage.

stage_run.py     from the first step, or a checkpoint, to the last step
loop.py          the outer loop as one compiled program
optimizer.py     what the outer step does with a gradient
pace.py          how many steps a call of the program makes
validation.py    the validation split, measured now and then
learner_log.py   the lines of metrics.jsonl, and learners in words
cost.py          what a run will cost, from a few steps of every stage
operations.py    the operations of a traced program, counted
"""
