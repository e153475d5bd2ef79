"""What `submit` would send, and the sentence for each thing that it refuses before anything is sent."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from specs import CONTAINER, JOB, PACKAGE, STUDY, TUNING, changed, child

from trainer import submit
from trainer.cloud import distribution, request as requests

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
REQUESTS = Path(__file__).parent / "requests"
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
OUTPUT = {"outputUriPrefix": "gs://b/run"}
RIGHT = JOB | {"baseOutputDirectory": OUTPUT}
RATE = {"parameterId": "generator_learning_rate", "doubleValueSpec": {"minValue": 1e-5, "maxValue": 1e-3}}
SWEEP = TUNING | {"studySpec": STUDY | {"parameters": [RATE]}, "trialJobSpec": RIGHT}
PACKAGED = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=PACKAGE)
UNBUILT = changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=...)
WHERE = "workerPoolSpecs[0].containerSpec.args"


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
    """The request that would be sent for the content of a file."""

    def run(content, *arguments):
        path = content if isinstance(content, Path) else file(content)
        assert submit.main(["submit", f"--config={path}", "--dry_run", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def package(monkeypatch):
    """In place of the source distribution, which takes seconds to build."""
    monkeypatch.setattr(distribution, "_built", lambda project: ("gan_trainer-0.1.0.tar.gz", b"package"))


@pytest.mark.parametrize("name", FILES)
def test_the_request_of_each_file_of_this_repository_is_this(dry_run, package, name):
    flags = ["--project=my-project", "--region=us-central1", "--staging_bucket=gs://mine"]
    golden = json.loads((REQUESTS / f"{Path(name).stem}.json").read_text())
    assert dry_run(ROOT / name, *flags) == golden


@pytest.mark.parametrize("content", [ROOT / "scripts/python_package.yaml", UNBUILT])
def test_a_dry_run_shows_a_package_in_a_bucket_that_is_yet_to_be_named(dry_run, package, content):
    ((uri,),) = (
        one["pythonPackageSpec"]["packageUris"] for one in dry_run(content)["body"]["jobSpec"]["workerPoolSpecs"]
    )
    assert re.fullmatch(r"gs://BUCKET/packages/gan_trainer-0\.1\.0-[0-9a-f]{64}\.tar\.gz", uri)


def test_a_dry_run_needs_neither_project_nor_region_nor_sdk(dry_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    assert dry_run(RIGHT) == {
        "method": "POST",
        "url": "https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/REGION/customJobs",
        "body": {"displayName": "gan-trainer", "jobSpec": RIGHT},
    }


def test_flags_change_name_account_and_args_of_every_pool(dry_run):
    two = changed(RIGHT, workerPoolSpecs__1=JOB["workerPoolSpecs"][0])
    flags = ["--display_name=mine", "--service_account=me@x.iam", "--args=--recipe=dcgan,--steps=3", "--args=--seed=1"]
    args = ["--recipe=dcgan", "--steps=3", "--seed=1"]
    expected = changed(
        two | {"serviceAccount": "me@x.iam"},
        workerPoolSpecs__0__containerSpec__args=args,
        workerPoolSpecs__1__containerSpec__args=args,
    )
    assert dry_run(two, *flags)["body"] == {"displayName": "mine", "jobSpec": expected}


def test_the_name_and_the_account_of_a_tuning_job_have_their_place(dry_run):
    named = SWEEP | {"displayName": "sweep"}
    assert dry_run(named)["body"] == named
    changed_body = dry_run(named, "--display_name=mine", "--service_account=me@x.iam")["body"]
    assert changed_body == named | {
        "displayName": "mine",
        "trialJobSpec": named["trialJobSpec"] | {"serviceAccount": "me@x.iam"},
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "the file holds no keys; it must be a CustomJobSpec or a HyperparameterTuningJob."),
        ({"workerPoolSpecs": 3}, "workerPoolSpecs is 3; it must be a list."),
        (JOB, "baseOutputDirectory is missing, so that the results would be lost; give it, or --job_dir=gs://BUCKET/"),
        (
            changed(JOB, workerPoolSpecs__0__containerSpec__args=["--job_dir=runs/x"]),
            f"{WHERE} has --job_dir=runs/x, which is lost with the machine; give gs://BUCKET/NAME.",
        ),
        (
            changed(JOB, workerPoolSpecs__0__containerSpec__args=["--job_dir=gs://"]),
            f"{WHERE} has --job_dir=gs://, which is lost with the machine; give gs://BUCKET/NAME.",
        ),
        (
            changed(RIGHT, baseOutputDirectory__outputUriPrefix="gs://"),
            "baseOutputDirectory.outputUriPrefix is 'gs://'; it must be gs://BUCKET/NAME.",
        ),
        (
            changed(RIGHT, workerPoolSpecs__0__containerSpec__args=["--setps=3"]),
            f"{WHERE}: --setps is not a flag of the trainer; did you mean steps?",
        ),
        (
            changed(RIGHT, workerPoolSpecs__0__containerSpec__args=["--steps=many"]),
            f"{WHERE}: --steps=many does not fit; --steps takes a whole number, or none.",
        ),
        (
            changed(RIGHT, workerPoolSpecs__0__containerSpec__args=["--dry_run"]),
            f"{WHERE} has --dry_run, which trains nothing; remove it.",
        ),
        (
            changed(SWEEP, studySpec__parameters__0__parameterId="generator_learning_rte"),
            "studySpec.parameters, generator_learning_rte is not a flag of the trainer; did you mean generat",
        ),
        (
            changed(SWEEP, studySpec__parameters__0__doubleValueSpec__minValue=-1),
            "studySpec.parameters, generator_learning_rate: generator_learning_rate=-1.0 is too small; the least is ",
        ),
        (
            changed(
                SWEEP,
                studySpec__parameters__1={
                    "parameterId": "augment",
                    "categoricalValueSpec": {"values": ["ada"]},
                    "conditionalParameterSpecs": [child("parentCategoricalValues", ["ada"], STUDY["parameters"][0])],
                },
            ),
            "studySpec.parameters, rate is not a flag of the trainer; ",
        ),
        (
            changed(
                SWEEP,
                studySpec__parameters__1={"parameterId": "job_dir", "categoricalValueSpec": {"values": ["gs://b/x"]}},
            ),
            "studySpec.parameters, job_dir cannot be varied by a tuning job; remove it.",
        ),
        (
            changed(SWEEP, studySpec__metrics__0__metricId="frechett"),
            "studySpec.metrics[0].metricId is 'frechett', which the trainer does not report; did you mean frechet? "
            "Known are frechet, kid, precision,",
        ),
        (
            changed(SWEEP, trialJobSpec__workerPoolSpecs__0__containerSpec__args=["--job_dir=gs://b/x"]),
            f"trialJobSpec.{WHERE} has --job_dir, to which all trials would write; remove it, and give baseOutput",
        ),
        (
            changed(SWEEP, trialJobSpec__baseOutputDirectory=...),
            "trialJobSpec.baseOutputDirectory is missing, so that the results would be lost; give it.",
        ),
        (
            UNBUILT,
            "packageUris is missing, and the package needs a bucket to go to; give --staging_bucket=gs://BUCKET.",
        ),
        (
            changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=["dist/no.tar.gz"]),
            "packageUris has 'dist/no.tar.gz', which is no source distribution here; give a .tar.gz file that exists",
        ),
    ],
)
def test_a_job_that_cannot_work_is_told_before_it_is_sent(file, capsys, content, sentence):
    path = file(content)
    assert submit.main(["submit", f"--config={path}", "--project=p", "--region=us-central1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: {sentence}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--project is missing; give it, or print the request with --dry_run."),
        (["--project=p"], "--region is missing; give it, or print the request with --dry_run."),
        (["--project=My Project", "--region=us-central1"], "project=My Project is no project; give its ID, as in "),
        (["--project=p", "--region=europe"], "region=europe is no region; give one, as in --region=us-central1."),
        (["--dry_run", "--api_endpoint=localhost:1"], "api_endpoint=localhost:1 is no address; give it as http://HO"),
        (["--dry_run", "--staging_bucket=here"], "staging_bucket=here is not in Cloud Storage; write gs://BUCKET."),
        (["--dry_run", f"--display_name={'x' * 129}"], "the display name has 129 characters; the most is 128."),
        (["--dry_run", "--args=--setps=3"], f"{WHERE}: --setps is not a flag of the trainer; did you mean steps?"),
        (["--dry_run", "now"], "'now' is not a flag; flags are written --name=value."),
    ],
)
def test_a_mistake_in_the_flags_is_told(file, capsys, flags, sentence):
    path = file(RIGHT)
    assert submit.main(["submit", f"--config={path}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.replace(f"{path}: ", "").startswith(f"error: {sentence}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            changed(RIGHT, baseOutputDirectory__outputUriPrefix="gs://BUCKET/x"),
            "'gs://BUCKET/x' holds a placeholder; write the name of your bucket for BUCKET.",
        ),
        (
            changed(RIGHT, workerPoolSpecs__0__containerSpec=CONTAINER | {"imageUri": "docker.pkg.dev/PROJECT/gan/i"}),
            "'docker.pkg.dev/PROJECT/gan/i' holds a placeholder; write the name of your project for PROJECT.",
        ),
        (
            RIGHT | {"serviceAccount": "gan-trainer@PROJECT.iam.gserviceaccount.com"},
            "'gan-trainer@PROJECT.iam.gserviceaccount.com' holds a placeholder; write the name of your project for "
            "PROJECT.",
        ),
        (
            changed(RIGHT, workerPoolSpecs__0__containerSpec__args=["--dataset=/gcs/BUCKET/x"]),
            "'--dataset=/gcs/BUCKET/x' holds a placeholder; write the name of your bucket for BUCKET.",
        ),
    ],
)
def test_the_placeholders_of_the_job_files_are_not_sent(file, capsys, content, sentence):
    assert submit.main(["submit", f"--config={file(content)}", "--project=p", "--region=us-central1"]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize("text", ["$PROJECT", "${BUCKET}/x", "$(PROJECT)", "MY_PROJECT", "PROJECTS", "my-project"])
def test_the_names_of_variables_are_no_placeholders(text):
    requests.check_names({"env": [{"name": "PROJECT", "value": "x"}], "args": [text]})


@pytest.mark.parametrize(("name", "flags"), [("project", ["--region=us-central1"]), ("region", ["--project=p"])])
def test_a_placeholder_for_project_or_region_is_printed_and_not_sent(file, dry_run, capsys, name, flags):
    flags = [*flags, f"--{name}={name.upper()}"]
    assert f"{name}s/{name.upper()}".replace("regions", "locations") in dry_run(RIGHT, *flags)["url"]
    assert submit.main(["submit", f"--config={file(RIGHT)}", *flags]) == 2
    assert capsys.readouterr().err == f"error: --{name}={name.upper()} is a placeholder; give the name of your own.\n"


def test_without_the_sdk_the_user_is_told_what_to_install(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    assert submit.main(["submit", f"--config={file(RIGHT)}", "--project=p", "--region=us-central1"]) == 2
    assert capsys.readouterr().err == (
        "error: Vertex AI needs google-cloud-aiplatform; run pip install 'gan-trainer[vertex]'.\n"
    )


def test_a_dry_run_is_json_whatever_standard_output_can_show(file):
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


def test_ctrl_c_before_a_job_is_sent_promises_no_checkpoint(file, capsys, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "read_yaml", interrupt)
    assert submit.main(["submit", f"--config={file(RIGHT)}", "--dry_run"]) == 130
    assert capsys.readouterr().err == "error: interrupted.\n"
