# shellcheck shell=bash
# The Python environment that scripts/*.sh and .ci/run share. Sourced, never run.
#
#   METARUN_PYTHON   the Python to build it with         (default: the newest of 3.11 to 3.13 on PATH)
#   METARUN_VENV     its folder                          (default: .venv in the repository's root)
#   METARUN_EXTRAS   extras of pyproject.toml, with commas between them; what each script does with it is said there
#
# The folder belongs to these scripts. Its file .metarun-state has a line for each set of extras that was installed
# and the pyproject.toml it was installed from, or the word "unfinished": then an installation was killed, and the
# next one builds the environment anew.

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
environment=${METARUN_VENV:-$root/.venv}
[[ $environment == /* ]] || environment=$PWD/$environment
state=$environment/.metarun-state
python="" # set by find_python

say() {
    printf 'metarun: %s\n' "$1" >&2
}

# EXIT_CODE WHAT WHERE REMEDY: the three lines of every error of metarun.
fail() {
    printf 'error: %s\nwhere: %s\nto do: %s\n' "$2" "$3" "$4" >&2
    exit "$1"
}

# The extra of pyproject.toml for the GPU's driver; nothing where none answers.
accelerator_extra() {
    local report version=0
    have nvidia-smi || return 0
    if ! report=$(nvidia-smi 2>/dev/null); then
        say "nvidia-smi does not answer: the CPU is used"
        return 0
    fi
    # Newer drivers print "CUDA UMD Version".
    [[ $report =~ CUDA[A-Z\ ]*\ Version:\ *([0-9]+) ]] && version=${BASH_REMATCH[1]}
    if ((version >= 13)); then
        echo cuda13
    elif ((version == 12)); then
        echo cuda12
    else
        say "the NVIDIA driver offers no CUDA 12 or newer: the CPU is used"
    fi
}

# EXTRAS: afterwards the environment has metarun, editable, and these extras.
prepare_environment() {
    local from line
    from="$root | $(cksum <"$root/pyproject.toml")"
    line="$from | $1"
    is_ready "$line" && return
    find_python
    check_folder
    take_lock
    is_ready "$line" || install "$1" "$line" "$from" # another script may have done it meanwhile
    exec 9>&-                                         # gives the lock back
}

is_ready() {
    grep -qsxF -- "$1" "$state" && runs "$environment/bin/python"
}

runs() {
    "$1" -c "" >/dev/null 2>&1
}

# Sets `python`; leaves it empty where only uv can bring one.
find_python() {
    local candidate
    if [[ -n ${METARUN_PYTHON-} ]]; then
        is_suitable "$METARUN_PYTHON" || fail 2 "METARUN_PYTHON is no Python 3.11, 3.12 or 3.13 with venv" \
            "METARUN_PYTHON=$METARUN_PYTHON" "give the path of one, or unset it"
        python=$METARUN_PYTHON
        return
    fi
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if is_suitable "$candidate"; then
            python=$candidate
            return
        fi
    done
    have uv || fail 2 "there is no Python 3.11, 3.12 or 3.13 with venv here" "PATH=$PATH" \
        "install one (python3.12 and python3.12-venv on Debian), or uv, which brings its own, or set METARUN_PYTHON"
}

# Debian keeps ensurepip, which venv needs, in a package of its own. uv needs neither.
is_suitable() {
    local needs="sys"
    have uv || needs="sys, ensurepip, venv"
    "$1" -c "import $needs; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" >/dev/null 2>&1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Refuses a folder that holds something else: what was killed half-way is deleted and built anew.
check_folder() {
    local content
    mkdir -p "$environment" || fail 8 "the environment's folder cannot be made" "$environment" \
        "set METARUN_VENV to a folder that can be written"
    content=$(ls -A "$environment") # looked at first: what another of these scripts puts there begins with the lock
    if [[ -n $content && ! -e $environment/.metarun-lock && ! -e $environment/pyvenv.cfg ]]; then
        fail 2 "the folder is neither empty nor a virtual environment" "$environment" \
            "set METARUN_VENV to a new folder"
    fi
}

# On file descriptor 9, so that the lock ends with this process however that ends.
take_lock() {
    exec 9>>"$environment/.metarun-lock"
    if have flock; then
        flock --nonblock 9 || { say "waiting for another installation into $environment" && flock 9; }
    elif [[ -n $python ]]; then # macOS has no flock command
        "$python" -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX)"
    fi
}

# EXTRAS LINE FROM
install() {
    local kept
    if [[ $(cat "$state" 2>/dev/null) == unfinished ]]; then
        say "the last installation was interrupted: building $environment anew"
        find "$environment" -mindepth 1 -maxdepth 1 ! -name .metarun-lock -exec rm -rf {} +
    fi
    kept=$(grep -sF -- "$3 | " "$state" || true)
    trap 'exit 130' INT # pip answers a signal as it answers any failure: the state must stay "unfinished"
    trap 'exit 143' TERM
    say "installing metarun${1:+ with $1} into $environment"
    echo unfinished >"$state"
    if ! { make_environment && install_package "$root${1:+[$1]}"; } >&2; then
        rm -f "$state" # it failed on its own, in good order: what is there can be built upon
        fail 1 "the installation failed" "$environment" "see the lines above: mostly the network, or the disk"
    fi
    printf '%s\n' ${kept:+"$kept"} "$2" >"$state.new"
    mv "$state.new" "$state"
    trap - INT TERM
}

make_environment() {
    if runs "$environment/bin/python"; then
        return
    elif have uv; then
        uv venv --quiet --allow-existing --python "${python:-3.12}" "$environment"
    else
        "$python" -m venv "$environment"
    fi
}

install_package() {
    local inside=$environment/bin/python
    if have uv; then
        uv pip install --python "$inside" --editable "$1"
        return
    fi
    "$inside" -m pip --version >/dev/null 2>&1 || "$inside" -m ensurepip || return # uv makes environments without
    "$inside" -m pip install --disable-pip-version-check --editable "$1"
}
