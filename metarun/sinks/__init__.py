"""Copies of metrics.jsonl in other tools: TensorBoard, Weights & Biases, MLflow. A sink never touches the training.

contract.py           what a sink is
registry.py           the sinks by name, and whether what they need is installed
series.py             rows of metrics.jsonl become named points
bookmark.py           how far a sink has come, and where it writes
transfer.py           what is new goes to one sink, once
launch.py             one process for each sink of a run, and a warning if it ends or stands still
follower.py           what such a process does
tensorboard_files.py  wandb_run.py  mlflow_store.py
"""
