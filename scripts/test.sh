#!/usr/bin/env bash
# Formatting, lint, types, tests, up to the first that fails: scripts/test.sh [ARGUMENTS OF pytest]
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

prepare_venv test
cd "$ROOT"
python=$VENV/bin/python
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy
"$python" -m pytest --numprocesses=2 --dist=worksteal "$@"
