#!/usr/bin/env bash
#SBATCH --job-name=metarun
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --output=slurm-%j.txt
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Train one run on several nodes of a SLURM cluster that share this repository and the run's folder.
#
#   sbatch --nodes=4 scripts/slurm.sh CONFIG [key=value ...] [options of metarun train]
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 scripts/slurm.sh CONFIG ...    one process for each GPU
#
# The options above may be overridden on the command line of sbatch. The processes find each other by what srun tells
# them; process 0 listens on the first node. The run lies in runs/slurm-<job>, unless --run-dir says otherwise. Two
# minutes before the time limit all processes save the state and stop. A job that is requeued goes on where it was.
#
#   METARUN_ROOT   the repository   (default: the folder that sbatch was called in, or its parent)
#
# _environment.sh has the other variables.
set -euo pipefail

# EXIT_CODE WHAT WHERE REMEDY
refuse() {
    printf 'error: %s\nwhere: %s\nto do: %s\n' "$2" "$3" "$4" >&2
    exit "$1"
}

# SLURM runs a copy of this file, so that its own folder says nothing.
find_root() {
    local folder
    for folder in "${METARUN_ROOT-}" "${SLURM_SUBMIT_DIR-}" "${SLURM_SUBMIT_DIR-}/.."; do
        if [[ -n $folder && -x $folder/scripts/train.sh ]]; then
            printf '%s\n' "$folder"
            return
        fi
    done
    refuse 2 "the repository of metarun is not found" "${SLURM_SUBMIT_DIR-$PWD}" \
        "call sbatch in the repository, or set METARUN_ROOT to it"
}

[[ -n ${SLURM_JOB_ID-} ]] || refuse 2 "this is no SLURM job" "scripts/slurm.sh" "sbatch scripts/slurm.sh CONFIG"
(($#)) || refuse 2 "no config is given" "scripts/slurm.sh" "sbatch scripts/slurm.sh CONFIG [key=value ...]"
root=$(find_root)
place=(--run-dir "runs/slurm-$SLURM_JOB_ID")
[[ " $* " != *" --run-dir"* ]] || place=()

# The environment is made here, once, and not by all nodes at the same time.
"$root/scripts/train.sh" --help >/dev/null

# Each process of the run is a task of the step; when one fails, the others have no use.
exec srun --kill-on-bad-exit=1 "$root/scripts/train.sh" "$@" ${place[@]+"${place[@]}"} --resume
