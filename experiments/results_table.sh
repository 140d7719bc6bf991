#!/usr/bin/env bash
# Train what the tables of docs/results.md show, one run after the other, on a quiet machine of two cores.
#
#   experiments/results_table.sh [--list] [NAME ...]
#   python scripts/results.py runs/table --out docs/results.md
#
# Without a name it trains all; --list shows them. A run that is done is not trained again, and one that was stopped
# goes on. All of them take some seven hours (an estimate from those that are done).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=experiments/_train.sh
source experiments/_train.sh

# Three seeds, side by side.
SEEDED=(
  sinusoid/{maml,fomaml,anil,boil,meta-sgd,maml-plus-plus,alfa,cavia,reptile,t-net,mt-net,warpgrad,imaml}
  sinusoid/{neural-process,neural-process-attentive,neural-process-conditional,memory,external-memory,snail}
  sinusoid/{pretrain-finetune,maml-cavia-protocol}
  mixture/maml-{2,3,5}modes mixture/conditioned-{3,5}modes-100000-steps
)
# A method and its controls, three seeds or as many as the config has.
CONTROLLED=(
  sinusoid/{fusion,extraction,distillation,distillation-noisy}
  mixture/{hypernetwork,hybrid,conditioned}-{2,3,5}modes omniglot/5way-1shot/hypernetwork
)
# The same with one seed.
CONTROLLED_ONCE=(omniglot/5way-1shot-2000-steps/{alfa,maml-plus-plus})
# One seed: a run takes minutes, and those of 60,000 steps more than an hour.
SINGLE=(
  omniglot/5way-1shot-2000-steps/{protonet,matching,relation,mapping,maml,fomaml,anil,boil,meta-sgd}
  omniglot/5way-1shot-2000-steps/{t-net,cavia,imaml,reptile,transfer,neural-process,external-memory,memory,snail}
  omniglot/5way-1shot/{maml,memory}
)

ALL=("${SEEDED[@]}" "${CONTROLLED[@]}" "${CONTROLLED_ONCE[@]}" "${SINGLE[@]}")

if [[ ${1:-} == --list ]]; then
  printf '%s\n' "${ALL[@]}"
  exit
fi
for name in "$@"; do
  if [[ " ${ALL[*]} " != *" $name "* ]]; then
    printf 'error: this is no row of the tables\nwhere: %s\nto do: take a name of --list\n' "$name" >&2
    exit 2
  fi
done

train() { # name, overrides
  train_or_resume "runs/table/${1//\//-}" "$@"
}

compare() { # name, options
  metarun compare "$1" --controls --controls-dir "runs/table/${1//\//-}-controls" "${@:2}"
}

is_asked() { # name, all that are asked for
  local name=$1
  shift
  [[ $# == 0 || " $* " == *" $name "* ]]
}

for name in "${SEEDED[@]}"; do
  if is_asked "$name" "$@"; then train "$name" replicas=3; fi
done
for name in "${CONTROLLED[@]}"; do
  if is_asked "$name" "$@"; then compare "$name"; fi
done
for name in "${CONTROLLED_ONCE[@]}"; do
  if is_asked "$name" "$@"; then compare "$name" --seeds 1; fi
done
for name in "${SINGLE[@]}"; do
  if is_asked "$name" "$@"; then train "$name"; fi
done
