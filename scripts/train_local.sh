#!/usr/bin/env bash
# Creates .venv and trains on this machine: scripts/train_local.sh [FLAGS OF trainer.task]
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

prepare_venv
exec "$VENV/bin/python" -m trainer.task "$@"
