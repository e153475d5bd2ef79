"""Requests that `submit` would send. test_cloud_refusals.py has the jobs that it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import check_command_refusal
from specs import JOB, PACKAGE, STUDY, TUNING, changed

from trainer.cli import submit
from trainer.cloud.jobs import job_request, source_package

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
REQUESTS = Path(__file__).parent / "requests"
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
OUTPUT = {"outputUriPrefix": "gs://bkt/run"}
RIGHT = JOB | {"baseOutputDirectory": OUTPUT}
RATE = {"parameterId": "generator_learning_rate", "doubleValueSpec": {"minValue": 1e-5, "maxValue": 1e-3}}
SWEEP = TUNING | {"studySpec": STUDY | {"parameters": [RATE]}, "trialJobSpec": RIGHT}
PACKAGED = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=PACKAGE)
UNBUILT = changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=...)


@pytest.fixture
def file(tmp_path):
    """Writes a job file and returns its path."""

    def write(content):
        path = tmp_path / "job.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def dry_run(file, capsys):
    """Returns the request that would be sent for the content of a file."""

    def run(content, *arguments):
        path = content if isinstance(content, Path) else file(content)
        assert submit.main(["submit", f"--config={path}", "--dry_run", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def package(monkeypatch):
    """Replaces the source distribution, which takes seconds to build."""
    monkeypatch.setattr(source_package, "_build", lambda project: ("gan_trainer-0.1.0.tar.gz", b"package"))


@pytest.mark.parametrize("flag", ["--dry_run", "--render"])
def test_the_cost_per_hour_is_printed_beside_the_result(file, tmp_path, capsys, flag):
    header = "region,name,strategy,price_per_hour,currency,date"
    (tmp_path / "prices.csv").write_text(f"{header}\nus-east1,n1-standard-4,,0.5,USD,2026-01-31\n")
    argv = ["submit", f"--config={file(RIGHT)}", flag, f"--price_table={tmp_path}/prices.csv"]
    assert submit.main([*argv, "--project=p", "--region=us-east1"]) == 0
    printed = capsys.readouterr()
    assert "0.50 USD" in json.loads(printed.err)["message"] and "USD" not in printed.out


@pytest.mark.parametrize("name", [*FILES, "scripts/prepare.yaml"])
def test_the_request_of_each_file_equals_the_golden_one(dry_run, package, name):
    flags = ["--project=my-project", "--region=us-central1"]
    flags += ["--staging_bucket=gs://mine"] if "package" in name else []
    golden = json.loads((REQUESTS / f"{Path(name).stem}.json").read_text())
    assert dry_run(ROOT / name, *flags) == golden


@pytest.mark.parametrize("content", [ROOT / "scripts/python_package.yaml", UNBUILT])
def test_a_dry_run_shows_a_package_in_an_unnamed_bucket(dry_run, package, content):
    ((uri,),) = (
        one["pythonPackageSpec"]["packageUris"] for one in dry_run(content)["body"]["jobSpec"]["workerPoolSpecs"]
    )
    assert re.fullmatch(r"gs://BUCKET/packages/gan_trainer-0\.1\.0-[0-9a-f]{64}\.tar\.gz", uri)


def test_a_dry_run_needs_no_project_or_region(dry_run):
    assert dry_run(RIGHT) == {
        "method": "POST",
        "url": "https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/REGION/customJobs",
        "body": {"displayName": "gan-trainer", "jobSpec": RIGHT},
    }


def test_a_dry_run_names_the_region_of_its_request(file, capsys):
    argv = ["submit", f"--config={file(RIGHT)}", "--dry_run", "--project=p", "--regions=us-east1,us-east4"]
    assert submit.main(argv) == 0
    printed = capsys.readouterr()
    assert "us-east1-aiplatform" in json.loads(printed.out)["url"] and "us-east1" in printed.err


def test_flags_change_name_account_and_args_of_every_pool(dry_run):
    pools = JOB["workerPoolSpecs"] * 2
    two = changed(RIGHT, workerPoolSpecs=pools, scheduling={"restartJobOnWorkerRestart": True})
    flags = [
        "--display_name=mine",
        "--service_account=me@x.iam.gserviceaccount.com",
        "--args=--recipe=dcgan,--steps=3",
        "--args=--seed=1",
    ]
    args = ["--recipe=dcgan", "--steps=3", "--seed=1"]
    expected = changed(
        two | {"serviceAccount": "me@x.iam.gserviceaccount.com"},
        workerPoolSpecs__0__containerSpec__args=args,
        workerPoolSpecs__1__containerSpec__args=args,
    )
    assert dry_run(two, *flags)["body"] == {"displayName": "mine", "jobSpec": expected}


def test_flags_change_name_and_account_of_a_tuning_job(dry_run):
    named = SWEEP | {"displayName": "sweep"}
    assert dry_run(named)["body"] == named
    changed_body = dry_run(named, "--display_name=mine", "--service_account=me@x.iam.gserviceaccount.com")["body"]
    assert changed_body == named | {
        "displayName": "mine",
        "trialJobSpec": named["trialJobSpec"] | {"serviceAccount": "me@x.iam.gserviceaccount.com"},
    }


@pytest.mark.parametrize("text", ["$PROJECT", "${BUCKET}/x", "$(PROJECT)", "MY_PROJECT", "PROJECTS", "my-project"])
def test_names_of_variables_are_no_placeholders(text):
    job_request.check_placeholders({"env": [{"name": "PROJECT", "value": "x"}], "args": [text]})


def test_a_dry_run_prints_placeholders(dry_run):
    url = dry_run(RIGHT, "--project=PROJECT", "--region=REGION")["url"]
    assert "projects/PROJECT/locations/REGION" in url


def test_without_the_sdk_the_extra_is_named(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    argv = ["submit", f"--config={file(RIGHT)}", "--project=p", "--region=us-central1"]
    install = "pip install 'gan-trainer[vertex]'"
    check_command_refusal(submit.main, argv, capsys, 2, "google-cloud-aiplatform", install)


@pytest.mark.slow
def test_a_dry_run_is_json_in_any_encoding(file):
    command = [
        sys.executable,
        "-m",
        "trainer",
        "submit",
        f"--config={file(RIGHT)}",
        "--dry_run",
        "--display_name=Gr\xf6\xdfe",
    ]
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["body"]["displayName"] == "Gr\xf6\xdfe"


def test_ctrl_c_before_sending_promises_no_checkpoint(file, capsys, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "read_yaml", interrupt)
    assert submit.main(["submit", f"--config={file(RIGHT)}", "--dry_run"]) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "checkpoint" not in error
