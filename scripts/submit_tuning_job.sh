#!/usr/bin/env bash
# Sends a tuning job with gcloud: scripts/submit_tuning_job.sh [--dry_run] REGION [CONFIG [NAME]] [FLAG...]
#   CONFIG defaults to scripts/tuning.yaml, and NAME to the displayName in it, or else to gan-trainer. The project, the
#   bucket, and other variables come from flags of python -m trainer submit, such as --project=my-project, from the
#   environment, or from .env. --dry_run prints the commands and sends nothing.
#   python -m trainer submit does the same without gcloud, and also checks the data and the buckets.
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

submit hp-tuning-jobs scripts/tuning.yaml "$@"
