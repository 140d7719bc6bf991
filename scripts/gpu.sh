#!/usr/bin/env bash
# Measure metarun on one GPU, from a fresh machine on: is it right, how fast is it, and what do the paper's runs reach?
#
#   scripts/gpu.sh [--minutes N] [--out FOLDER] [--parts PART ...] [--retry] [--tiny]
#
# It ends after ten minutes, or N, and goes on where it was when it is called again. Every point is measured in a
# process of its own and kept at once, as JSON and in a table: FOLDER/results.json and FOLDER/results.md, by default in
# bench-results. The order: install check and smoke run; a gradient against a CPU's in float64; matrix products; the
# training step in four settings and each choice by itself; PyTorch; the 60,000-step runs; the other choices together.
#
#   --parts   only some of install, smoke, gradient, peak, step, torch, run
#   --retry   measure again what failed
#   --tiny    a few small points, also without a GPU, to see that all of it works
#
# The runs need `metarun data fetch omniglot`; PyTorch needs METARUN_TORCH_PYTHON or `bench/bench.py --install-torch`.
# The environment is made if there is none, as by train.sh. _environment.sh has the variables.
set -euo pipefail
# shellcheck source=scripts/_environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/_environment.sh"

prepare_environment "${METARUN_EXTRAS-$(accelerator_extra)}"
exec "$environment/bin/python" "$root/bench/gpu.py" "$@"
