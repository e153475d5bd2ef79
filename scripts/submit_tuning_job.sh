#!/usr/bin/env bash
# Sends a hyperparameter tuning job with gcloud: scripts/submit_tuning_job.sh [--dry_run] REGION [CONFIG [NAME]]
#   CONFIG defaults to scripts/tuning.yaml, and NAME to gan-trainer. --dry_run prints the command and runs nothing.
#   python -m trainer submit does the same without gcloud, and first checks the flags of the trainer.
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

submit hp-tuning-jobs scripts/tuning.yaml "$@"
