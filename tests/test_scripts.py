"""The scripts that call gcloud and Docker: what they would run, and what the image is made of."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
IMAGE = "us-central1-docker.pkg.dev/my-project/gan/trainer:latest"
CLOUD_BUILD = "gcloud builds submit --config=scripts/cloudbuild.yaml"


def call(tmp_path, script, *arguments, programs=()):
    """Runs a script where these programs are installed beside the usual ones, each of which would fail."""
    for name in ("bash", "cat", "dirname", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name))
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\nexit 99\n")
        (tmp_path / name).chmod(0o755)
    command = ["bash", SCRIPTS / script, *arguments]
    return subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("script", "arguments", "programs", "printed"),
    [
        (
            "submit_custom_job.sh",
            ["us-central1"],
            ["gcloud"],
            "gcloud ai custom-jobs create --region=us-central1 --display-name=gan-trainer --config=ROOT/config.yaml\n",
        ),
        (
            "submit_custom_job.sh",
            ["us-central1", str(SCRIPTS / "multi_worker.yaml"), "mine"],
            ["gcloud"],
            "gcloud ai custom-jobs create --region=us-central1 --display-name=mine "
            f"--config={SCRIPTS}/multi_worker.yaml\n",
        ),
        (
            "submit_tuning_job.sh",
            ["us-central1"],
            ["gcloud"],
            "gcloud ai hp-tuning-jobs create --region=us-central1 --display-name=gan-trainer "
            "--config=ROOT/scripts/tuning.yaml\n",
        ),
        (
            "build_image.sh",
            [IMAGE],
            ["gcloud", "docker"],
            f"{CLOUD_BUILD} --substitutions=_IMAGE={IMAGE}\\,_REQUIREMENTS=requirements-cuda.lock .\n",
        ),
        (
            "build_image.sh",
            ["--cpu", IMAGE],
            ["docker"],
            f"docker build --platform=linux/amd64 --build-arg=REQUIREMENTS=requirements.lock --tag={IMAGE} .\n"
            f"docker push {IMAGE}\n",
        ),
    ],
)
def test_a_dry_run_prints_the_command_and_runs_nothing(tmp_path, script, arguments, programs, printed):
    done = call(tmp_path, script, "--dry_run", *arguments, programs=programs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace(f"{SCRIPTS}/../", "ROOT/") == printed
    (tmp_path / "real").mkdir()
    real = call(tmp_path / "real", script, *arguments, programs=programs)
    assert real.returncode == 99


@pytest.mark.parametrize("script", ["submit_custom_job.sh", "submit_tuning_job.sh", "build_image.sh"])
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
