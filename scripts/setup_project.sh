#!/usr/bin/env bash
# Prepares a Google Cloud project for training: scripts/setup_project.sh [--dry_run] PROJECT REGION BUCKET [MEMBER]
#   Enables the services, creates the bucket, the repository of images, and the account that jobs run as, grants the
#   roles, and sets up the credentials that `python -m trainer` uses. MEMBER, such as user:me@example.com or
#   group:team@example.com, may then submit jobs; it defaults to the account of gcloud.
#   Existing resources stay as they are, so it can run again, for example after an error or for another member.
#   --dry_run prints the commands that a new project needs, and runs nothing.
set -eu
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

{ [ $# -ge 3 ] && [ $# -le 4 ]; } ||
    fail "expected PROJECT REGION BUCKET [MEMBER], got $# arguments; $0 --help shows how to call it"
project=$1 region=$2 bucket=${3#gs://} member=${4:-}
[[ $project =~ ^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] ||
    fail "PROJECT $project is not a project ID; give 6 to 30 small letters, digits and hyphens, such as my-project"
[[ $region =~ ^[a-z]+-[a-z]+[0-9]+$ ]] || fail "REGION $region is not a region; give one, such as us-central1"
[[ $bucket =~ ^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$ ]] ||
    fail "BUCKET $3 is not the name of a bucket; give small letters, digits and hyphens, such as my-bucket"
case $member in
'' | user:?*@?* | group:?*@?* | serviceAccount:?*@?* | domain:?* | principal://?* | principalSet://?*) ;;
*) fail "MEMBER $member has no kind; write user:$member, group:$member, or serviceAccount:$member" ;;
esac

# query PLACEHOLDER COMMAND...: prints what the command prints, or the placeholder if --dry_run was passed.
query() {
    local placeholder=$1
    shift
    if [ "$dry_run" = yes ]; then echo "$placeholder"; else "$@"; fi
}

# exists COMMAND...: succeeds if the command succeeds; with --dry_run, nothing exists.
exists() {
    [ "$dry_run" = no ] && "$@" >/dev/null 2>&1
}

# grant COMMAND... waits until the account to which the role goes is known everywhere, which takes seconds.
grant() {
    local attempt
    for attempt in 1 2 3 4 5; do
        if run "$@" --format=none; then return; fi
        [ "$attempt" = 5 ] || sleep "${RETRY_SECS:-5}"
    done
    fail "the role was not granted; correct what the last lines report, and run the same command again"
}

account=gan-trainer@$project.iam.gserviceaccount.com

# The project comes first: the login below takes the project that pays for requests from it.
run gcloud config set project "$project"
run gcloud services enable aiplatform.googleapis.com artifactregistry.googleapis.com cloudbuild.googleapis.com \
    compute.googleapis.com iam.googleapis.com logging.googleapis.com storage.googleapis.com

if exists gcloud storage buckets describe "gs://$bucket"; then
    location=$(gcloud storage buckets describe "gs://$bucket" --format='value(location)' | tr '[:upper:]' '[:lower:]')
    [ "$location" = "$region" ] ||
        fail "gs://$bucket is in $location, and jobs would run in $region; give that region, or another bucket"
else
    run gcloud storage buckets create "gs://$bucket" --project="$project" --location="$region" \
        --uniform-bucket-level-access --public-access-prevention
fi
exists gcloud artifacts repositories describe gan --project="$project" --location="$region" ||
    run gcloud artifacts repositories create gan --project="$project" --location="$region" --repository-format=docker
exists gcloud iam service-accounts describe "$account" --project="$project" ||
    run gcloud iam service-accounts create gan-trainer --project="$project" --display-name='Runs GAN training jobs'

# The account of the jobs: data and runs in this bucket, and nothing else.
grant gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="serviceAccount:$account" \
    --role=roles/storage.objectUser

# The person who submits them.
[ -n "$member" ] || member=user:$(query YOU@EXAMPLE.COM gcloud config get account)
case $member in
user:*.gserviceaccount.com) member=serviceAccount:${member#user:} ;;
user:) fail "gcloud has no account; run gcloud auth login, or give MEMBER" ;;
esac
grant gcloud iam service-accounts add-iam-policy-binding "$account" --project="$project" --member="$member" \
    --role=roles/iam.serviceAccountUser --condition=None
grant gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="$member" --role=roles/storage.objectUser
# For `gcloud builds submit`, which reads the description of the bucket before it writes the source to it.
grant gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="$member" \
    --role=roles/storage.legacyBucketReader
for role in aiplatform.user cloudbuild.builds.editor logging.viewer serviceusage.serviceUsageConsumer; do
    grant gcloud projects add-iam-policy-binding "$project" --member="$member" --role="roles/$role" --condition=None
done

# Cloud Build runs as an account that has no role in projects whose first build is new.
builder=$(query CLOUD_BUILD_ACCOUNT gcloud builds get-default-service-account --project="$project" \
    --format='value(serviceAccountEmail)')
grant gcloud projects add-iam-policy-binding "$project" --member="serviceAccount:${builder##*/}" \
    --role=roles/cloudbuild.builds.builder --condition=None

if [ -z "${GOOGLE_APPLICATION_CREDENTIALS:-}" ]; then # else, these credentials are used, and need no login
    exists gcloud auth application-default print-access-token || run gcloud auth application-default login
    run gcloud auth application-default set-quota-project "$project"
fi
