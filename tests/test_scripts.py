"""The scripts that call gcloud and Docker: what they would run, and what the image is made of."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from shell_commands import gcloud_errors

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
IMAGE = "us-central1-docker.pkg.dev/my-project/gan/trainer:latest"
CLOUD_BUILD = "gcloud builds submit --config=scripts/cloudbuild.yaml"


def call(tmp_path, script, *arguments, programs=(), rendered=""):
    """Runs a script where these programs are installed beside the usual ones, each of which would fail.

    Python prints `rendered`, as if it were the job file for gcloud.
    """
    for name in ("bash", "cat", "dirname", "mktemp", "rm", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name))
    for name, text in {**dict.fromkeys(programs, "exit 99"), "python": f"cat <<'END'\n{rendered}END"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copytree(SCRIPTS, tmp_path / "copy/scripts")  # without the .venv that a checkout may have
    shutil.copy(ROOT / "config.yaml", tmp_path / "copy")
    command = ["bash", tmp_path / "copy/scripts" / script, *arguments]
    environ = {"PATH": str(tmp_path), "PYTHON": str(tmp_path / "python")}  # which renders job files
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "programs", "printed"),
    [
        (
            [IMAGE],
            ["gcloud", "docker"],
            f"{CLOUD_BUILD} --substitutions=_IMAGE={IMAGE}\\,_REQUIREMENTS=requirements-cuda.lock .\n",
        ),
        (
            [IMAGE, "my-bucket"],
            ["gcloud"],
            f"{CLOUD_BUILD} --substitutions=_IMAGE={IMAGE}\\,_REQUIREMENTS=requirements-cuda.lock "
            "--gcs-source-staging-dir=gs://my-bucket/builds .\n",
        ),
        (
            ["--cpu", IMAGE],
            ["docker"],
            f"docker build --platform=linux/amd64 --build-arg=REQUIREMENTS=requirements.lock --tag={IMAGE} .\n"
            f"docker push {IMAGE}\n",
        ),
    ],
)
def test_a_dry_run_prints_the_command_and_runs_nothing(tmp_path, arguments, programs, printed):
    done = call(tmp_path, "build_image.sh", "--dry_run", *arguments, programs=programs)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", printed)
    (tmp_path / "real").mkdir()
    real = call(tmp_path / "real", "build_image.sh", *arguments, programs=programs)
    assert real.returncode == 99


GCLOUD_COMMAND = ["gcloud", "ai", "hp-tuning-jobs", "create", "--project=p", "--display-name=it's $mine"]
RENDERED = f"# {shlex.join([*GCLOUD_COMMAND, '--config=FILE'])}\nstudySpec: {{}}\n"


def test_a_dry_run_of_a_job_prints_commands_that_can_be_pasted(tmp_path):
    arguments = ("--dry_run", "us-central1", str(SCRIPTS / "tuning.yaml"), "it's $mine")
    done = call(tmp_path, "submit_tuning_job.sh", *arguments, programs=["gcloud"], rendered=RENDERED)
    assert (done.returncode, done.stderr) == (0, "")
    render, send = map(shlex.split, done.stdout.splitlines())
    assert render[:4] == ["python", "-m", "trainer", "submit"] and render[-3:] == ["--render", ">", "job.yaml"]
    assert "--display_name=it's $mine" in render and "> job.yaml" in done.stdout
    assert send == [*GCLOUD_COMMAND, "--config=job.yaml"]


def test_flags_of_the_scripts_set_the_variables_of_a_job(tmp_path):
    arguments = ("us-central1", "--project=my-prod", str(SCRIPTS / "tuning.yaml"), "--bucket=my bucket", "--dry_run")
    done = call(tmp_path, "submit_tuning_job.sh", *arguments, programs=["gcloud"], rendered=RENDERED)
    assert (done.returncode, done.stderr) == (0, "")
    render, _ = map(shlex.split, done.stdout.splitlines())
    assert {"--project=my-prod", "--bucket=my bucket"} < set(render)


def test_a_script_refuses_the_file_of_another_kind_of_job(tmp_path):
    done = call(tmp_path, "submit_custom_job.sh", "us-central1", programs=["gcloud"], rendered=RENDERED)
    assert done.returncode == 2 and "config.yaml" in done.stderr and "custom-jobs" in done.stderr


WHOLE_JOB = {
    "displayName": "of the file",
    "labels": {"team": "vision", "cost": "7"},
    "encryptionSpec": {"kmsKeyName": "projects/my-prod/locations/us-central1/keyRings/r/cryptoKeys/k"},
    "jobSpec": {
        "workerPoolSpecs": [
            {
                "replicaCount": 1,
                "machineSpec": {"machineType": "n1-standard-4"},
                "containerSpec": {"imageUri": "image", "args": ["--recipe=digits"]},
            }
        ],
        "baseOutputDirectory": {"outputUriPrefix": "gs://${BUCKET}/run"},
    },
}


@pytest.mark.parametrize(("names", "name"), [([], "of the file"), (["it's mine"], "it's mine")])
def test_gcloud_gets_the_key_the_labels_the_name_and_the_project_of_a_job(tmp_path, names, name):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(WHOLE_JOB, sort_keys=False))
    (tmp_path / "gcloud").write_text(
        f"""#!/bin/sh
