"""Training one stage.

session.py       what all stages of a run share
stage_run.py     from the first step, or a checkpoint, to the last step
loop.py          the outer loop as one compiled program
optimizer.py     what the outer step does with a gradient
trial_chunk.py   a chunk of trials, of which one that diverges does not end the others
survivors.py     which trials still train
traceable.py     which numbers can differ between the trials of one program
trial_memory.py  how many trials fit into the memory
pace.py          how many steps a call of the program makes
validation.py    the validation split, measured now and then
speedometer.py   the learning rate, the speed and the memory, about once a second
facts.py         what a checkpoint records beside the state
saved_progress.py  how far a run that goes on has come
learner_log.py   the lines of metrics.jsonl, and learners in words
cost.py          what a run will cost, from a few steps of every stage
operations.py    the operations of a traced program, counted
"""
