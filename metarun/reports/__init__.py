"""The report of runs: one HTML file that needs no network. Nothing here writes to a run, and nothing prints.

run_record.py       what a run directory holds, with a plain sentence for all that is missing or damaged
outcome_tables.py   result.json as lines of tables
learning_curves.py  metrics.jsonl as curves with bands; groups and inner steps as points with intervals
charts.py           what a plot shows, without a plotting library
bokeh_figures.py    the plots, interactive; the only importer of bokeh
config_table.py     which keys of the configs differ
repetition.py       the commands that repeat a run
run_section.py      all that the page says about one run
comparison_section.py   all that it says about several runs, beside one another
sweep_section.py    all that it says about a sweep
page.py             the template, filled; the only importer of jinja2
"""
