"""Every picture of metarun, in one style. Only this package imports matplotlib.

canvas.py            a figure as a PNG file
run_pictures.py      the pictures that a run leaves
metric_curves.py     metrics over the outer steps
contact_sheet.py     pictures of a prediction, with their labels
comparison_plot.py   runs beside one another
steps_plot.py        metrics over the inner steps
drift_plot.py        learners along tasks that drift
vector_map.py        tasks as points, and their similarity
"""
