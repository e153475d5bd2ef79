# shellcheck shell=bash
# Sourced by the scripts that call gcloud. Prints their first comment for --help, and removes --dry_run from arguments.

fail() {
    echo "error: $1" >&2
    exit 2
}

# run COMMAND...: runs the command, or prints it if --dry_run was passed.
run() {
    if [ "$dry_run" = yes ]; then
        printf '%q ' "$@" | sed 's/ $//'
        echo
    else
        "$@"
    fi
}

# render CONFIG REGION: prints the job file with the values of its variables, which come from the environment and .env.
render() {
    local root python
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=${PYTHON:-python3}
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -m trainer submit --config="$1" --region="$2" --render
}

# submit KIND CONFIG [REGION [CONFIG [NAME]]]
submit() {
    local kind=$1 config=$2 rendered
    shift 2
    { [ $# -ge 1 ] && [ $# -le 3 ]; } || fail "expected REGION [CONFIG [NAME]], got $# arguments; $0 --help shows how to call it"
    config=${2:-$(dirname "${BASH_SOURCE[0]}")/../$config}
    [ -f "$config" ] || fail "$config does not exist; name the file of a job"
    rendered=$(mktemp "${TMPDIR:-/tmp}/gan-trainer-XXXXXX")
    trap "rm -f '$rendered'" EXIT
    if [ "$dry_run" = yes ]; then
        run python -m trainer submit --config="$config" --region="$1" --render ">$rendered"
    else
        render "$config" "$1" >"$rendered"
    fi
    run gcloud ai "$kind" create --region="$1" --display-name="${3:-gan-trainer}" --config="$rendered"
}

dry_run=no
case ${1:-} in
--help | -h)
    sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
--dry_run)
    dry_run=yes
    shift
    ;;
esac
