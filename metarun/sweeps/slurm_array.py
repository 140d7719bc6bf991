"""A sweep as an array job of SLURM: each task is a `metarun sweep` that trains what no other one trains."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPT = "array.sh"
TEXT = """#!/usr/bin/env bash
#SBATCH --job-name=metarun-sweep
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --output={folder}/slurm-%A-%a.txt
#SBATCH --signal=TERM@120
#SBATCH --requeue
# One sweep on several nodes of a SLURM cluster that share this folder. Every task of the array trains programs that no
# other task trains, and leaves when none is left; the last one ranks. Options may be overridden on the command line of
# sbatch, such as --gpus=1, --partition or --time. Two minutes before the time limit a task saves its state and stops; a
# job that is requeued goes on where it was, and so does the same command called again.
set -euo pipefail
cd {place}
exec {command}
"""


def make_script(folder: Path, arguments: Sequence[str], tasks: int) -> str:
    """Return the text of an array script.

    Args:
      folder: of the sweep.
      arguments: of `metarun sweep`, without `--slurm` and without the folder.
      tasks: of the array.
    """
    own = ["--sweep-dir", str(folder.absolute()), "--no-wait"]
    command = shlex.join([sys.executable, "-m", "metarun", "sweep", *arguments, *own])
    return TEXT.format(
        last=tasks - 1, folder=folder.absolute(), place=shlex.quote(str(Path.cwd())), command=command
    )
