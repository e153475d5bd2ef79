#!/usr/bin/env bash
# Builds the image of the trainer and pushes it: scripts/build_image.sh [--dry_run] [--cpu] IMAGE [BUCKET]
#   IMAGE is REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG. --cpu omits the CUDA libraries.
#   Uses Cloud Build if gcloud is installed, and Docker otherwise. Cloud Build reads the source from gs://BUCKET/builds.
#   Without BUCKET, it reads it from gs://PROJECT_cloudbuild, which only some roles in the whole project may write.
#   --dry_run prints the commands and runs nothing.
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

requirements=requirements-cuda.lock
if [ "${1:-}" = --cpu ]; then
    requirements=requirements.lock
    shift
fi
{ [ $# -ge 1 ] && [ $# -le 2 ]; } || fail "expected IMAGE [BUCKET], got $# arguments; $0 --help shows how to call it"
case $1 in
*-docker.pkg.dev/*/*/*) ;;
*) fail "$1 is not in Artifact Registry; write REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG" ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if command -v gcloud >/dev/null; then
    run gcloud builds submit --config=scripts/cloudbuild.yaml --substitutions="_IMAGE=$1,_REQUIREMENTS=$requirements" \
        ${2:+"--gcs-source-staging-dir=gs://${2#gs://}/builds"} .
else
    run docker build --platform=linux/amd64 --build-arg="REQUIREMENTS=$requirements" --tag="$1" .
    run docker push "$1"
fi
