"""Commands, requests, job files, and messages in docs/vertex.md and in the headers of the job files."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import pytest
import tensorflow as tf
from absl import flags as absl_flags
from conftest import tiny_model
from PIL import Image
from shell_commands import ROOT, USAGES, check, commands, commands_of_header

from trainer import errors
from trainer.cloud.jobs import job_spec
from trainer.serving import saved_model

yaml = pytest.importorskip("yaml")

VERTEX = (ROOT / "docs/vertex.md").read_text()
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
SHOWN = {name: commands_of_header(ROOT / name) for name in FILES}
EVERY = list(dict.fromkeys([*commands(VERTEX), *(command for shown in SHOWN.values() for command in shown)]))
ROLES = {
    "roles/aiplatform.user",
    "roles/artifactregistry.reader",
    "roles/artifactregistry.writer",
    "roles/cloudbuild.builds.builder",
    "roles/cloudbuild.builds.editor",
    "roles/iam.serviceAccountUser",
    "roles/logging.viewer",
    "roles/storage.admin",
    "roles/storage.objectUser",
}
SERVICES = {"aiplatform", "artifactregistry", "cloudbuild", "iam", "storage"}
"""Names of Google's services."""


def fenced(language):
    return re.findall(rf"^```{language}\n(.*?)^```", VERTEX, re.DOTALL | re.MULTILINE)


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
def test_the_header_of_a_job_file_shows_three_commands(name):
    starts = [" ".join(command.split()[:4]) for command in SHOWN[name] if f"--config={name}" in command]
    kind = "hp-tuning-jobs" if "tuning" in name else "custom-jobs"
    assert starts == ["python -m trainer local", "python -m trainer submit", f"gcloud ai {kind} create"]


def test_every_row_of_the_gcloud_table_is_used():
    called = " ".join(command for command in EVERY if command.startswith("gcloud"))
    for path in USAGES:
        assert f"gcloud {' '.join(path)}" in called, path


@pytest.mark.parametrize("text", fenced("yaml"))
def test_every_excerpt_of_a_job_file_is_valid(text):
    job = yaml.safe_load((ROOT / "config.yaml").read_text()) | yaml.safe_load(text)
    assert job_spec.parse(job).raw == job


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "model"
    saved_model.save(tiny_model("conditional"), folder)
    model = tf.saved_model.load(str(folder))
    return {"model": model, **model.signatures}


def respond(signatures, request):
    """Returns the answer of a server to the body of a request."""
    signature = signatures[request.get("signature_name", "serving_default")]
    inputs, instances = signature.structured_input_signature[1], request["instances"]
    assert all(set(instance) == set(inputs) for instance in instances)
    columns = {
        name: tf.constant([instance[name] for instance in instances], spec.dtype) for name, spec in inputs.items()
    }
    return signature(**columns)


def test_requests_and_answers_are_those_of_the_signatures(signatures, tmp_path, monkeypatch):
    sample, latents = (json.loads(text) for text in fenced("json"))
    assert set(respond(signatures, latents)) == {"images"}
    pngs = respond(signatures, sample)["png_bytes"].numpy()
    answer = {"predictions": [{"b64": base64.b64encode(png).decode()} for png in pngs]}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    monkeypatch.chdir(tmp_path)
    (code,) = fenced("python")
    exec(compile(code, "docs/vertex.md", "exec"), {})
    for number, png in enumerate(pngs):
        assert Path(f"grid-{number}.png").read_bytes() == png
        assert Image.open(io.BytesIO(png)).size == (44, 44)


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
    assert set(re.findall(r"roles/[\w.]+\w", VERTEX)) == ROLES
    assert set(re.findall(r"(\w+)\.googleapis\.com", VERTEX)) == SERVICES
