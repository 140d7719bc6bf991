#!/usr/bin/env bash
# Train the gradient learners with the settings of their papers, one after the other, on a quiet machine of two cores.
#
#   experiments/gradient_learners.sh [--list] [NUMBER ...]
#
# Without a number it trains all; --list shows them. A run that is done is not trained again, and one that was stopped
# goes on. Runs are in runs/gradient-learners/NUMBER-NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=experiments/_train.sh
source experiments/_train.sh

OMNIGLOT=configs/omniglot/5way-1shot
TABLE=configs/omniglot/5way-1shot-2000-steps
PAPER_MODEL="model.scale=false model.head_deviation=1.0 algorithm.adapts_normalisation=false"
ALFA_CODE="algorithm.decay=subtracted algorithm.per_step=true algorithm.constant_gradient=true"
ALFA_CODE="$ALFA_CODE algorithm.adapts_normalisation=false"
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
  # At the budget of pictures of the table of 2,000 steps.
  "maml-paper-model|$TABLE/maml.yaml|$PAPER_MODEL"
  "alfa-code|$TABLE/alfa.yaml|$ALFA_CODE"
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
  # shellcheck disable=SC2086  # the overrides are words of their own
  train_or_resume "$folder" "$file" $overrides
done
