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

# trainer ARGUMENT...: runs a command of this package.
trainer() {
    local root python
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=${PYTHON:-python3}
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -m trainer "$@"
}

# submit KIND CONFIG [REGION [CONFIG [NAME]]] [FLAG...]
#   The rendered file has the values of the variables. Its first line is the command of gcloud that sends it, with the
#   name, the labels, the key, and the project as flags, and --config=FILE at the end.
submit() {
    local kind=$1 config=$2 rendered command render argument flags=() words=()
    shift 2
    for argument in "$@"; do
        case $argument in
        --dry_run) dry_run=yes ;;
        --*) flags+=("$argument") ;;
        *) words+=("$argument") ;;
        esac
    done
    set -- ${words[@]+"${words[@]}"}
    { [ $# -ge 1 ] && [ $# -le 3 ]; } || fail "expected REGION [CONFIG [NAME]], got $# arguments; $0 --help shows how to call it"
    config=${2:-$(dirname "${BASH_SOURCE[0]}")/../$config}
    [ -f "$config" ] || fail "$config does not exist; name the file of a job"
    rendered=$(mktemp "${TMPDIR:-/tmp}/gan-trainer-XXXXXX")
    trap "rm -f '$rendered'" EXIT
    render=(submit --config="$config" --region="$1" ${3:+"--display_name=$3"} ${flags[@]+"${flags[@]}"} --render)
    trainer "${render[@]}" >"$rendered"
    IFS= read -r command <"$rendered"
    eval "set -- ${command#\# }" # Python has quoted the words for a shell
    [ "${*:1:3}" = "gcloud ai $kind" ] || fail "$config is not a file for gcloud ai $kind; use the other script"
    if [ "$dry_run" = yes ]; then
        echo "$(run python -m trainer "${render[@]}") > job.yaml"
        rendered=job.yaml
    fi
    run "${@:1:$#-1}" --config="$rendered"
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
