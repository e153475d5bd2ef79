# shellcheck shell=bash
# Sourced by the other scripts. prepare_venv installs the package (editable) into $VENV.
# PYTHON is the interpreter that creates $VENV; its default is python3.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
STAMP=$VENV/gan-trainer.stamp # "installing PID", then "CHECKSUM:EXTRA"

fail() {
    echo "$1" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || echo "not a Python that runs"
}

# install EXTRA CHECKSUM
install() {
    local python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        fail "$python is $(version_of "$python"), gan-trainer needs Python 3.10 or newer; name one, for example PYTHON=python3.12 $0"
    echo "Installing gan-trainer into $VENV; the first time takes a few minutes." >&2
    mkdir -p "$VENV"
    echo "installing $$" >"$STAMP"
    "$python" -m venv "$VENV" >&2
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$ROOT${1:+[$1]}" >&2
    echo "$2:$1" >"$STAMP"
}

# prepare_venv [EXTRA]: does nothing if the package is installed with this extra as the current setup.py describes it.
prepare_venv() {
    local extra=${1:-} wanted stamped='' installer
    # An editable installation refers to its checkout, so a copied or moved checkout must install again.
    wanted=$({ cat "$ROOT/setup.py" && echo "$ROOT"; } | cksum)
    if [ -f "$STAMP" ]; then stamped=$(cat "$STAMP"); fi
    if [ -n "${PYTHON:-}" ] && [ -x "$VENV/bin/python" ] && [ "$(version_of "$PYTHON")" != "$(version_of "$VENV/bin/python")" ]; then
        fail "$VENV holds Python $(version_of "$VENV/bin/python") and PYTHON=$PYTHON is $(version_of "$PYTHON"); delete $VENV to change it"
    fi
    case $stamped in
    "$wanted:$extra"*) return ;;
    "installing "*)
        installer=${stamped#installing }
        if kill -0 "$installer" 2>/dev/null; then
            fail "Process $installer is installing into $VENV; wait for it, or delete $VENV if it does something else"
        fi
        rm -rf "$VENV" # pip cannot tell an interrupted installation from a complete one
        ;;
    esac
    install "$extra" "$wanted"
}
