#!/usr/bin/env bash
# Train the gradient learners with the settings of their papers, one after the other, on a quiet machine of two cores.
#
#   experiments/gradient_learners.sh [--list] [NUMBER ...]
#
# Without a number it trains all; --list shows them. A run that is done is not trained again, and one that was stopped
# goes on. Runs are in runs/gradient-learners/NUMBER-NAME.
set -euo pipefail
cd "$(dirname "$0")/.."

OMNIGLOT=configs/omniglot/5way-1shot
TABLE=configs/omniglot/5way-1shot-2000-steps
LONGER="training.tasks_per_step=32"  # as many pictures a step as MAML has in the table of 2,000 steps
PAPER_MODEL="model.scale=false model.head_deviation=1.0 algorithm.adapts_normalisation=false"
ALFA_CODE="algorithm.decay=subtracted algorithm.per_step=true algorithm.constant_gradient=true"
ALFA_CODE="$ALFA_CODE algorithm.adapts_normalisation=false"
IMAML_CODE="algorithm.solver=fixed algorithm.inner_steps=16 algorithm.inner_lr=0.1 algorithm.proximity=2.0"
IMAML_CODE="$IMAML_CODE algorithm.test_proximity=false algorithm.damping=1.0 algorithm.curvature_damping=10.0"
IMAML_CODE="$IMAML_CODE model.head=flatten model.head_deviation=0.15 training.optimizer.eps=1.0e-3"
THREE="task.modes=[sinusoid,line,quadratic] training.tasks_per_step=75"
FIVE="task.modes=[sinusoid,line,quadratic,absolute,tanh] training.tasks_per_step=125"

# name | config | overrides. Each comment says what the run is for.
RUNS=(
  # CAVIA's Table 1: MAML with 0, 1, 2 and 5 additional inputs; 0.33, 0.29, 0.24, 0.23 in the paper.
  "cavia-protocol-0|configs/sinusoid/maml-cavia-protocol.yaml|model.extra_inputs=0 replicas=3"
  "cavia-protocol-1|configs/sinusoid/maml-cavia-protocol.yaml|model.extra_inputs=1 replicas=3"
  "cavia-protocol-2|configs/sinusoid/maml-cavia-protocol.yaml|model.extra_inputs=2 replicas=3"
  "cavia-protocol-5|configs/sinusoid/maml-cavia-protocol.yaml|replicas=3"
  # MMAML's MAML on 2, 3 and 5 modes; 1.085, 1.231, 1.668 in the paper.
  "mixture-2|configs/mixture/maml-paper.yaml|"
  "mixture-3|configs/mixture/maml-paper.yaml|$THREE"
  "mixture-5|configs/mixture/maml-paper.yaml|$FIVE"
  # At one budget of pictures with omniglot/5way-1shot-2000-steps/maml.yaml (95.6 %).
  "maml-paper-model|$TABLE/maml.yaml|$PAPER_MODEL"
  "maml-plus-plus-32-tasks|$TABLE/maml-plus-plus.yaml|$LONGER"
  "alfa-32-tasks|$TABLE/alfa.yaml|$LONGER"
  "alfa-code-32-tasks|$TABLE/alfa.yaml|$LONGER $ALFA_CODE"
  "imaml-code-32-tasks|$TABLE/imaml.yaml|$LONGER $IMAML_CODE"
  # The papers' settings on Omniglot, 5 ways, 1 shot.
  "imaml|$OMNIGLOT/imaml.yaml|"
  "imaml-hessian-free|$OMNIGLOT/imaml.yaml|algorithm.solver=hessian_free algorithm.inner_steps=5"
  "maml-plus-plus|$OMNIGLOT/maml-plus-plus.yaml|"
  "reptile|$OMNIGLOT/reptile.yaml|"
  "cavia|$TABLE/cavia.yaml|training.steps=60000 training.tasks_per_step=16 training.optimizer.learning_rate=1.0e-3"
)

if [[ ${1:-} == --list ]]; then
  for index in "${!RUNS[@]}"; do echo "$((index + 1))  ${RUNS[index]//|/  }"; done
  exit
fi

numbers=("$@")
if [[ $# == 0 ]]; then mapfile -t numbers < <(seq ${#RUNS[@]}); fi
for number in "${numbers[@]}"; do
  IFS="|" read -r name file overrides <<< "${RUNS[number - 1]}"
  folder="runs/gradient-learners/$(printf %02d "$number")-$name"
  if [[ -e $folder ]]; then
    metarun train "$folder" --resume
  else
    # shellcheck disable=SC2086  # the overrides are words of their own
    metarun train "$file" --run-dir "$folder" $overrides
  fi
done
