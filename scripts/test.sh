#!/usr/bin/env bash
# Checks formatting, lint, types, and prose, and runs the tests; stops at the first failure.
#
#   scripts/test.sh [PYTEST ARGUMENTS]           the fast tests: less than 20 minutes on 2 cores after the installation
#   scripts/test.sh --all [PYTEST ARGUMENTS]     all tests: less than 40 minutes
#   scripts/test.sh --slow [PYTEST ARGUMENTS]    only the tests that are marked as slow, without the other checks
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

tier=(-m "not slow")
checks=true
case ${1:-} in
--all)
    tier=()
    shift
    ;;
--slow)
    tier=(-m slow)
    checks=false
    shift
    ;;
esac

prepare_venv test
cd "$ROOT"
python=$VENV/bin/python
if $checks; then
    "$python" -m ruff format --check .
    "$python" -m ruff check .
    "$python" -m mypy
    "$python" -m proselint check --config .proselintrc.json README.md CONTRIBUTING.md CHANGELOG.md docs/*.md
fi
# Bash 3.2 treats an empty array as unset.
"$python" -m pytest --numprocesses=2 --dist=worksteal ${tier[@]+"${tier[@]}"} "$@"
