#!/usr/bin/env bash
# Run a test suite, from a fresh machine on.
#
#   scripts/test.sh [pytest arguments]                   everything but the three suites below, in parallel
#   scripts/test.sh --slow [pytest arguments]            whole runs that take seconds each
#   scripts/test.sh --fault [--long] [pytest arguments]  the attackers of tests/fault: they kill processes, fill disks
#                                                        and damage files, and count; --long tries 20 times as much
#   scripts/test.sh --reproduction [pytest arguments]    trains until a number is reached
#
# pytest runs in the repository's root, whatever the caller's folder; a -m or -n among its arguments overrides ours.
# The environment has the extra test, and those of METARUN_EXTRAS. _environment.sh has the other variables.
set -euo pipefail
# shellcheck source=scripts/_environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/_environment.sh"

prepare_environment "test${METARUN_EXTRAS:+,$METARUN_EXTRAS}"
cd "$root"
parallel=(-n auto --maxprocesses 8) # each process holds a jax of its own
case ${1-} in
    --fault) # an attack takes seconds or minutes
        mark=fault
        suite=("${parallel[@]}" --dist worksteal -m fault)
        shift
        if [[ ${1-} == --long ]]; then
            export METARUN_FAULT_LONG=1
            shift
        fi
        ;;
    --slow)
        mark=slow
        suite=("${parallel[@]}" --dist worksteal -m slow)
        shift
        ;;
    --reproduction)
        mark=reproduction
        suite=("${parallel[@]}" -m reproduction)
        shift
        ;;
    *) # the tests of a file share what they have traced and compiled
        mark=default
        suite=("${parallel[@]}" --dist loadfile --no-loadscope-reorder -m "not fault and not reproduction and not slow")
        ;;
esac
# Compiling takes most of the time where nobody trains for long, so LLVM does not optimise, XLA's older emitters write
# its loops, and a program is compiled in one piece, unless the caller has XLA_FLAGS.
if [[ $mark != reproduction ]]; then
    quick="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    quick+=" --xla_cpu_parallel_codegen_split_count=1"
    export XLA_FLAGS=${XLA_FLAGS-$quick}
fi
exec "$environment/bin/python" -m pytest "${suite[@]}" "$@"
