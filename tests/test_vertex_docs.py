"""Commands, requests, job files, and messages in docs/vertex.md and in the headers of the job files."""

import ast
import base64
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from absl import flags as absl_flags
from conftest import tiny_model
from PIL import Image
from shell_commands import ROOT, USAGES, check, commands, commands_of_header, gcloud_errors

from trainer import errors
from trainer.cloud.jobs import job_spec, variables
from trainer.serving import saved_model
from trainer.serving.served_model import ServedModel
from trainer.storage import locate

yaml = pytest.importorskip("yaml")

VERTEX = (ROOT / "docs/vertex.md").read_text()
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
SHOWN = {name: commands_of_header(ROOT / name) for name in FILES}
OTHERS = [*commands_of_header(ROOT / "scripts/gpu_check.yaml"), *commands_of_header(ROOT / "scripts/prepare.yaml")]
EVERY = list(dict.fromkeys([*commands(VERTEX), *OTHERS, *(command for shown in SHOWN.values() for command in shown)]))
ROLES = {
    "roles/aiplatform.user",
    "roles/artifactregistry.reader",
    "roles/artifactregistry.writer",
    "roles/cloudbuild.builds.builder",
    "roles/cloudbuild.builds.editor",
    "roles/cloudkms.cryptoKeyEncrypterDecrypter",
    "roles/iam.serviceAccountUser",
    "roles/logging.viewer",
    "roles/serviceusage.serviceUsageConsumer",
    "roles/storage.admin",
    "roles/storage.legacyBucketReader",
    "roles/storage.objectUser",
}
SERVICES = {"aiplatform", "artifactregistry", "cloudbuild", "compute", "iam", "logging", "storage"}
"""Names of Google's services."""
SERVING = (ROOT / "docs/serving.md").read_text()


def fenced(language, page=VERTEX):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("command", EVERY)
def test_every_command_is_accepted_by_its_program(command, tmp_path):
    check(command, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "curl https://example.com",
        "gcloud ai models uplaod --region=us-central1",
        "gcloud ai models delete --region=us-central1",
        "gcloud ai models delete MODEL_ID --regoin=us-central1",
        "gcloud ai models delete MODEL_ID",
        "python -m trainer sbmit --config=config.yaml",
        "python -m trainer jobs stop JOB_ID",
        "python -m trainer jobs list JOB_ID",
        "./scripts/submit_custom_job.sh us-central1 missing.yaml",
        "./scripts/missing.sh",
        "pip install -e '.[vertx]'",
        "sed -i.bak -e 's/PROJECT/my-project/' config.yaml scripts/*.yaml",
    ],
)
def test_a_wrong_or_unknown_command_is_refused(command, tmp_path):
    with pytest.raises(AssertionError):
        check(command, tmp_path)


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("python -m trainer submit --confg=config.yaml", "confg"),
        ("python -m trainer submit --project=PROJECT", "--config"),
        ("python -m trainer.task --setps=3", "--setps"),
    ],
)
def test_a_flag_that_the_trainer_does_not_have_is_refused(command, flag, tmp_path):
    with pytest.raises((errors.ConfigError, absl_flags.Error), match=flag):
        check(command, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_the_header_of_a_job_file_shows_how_to_run_it(name):
    starts = [" ".join(command.split()[:4]) for command in SHOWN[name] if f"--config={name}" in command]
    assert starts == ["python -m trainer local", "python -m trainer submit", "python -m trainer submit"]
    kind = "hp-tuning-jobs" if "tuning" in name else "custom-jobs"
    render, create = SHOWN[name][-2:]
    assert render.endswith("--render > job.yaml")
    assert create.startswith(f"gcloud ai {kind} create ") and "--config=job.yaml" in create


def test_every_row_of_the_gcloud_table_is_used():
    called = " ".join(command for command in EVERY if command.startswith("gcloud"))
    for path in USAGES:
        assert f"gcloud {' '.join(path)}" in called, path


@pytest.mark.parametrize("text", fenced("yaml"))
def test_every_excerpt_of_a_job_file_is_valid(text):
    job = yaml.safe_load((ROOT / "config.yaml").read_text()) | yaml.safe_load(text)
    job = variables.expand(job, {})
    assert job_spec.parse(job).raw == job


def test_requests_and_answers_are_those_of_the_server(tmp_path, monkeypatch):
    saved_model.save(tiny_model("conditional"), tmp_path / "model", 1)
    model = ServedModel.load(locate(tmp_path / "model"))
    (request,), (first, second) = fenced("json"), fenced("json", SERVING)
    assert json.loads(request)["instances"] == json.loads(first)["instances"]
    predictions = model.predict(model.parse(first.encode(), max_instances=64))
    shown = json.loads(second)["predictions"]
    assert [set(prediction) for prediction in predictions[:1]] == [set(shown[0])]
    (tmp_path / "answer.json").write_text(json.dumps({"predictions": predictions}))
    monkeypatch.chdir(tmp_path)
    (code,) = fenced("python", SERVING)
    exec(compile(code, "docs/serving.md", "exec"), {})
    for number, prediction in enumerate(predictions):
        content = Path(f"image-{number}.png").read_bytes()
        assert content == base64.b64decode(prediction["b64"]) and Image.open(io.BytesIO(content)).size == (12, 12)
        assert {key: prediction[key] for key in prediction if key != "b64"} == {
            key: shown[number][key] for key in shown[number] if key != "b64"
        }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_accepts_every_command_of_the_page(tmp_path):
    shown = [command.partition(" > ")[0] for command in EVERY if command.startswith("gcloud")]
    assert len(shown) > 10 and gcloud_errors(shown, tmp_path) == []


def test_every_quoted_message_is_one_of_the_program():
    trees = (ast.parse(path.read_text()) for path in (ROOT / "trainer").rglob("*.py"))
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    strings = [text for text in texts if isinstance(text, str)]
    fragments = re.findall(r"^\| `([^`]* [^`]*)` \|", VERTEX, re.MULTILINE)
    assert len(fragments) > 10
    for fragment in fragments:
        assert any(fragment in text for text in strings), fragment


def test_every_exit_code_is_one_of_the_program():
    codes = {int(code) for code in errors.ExitCode}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", VERTEX, re.MULTILINE)} == codes


def test_roles_and_services_have_googles_names():
    script = (ROOT / "scripts/setup_project.sh").read_text()
    assert set(re.findall(r"roles/[\w.]+\w", VERTEX)) == ROLES
    assert set(re.findall(r"(\w+)\.googleapis\.com", script)) == SERVICES
    granted = {
        *re.findall(r"roles/[\w.]+\w", script),
        *map("roles/{}".format, re.findall(r"for role in (.*);", script)[0].split()),
    }
    assert granted <= ROLES
