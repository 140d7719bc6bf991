#!/usr/bin/env bash
# Meta-train, from a fresh machine on: `metarun train CONFIG ...`, which ends with the final evaluation.
#
#   scripts/train.sh CONFIG [key=value ...] [options of metarun train]
#
# CONFIG is looked for in the caller's folder first, then in the repository. The environment is made if there is
# none; where an NVIDIA driver answers it has the extra cuda13 or cuda12, or what METARUN_EXTRAS says instead (tpu;
# nothing, for the CPU). _environment.sh has the other variables.
set -euo pipefail
# shellcheck source=scripts/_environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/_environment.sh"

# ARGUMENT: the path of the config; an option passes through.
find_config() {
    if [[ $1 == -* || -e $1 ]]; then
        printf '%s\n' "$1"
    elif [[ $1 != /* && -e $root/$1 ]]; then
        printf '%s\n' "$root/$1"
    else
        fail 3 "there is no config $1" "$PWD and $root" "give the path of a YAML file, as in configs/"
    fi
}

(($#)) || fail 2 "no config is given" "scripts/train.sh" "scripts/train.sh CONFIG [key=value ...]"
config=$(find_config "$1")
extras=${METARUN_EXTRAS-$(accelerator_extra)}
prepare_environment "$extras"
exec "$environment/bin/metarun" train "$config" "${@:2}"