printf '%s\n' "$@" >{tmp_path}/call
for last; do :; done
cat "${{last#--config=}}" >{tmp_path}/sent.yaml
"""
    )
    (tmp_path / "gcloud").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}
    environ |= {"PROJECT": "my-prod", "BUCKET": "bkt"}
    command = ["bash", SCRIPTS / "submit_custom_job.sh", "us-central1", "job.yaml", *names]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *called, config = (tmp_path / "call").read_text().splitlines()
    assert called[:3] == ["ai", "custom-jobs", "create"] and config.startswith("--config=")
    assert sorted(called[3:]) == sorted(
        [
            *("--project=my-prod", "--region=us-central1", f"--display-name={name}", "--labels=team=vision,cost=7"),
            f"--kms-key={WHOLE_JOB['encryptionSpec']['kmsKeyName']}",
        ]
    )
    sent = yaml.safe_load((tmp_path / "sent.yaml").read_text())
    assert sent == WHOLE_JOB["jobSpec"] | {"baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run"}}
    assert not Path(config.partition("=")[2]).exists()


@pytest.mark.parametrize(
    "script", ["submit_custom_job.sh", "submit_tuning_job.sh", "build_image.sh", "setup_project.sh"]
)
def test_help_is_the_first_comment_and_a_mistake_is_one_line(tmp_path, script):
    assert os.access(SCRIPTS / script, os.X_OK)
    done = call(tmp_path, script, "--help")
    assert done.returncode == 0 and f"scripts/{script} [--dry_run]" in done.stdout and "set -eu" not in done.stdout
    (tmp_path / "none").mkdir()
    done = call(tmp_path / "none", script)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "arguments", "mention"),
    [
        ("submit_custom_job.sh", ["us-central1", "missing.yaml"], "missing.yaml"),
        ("build_image.sh", ["trainer:latest"], "trainer:latest"),
    ],
)
def test_the_scripts_refuse_what_is_not_there(tmp_path, script, arguments, mention):
    done = call(tmp_path, script, *arguments)
    assert done.returncode == 2 and mention in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cuda.lock"])
def test_the_image_is_made_of_locked_packages_with_hashes(name):
    text = (ROOT / name).read_text()
    packages = dict(re.findall(r"^([a-z0-9][\w.-]*)\S*==(\S+) \\\n    --hash=sha256:", text, re.MULTILINE))
    assert len(packages) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))
    listed = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)[1]
    required = [Requirement(one) for one in re.findall(r'"(.+?)",', listed)]
    assert {one.name for one in required} >= {"keras", "tensorflow"}
    assert [str(one) for one in required if packages[one.name] not in one.specifier] == []
    assert ("nvidia-cudnn-cu12" in packages) == ("cuda" in name)


def test_what_the_image_copies_reaches_the_builder():
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()} - {"${REQUIREMENTS}"}
    assert all((ROOT / name).exists() for name in names)
    for ignore, start in ((".dockerignore", "!"), (".gcloudignore", "!/")):
        sent = {line.removeprefix(start) for line in (ROOT / ignore).read_text().splitlines()}
        assert names | {"requirements.lock", "requirements-cuda.lock"} <= sent


NEW, OTHER_REGION = "describe|print-access-token", "europe-west4"
GCLOUD = """#!/bin/sh
[ "$#" = 0 ] || printf '%s\\n' "gcloud $*" >>"$CALLS"
case "$*" in
*"value(location)"*) echo "$LOCATION" ;;
*"config get account"*) echo "$ACCOUNT" ;;
*get-default-service-account*) echo projects/7/serviceAccounts/7-compute@developer.gserviceaccount.com ;;
esac
if printf '%s' "$*" | grep -Eq "$FAILS"; then exit 1; fi
"""
"""A gcloud that records its calls, and fails if its arguments match an expression."""


def set_up(tmp_path, *arguments, fails="^$", location="US-CENTRAL1", account="me@example.com", **environ):
    """Runs scripts/setup_project.sh with a fake gcloud. Returns the process and the calls that change something."""
    for name in ("bash", "cat", "dirname", "grep", "sed", "sleep", "tr"):
        (tmp_path / name).symlink_to(shutil.which(name))
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    values = {"CALLS": str(calls), "FAILS": fails, "LOCATION": location}
    values |= {"ACCOUNT": account, "PATH": str(tmp_path), "RETRY_SECS": "0", **environ}
    command = ["bash", SCRIPTS / "setup_project.sh", *arguments]
    done = subprocess.run(command, env=values, capture_output=True, text=True, check=False)
    queries = (" describe ", "print-access-token", "config get", "get-default-service-account")
    changes = [call for call in calls.read_text().splitlines() if not any(query in call for query in queries)]
    return done, changes


SET_UP = ("my-project", "us-central1", "my-bucket")
ADC = "gcloud auth application-default"


def position(calls, text):
    """Returns the position of the only call that contains a text."""
    (index,) = [index for index, call in enumerate(calls) if text in call]
    return index


def test_a_new_project_gets_everything_in_an_order_that_works(tmp_path):
    done, calls = set_up(tmp_path, *SET_UP, fails=NEW)
    assert (done.returncode, done.stderr) == (0, "")
    order = ["config set project my-project", "services enable", "buckets create", "repositories create"]
    order += ["service-accounts create", "roles/iam.serviceAccountUser", f"{ADC} login", f"{ADC} set-quota-project"]
    positions = [position(calls, f" {text.removeprefix('gcloud ')}" if "roles" not in text else text) for text in order]
    assert positions == sorted(positions)
    assert "--uniform-bucket-level-access" in calls[positions[2]] and "--location=us-central1" in calls[positions[2]]
    account = "serviceAccount:gan-trainer@my-project.iam.gserviceaccount.com"
    (of_jobs,) = [call for call in calls if account in call]
    assert "buckets add-iam-policy-binding gs://my-bucket" in of_jobs and "roles/storage.objectUser" in of_jobs
    (of_builds,) = [call for call in calls if "serviceAccount:7-compute@" in call]
    assert "roles/cloudbuild.builds.builder" in of_builds
    assert {call.split("--role=")[1].split()[0] for call in calls if "user:me@example.com" in call} == {
        *("roles/aiplatform.user", "roles/cloudbuild.builds.editor", "roles/iam.serviceAccountUser"),
        *("roles/logging.viewer", "roles/serviceusage.serviceUsageConsumer", "roles/storage.objectUser"),
        "roles/storage.legacyBucketReader",
    }
    assert not [call for call in calls if "roles/storage." in call and "gs://my-bucket" not in call]


def test_a_dry_run_prints_the_commands_of_a_new_project(tmp_path):
    done, calls = set_up(tmp_path, "--dry_run", *SET_UP)
    assert (done.returncode, done.stderr, calls) == (0, "", [])
    (tmp_path / "real").mkdir()
    _, calls = set_up(tmp_path / "real", *SET_UP, fails=NEW, account="YOU@EXAMPLE.COM")
    printed = [" ".join(shlex.split(line)) for line in done.stdout.splitlines()]
    assert printed == [call.replace("7-compute@developer.gserviceaccount.com", "CLOUD_BUILD_ACCOUNT") for call in calls]


def test_a_second_run_creates_nothing_and_needs_no_login(tmp_path):
    done, calls = set_up(tmp_path, *SET_UP)
    assert done.returncode == 0 and calls
    assert [call for call in calls if "create" in call or call.endswith("login")] == []
    assert calls[-1] == f"{ADC} set-quota-project my-project"


def test_a_key_file_replaces_the_login(tmp_path):
    done, calls = set_up(tmp_path, *SET_UP, fails=NEW, GOOGLE_APPLICATION_CREDENTIALS="key.json")
    assert done.returncode == 0 and not [call for call in calls if ADC in call]


@pytest.mark.parametrize(
    ("account", "arguments", "member"),
    [
        ("ci@p.iam.gserviceaccount.com", (), "serviceAccount:ci@p.iam.gserviceaccount.com"),
        ("me@example.com", ("group:team@example.com",), "group:team@example.com"),
    ],
)
def test_the_member_is_the_account_of_gcloud_or_the_argument(account, arguments, member, tmp_path):
    done, calls = set_up(tmp_path, *SET_UP, *arguments, account=account)
    assert done.returncode == 0
    assert f"--member={member} " in calls[position(calls, "roles/iam.serviceAccountUser")]


def test_a_role_is_granted_again_until_the_account_is_known(tmp_path):
    done, calls = set_up(tmp_path, *SET_UP, fails="serviceAccountUser")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert len([call for call in calls if "serviceAccountUser" in call]) == 5 and "serviceAccountUser" in calls[-1]


def test_the_first_failure_ends_the_script(tmp_path):
    done, calls = set_up(tmp_path, *SET_UP, fails="services enable")
    assert done.returncode != 0 and "services enable" in calls[-1]


@pytest.mark.parametrize(
    ("arguments", "mention", "settings"),
    [
        ((), "0 arguments", {}),
        (("my-project", "us-central1"), "2 arguments", {}),
        (("My_Project", "us-central1", "my-bucket"), "My_Project", {}),
        (("my-project", "us-central1-a", "my-bucket"), "us-central1-a", {}),
        (("my-project", "us-central1", "gs://My_Bucket!"), "My_Bucket!", {}),
        (("my-project", "us-central1", "my-bucket", "me@example.com"), "user:me@example.com", {}),
        (SET_UP, OTHER_REGION, {"location": OTHER_REGION.upper()}),
        (SET_UP, "auth login", {"account": ""}),
    ],
)
def test_what_cannot_be_set_up_is_one_line(arguments, mention, settings, tmp_path):
    done, calls = set_up(tmp_path, *arguments, **settings)
    assert done.returncode == 2 and mention in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not [call for call in calls if "create" in call]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_accepts_every_command_of_the_set_up(tmp_path):
    done, _ = set_up(tmp_path, "--dry_run", *SET_UP)
    commands = [" ".join(map(shlex.quote, shlex.split(line))) for line in done.stdout.splitlines()]
    commands.append("gcloud builds get-default-service-account --project=p --format='value(serviceAccountEmail)'")
    commands.append("gcloud storage buckets describe gs://b --format='value(location)'")
    assert gcloud_errors(commands, tmp_path) == []
    assert len(gcloud_errors(["gcloud services enablle x", "gcloud storage buckets create"], tmp_path)) == 2


def test_the_base_image_has_a_version_and_a_digest():
    (base,) = re.findall(r"^FROM (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
