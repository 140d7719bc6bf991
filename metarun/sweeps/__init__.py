"""Sweeps: many settings of one config, ranked on the validation split. Training happens in processes of its own.

    axes             what a sweep tries: log(1e-4,1e-2,8), 0.01,0.1, 0..2
    request          what was asked for, checked, and the config of each setting
    sweep_directory  the files of a sweep, and its locks
    halving          the rungs of successive halving
    searches         which settings come next: the grid, or what Optuna proposes
    programs         trials that train side by side in one run, and what keeps others apart
    probe            the questions that need jax, in a process of its own
    course           from the files that are there to what has to be trained next
    workers          the processes that train, one a device
    slurm_array      the same as an array job
    scores           what the trials reached on the validation episodes
    ranking          the settings from best to worst, with paired intervals
    importances      how much each key matters
    winner           the best setting as a config, measured on the test split
    controls         the method of a config and the runs that show what it owes to what
    stage_flops      what stages cost, so that a control can cost as much
    shared_stages    stages that a control takes from its method
    control_runs     they are trained by the same workers, and compared by pairs

Importing it imports no jax: the devices belong to the programs.
"""
