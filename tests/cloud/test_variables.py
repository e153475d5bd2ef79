"""Variables in job files, flags that replace values of the file, and the file for gcloud."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import json_format
from refusals import check_command_refusal, check_refusal
from specs import JOB, TUNING, changed

from trainer.cli import local, submit
from trainer.cloud.jobs import source_package, variables
from trainer.errors import ConfigError, StorageError
from trainer.testing.vertex_service import JOB_MESSAGES, VertexService

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
OUTPUT = {"baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run"}}
OUTPUT_URI = "baseOutputDirectory__outputUriPrefix"
RIGHT = JOB | OUTPUT
SWEEP = changed(
    TUNING,
    trialJobSpec=RIGHT,
    studySpec__parameters=[{"parameterId": "seed", "integerValueSpec": {"minValue": 1, "maxValue": 9}}],
)
KEY = "projects/my-project/locations/us-central1/keyRings/r/cryptoKeys/k"
BOARD = "projects/my-project/locations/us-central1/tensorboards/7"
ACCOUNT = "gan@my-project.iam.gserviceaccount.com"
SETTINGS = ("--project=my-project", "--region=us-central1", "--bucket=mine")


@pytest.fixture
def body(tmp_path, capsys):
    """Returns the body of the request of a dry run."""

    def run(content, *flags):
        (tmp_path / "job.json").write_text(json.dumps(content))
        assert submit.main(["submit", f"--config={tmp_path}/job.json", "--dry_run", *SETTINGS, *flags]) == 0
        return json.loads(capsys.readouterr().out)["body"]

    return run


@pytest.fixture
def rendered(capsys):
    """Returns what `submit --render` prints."""

    def run(file, *flags):
        assert submit.main(["submit", f"--config={file}", "--render", *SETTINGS, *flags]) == 0
        return capsys.readouterr().out

    return run


def test_a_flag_comes_before_the_environment_and_the_environment_before_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUCKET", "of-environ")
    monkeypatch.setenv("RUN", "")
    Path(".env").write_text(
        "# comment\nexport PROJECT='my-project'\nBUCKET=of-file\nREGION = us-east1 # near\n"
        'RUN="a/b"\nSECRET=$(x)\n!\n'
    )
    assert variables.read_values({"region": "europe-west4"}) == {
        "PROJECT": "my-project",
        "BUCKET": "of-environ",
        "REGION": "europe-west4",
        "RUN": "a/b",
    }
    Path("other").write_text("BUCKET=other\nPROJECT=other-one")
    assert variables.read_values({"bucket": "mine"}, "other") == {"PROJECT": "other-one", "BUCKET": "mine"}


def test_a_bad_file_of_variables_is_refused_without_its_secrets(tmp_path, monkeypatch):
    check_refusal(lambda: variables.read_values({}, f"{tmp_path}/no"), StorageError, f"{tmp_path}/no")
    (tmp_path / "env").write_bytes(b"\xef\xbb\xbfBUCKET=of-an-editor")  # with a byte order mark
    monkeypatch.delenv("BUCKET", raising=False)
    assert variables.read_values({}, f"{tmp_path}/env") == {"BUCKET": "of-an-editor"}
    (tmp_path / "env").write_text("KEY='several\nlines'\nBUCKET='open")
    check_refusal(lambda: variables.read_values({}, f"{tmp_path}/env"), ConfigError, "BUCKET", "line 3")
    (tmp_path / "env").write_bytes(b"BUCKET=\xff")
    check_refusal(lambda: variables.read_values({}, f"{tmp_path}/env"), ConfigError, f"{tmp_path}/env")
    (tmp_path / "env").write_text("BUCKET=gs://mine")
    check_refusal(lambda: variables.read_values({}, f"{tmp_path}/env"), ConfigError, "BUCKET", "gs://mine")


def test_a_variable_that_a_file_does_not_use_may_belong_to_another_program(body, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RUN", "my run")
    monkeypatch.setenv("BUCKET", "gs://mine")
    assert variables.project_and_region("my-project", None)[0] == "my-project"
    assert body(RIGHT)["jobSpec"] == RIGHT
    (tmp_path / "job.json").write_text(json.dumps(RIGHT))
    assert local.main(["local", f"--config={tmp_path}/job.json", "--dry_run"]) == 0
    (tmp_path / "job.json").write_text(json.dumps(changed(RIGHT, **{OUTPUT_URI: "gs://bkt/${RUN:-x}"})))
    for main in (local.main, submit.main):
        argv = [main.__module__, f"--config={tmp_path}/job.json", "--dry_run"]
        check_command_refusal(main, argv, capsys, 2, "RUN", "my run")


def test_values_defaults_and_escapes():
    text = {"a": ["gs://${BUCKET}/runs/${RUN:-photos}", 3, "$${HOME} ${REGION}"]}
    assert variables.expand(text, {"BUCKET": "bkt", "RUN": "x"}) == {"a": ["gs://bkt/runs/x", 3, "${HOME} REGION"]}
    assert variables.expand("${RUN:-photos}", {}) == "photos"
    check_refusal(lambda: variables.check_set(text, {"RUN": "x"}), ConfigError, "${BUCKET}", "${REGION}", "--bucket")
    variables.check_set("$${BUCKET} ${RUN:-x}", {})


def test_flags_replace_values_of_the_file(body):
    flags = [
        *("--base_output_dir=gs://other/x", "--labels=team=gan,phase=1", "--labels=cost=9", f"--kms_key={KEY}"),
        *("--network=projects/12345/global/networks/n", f"--tensorboard={BOARD}", "--persistent_resource=mine"),
        *("--enable_web_access", "--timeout=2h", "--strategy=SPOT", f"--service_account={ACCOUNT}"),
    ]
    content = {"jobSpec": RIGHT | {"scheduling": {"disableRetries": True}}, "labels": {"phase": "0", "own": "x"}}
    assert body(content, *flags) == {
        "displayName": "gan-trainer",
        "labels": {"own": "x", "team": "gan", "phase": "1", "cost": "9"},
        "encryptionSpec": {"kmsKeyName": KEY},
        "jobSpec": JOB
        | {
            "baseOutputDirectory": {"outputUriPrefix": "gs://other/x"},
            "network": "projects/12345/global/networks/n",
            "tensorboard": BOARD,
            "persistentResourceId": "mine",
            "enableWebAccess": True,
            "serviceAccount": ACCOUNT,
            "scheduling": {"disableRetries": True, "timeout": "7200s", "strategy": "SPOT"},
        },
    }


def test_the_job_id_in_the_output_folder_is_new(body):
    in_file = changed(RIGHT, baseOutputDirectory__outputUriPrefix="gs://bkt/{job_id}/{job_id}")
    folders = []
    for content, *flags in [(in_file,), (in_file,), (RIGHT, "--base_output_dir=gs://bkt/{job_id}/{job_id}")]:
        uri = body(content, *flags)["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"]
        bucket, first, second = uri.removeprefix("gs://").split("/")
        assert bucket == "bkt" and first == second and "{" not in first
        folders.append(first)
    assert len(set(folders)) == 3


def test_flags_of_a_study(body):
    changes = body(SWEEP, "--max_trials=9", "--parallel_trials=3", "--labels=a=b", f"--kms_key={KEY}", "--timeout=9")
    expected = changed(SWEEP, maxTrialCount=9, parallelTrialCount=3, trialJobSpec__scheduling={"timeout": "9s"})
    assert changes == expected | {
        "displayName": "gan-trainer",
        "labels": {"a": "b"},
        "encryptionSpec": {"kmsKeyName": KEY},
    }


def test_a_bare_spec_and_a_whole_job_are_the_same_request(body):
    whole = {"displayName": "mine", "jobSpec": RIGHT, "labels": {"a": "b"}, "encryptionSpec": {"kmsKeyName": KEY}}
    assert body(whole) == whole
    assert body(RIGHT, "--display_name=mine", "--labels=a=b", f"--kms_key={KEY}") == whole
    assert body(whole, "--enable_web_access")["jobSpec"] == RIGHT | {"enableWebAccess": True}


def test_empty_args_keep_those_of_the_file(body):
    assert body(RIGHT, "--args=")["jobSpec"] == RIGHT


@pytest.mark.parametrize("name", [*FILES, "scripts/prepare.yaml"])
def test_a_rendered_file_gives_the_same_request(rendered, body, name):
    text = rendered(ROOT / name)
    assert "${" not in text and text.startswith("# gcloud ai ")
    content = yaml.safe_load(text)
    original = body(yaml.safe_load((ROOT / name).read_text()))
    assert body(content) == original


def test_the_name_of_the_flag_replaces_that_of_a_rendered_study(rendered, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"displayName": "old", **SWEEP}))
    text = rendered(tmp_path / "job.json", "--display_name=mine")
    assert "--display-name=mine" in text and yaml.safe_load(text)["displayName"] == "mine"


@pytest.mark.parametrize("flags", [(), ("--staging_bucket=gs://mine",)])
def test_a_package_to_build_cannot_be_rendered_and_is_not_built(tmp_path, capsys, monkeypatch, flags):
    monkeypatch.setattr(source_package, "_build", None)
    package = {"executorImageUri": "image", "pythonModule": "trainer.task", "args": []}
    content = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=package)
    (tmp_path / "job.json").write_text(json.dumps(content))
    argv = ["submit", f"--config={tmp_path}/job.json", "--render", *SETTINGS, *flags]
    check_command_refusal(submit.main, argv, capsys, 2, "packageUris", "gcloud")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
@pytest.mark.parametrize("name", [*FILES, "whole.json"])
def test_gcloud_sends_the_body_of_submit(rendered, body, tmp_path, name):
    file = ROOT / name
    if name == "whole.json":
        file = tmp_path / name
        file.write_text(json.dumps({"jobSpec": RIGHT, "labels": {"a": "b"}, "encryptionSpec": {"kmsKeyName": KEY}}))
    text = rendered(file)
    (tmp_path / "job.yaml").write_text(text)
    command = shlex.split(text.partition("\n")[0].removeprefix("# "))
    command[-1] = f"--config={tmp_path}/job.yaml"
    with VertexService() as service:
        environ = {
            **os.environ,
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_CORE_PROJECT": "my-project",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"{service.address}/",
        }
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        ((path, sent),) = [(path, sent) for method, path, sent in service.requests if method == "POST"]
    collection = path.partition("?")[0].rpartition("/")[2]
    message = JOB_MESSAGES[collection]

    def to_message(content):
        return json_format.ParseDict(content, message.pb(message()))

    assert to_message(sent) == to_message(body(yaml.safe_load(file.read_text())))
