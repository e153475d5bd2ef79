"""`submit` with a local substitute for Vertex AI: requests, messages, errors and packages."""

import functools
import json
from pathlib import Path

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.protobuf import json_format
from specs import PACKAGE, changed
from submissions import JOB_NAME, RIGHT, check_error, run_submit

from trainer.cli import submit
from trainer.cloud.jobs import source_package
from trainer.cloud.vertex import client, sdk
from trainer.cloud.vertex.endpoint import ANONYMOUS_VARIABLE, ENDPOINT_VARIABLE
from trainer.storage import locate
from trainer.testing.vertex_service import FOREIGN_RESPONSE, JOB_MESSAGES, NO_RESPONSE

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
PACKAGED = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=PACKAGE)
UNBUILT = changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=...)
PROJECT_AND_REGION = ("project=my-project", "region=us-central1")


@pytest.fixture
def send(tmp_path, capsys):
    return functools.partial(run_submit, tmp_path, capsys)


def message_of(body, collection):
    """A body as the SDK's message, which treats numbers and names of enumeration values alike."""
    return json_format.ParseDict(body, JOB_MESSAGES[collection].pb(JOB_MESSAGES[collection]()))


@pytest.mark.parametrize("name", FILES)
def test_the_service_receives_what_a_dry_run_prints(service, send, monkeypatch, name):
    monkeypatch.setattr(source_package, "_build", lambda project: ("gan_trainer-0.1.0.tar.gz", b"package"))
    monkeypatch.setattr(source_package.Package, "upload", lambda self: None)
    monkeypatch.setattr(submit, "_check_data", lambda *_, **__: None)
    text = (ROOT / name).read_text().replace("${BUCKET}/packages", "BUCKET/packages")
    flags = ["--staging_bucket=gs://mine"] if "package" in name else []
    assert send(text, "--bucket=mine", *flags)[0] == 0
    golden = (Path(__file__).parent / "requests" / f"{Path(name).stem}.json").read_text()
    request = json.loads(golden.replace("gs://BUCKET/", "gs://mine/"))
    ((method, path, body),) = [
        request for request in service.requests if request[0] == "POST" and ":" not in request[1]
    ]
    assert (method, path) == (
        request["method"],
        request["url"].removeprefix("https://us-central1-aiplatform.googleapis.com"),
    )
    collection = path.rpartition("/")[2]
    assert message_of(body, collection) == message_of(request["body"], collection)


def test_the_job_and_its_page_are_printed(service, send):
    code, messages, error = send(RIGHT)
    name, page, command = messages
    assert (code, error) == (0, "") and JOB_NAME in name
    assert "https://console.cloud.google.com/ai/platform/locations/us-central1/training/1000?project=my-project" in page
    assert f"python -m trainer jobs describe {JOB_NAME}" in command


@pytest.mark.parametrize(
    ("code", "message", "times", "mentions"),
    [
        (400, "List of found errors: 1.Field: x.", 1, ["List of found errors: 1.Field: x"]),
        (401, "token", 1, ["401", "gcloud auth application-default login"]),
        (403, "Permission denied.", 1, ["Permission denied", *PROJECT_AND_REGION, "roles/aiplatform.user"]),
        (404, "Not found.", 1, ["Not found", *PROJECT_AND_REGION, "--project", "--region"]),
        (429, "Quota", 99, ["Quota", *PROJECT_AND_REGION]),
        (503, "Busy", 1, ["Busy", *PROJECT_AND_REGION, "python -m trainer jobs list"]),
        (500, "Oops", 1, ["Oops", *PROJECT_AND_REGION, "python -m trainer jobs list"]),
    ],
)
def test_a_refused_request_is_one_line(service, send, code, message, times, mentions):
    service.fail(code, message, times)
    exit_code, _, error = send(RIGHT)
    assert exit_code == 1
    check_error(error, *mentions)
    assert not service.jobs


def test_a_retried_request_makes_one_job(service, send, monkeypatch):
    monkeypatch.setattr(sdk, "_RETRY_SECS", 10.0)
    service.fail(429, times=2)
    assert send(RIGHT)[0] == 0
    assert (len(service.requests), len(service.jobs)) == (3, 1)


def test_a_job_whose_answer_is_lost_is_sent_once(service, send):
    service.fail(NO_RESPONSE)
    code, _, error = send(RIGHT)
    assert code == 1 and len(service.requests) == 1
    check_error(error, "python -m trainer jobs list")


def test_an_answer_of_another_server_is_refused(service, send):
    service.fail(FOREIGN_RESPONSE)
    code, _, error = send(RIGHT)
    assert code == 1
    check_error(error, service.address, "python -m trainer jobs list")


@pytest.mark.usefixtures("service")
def test_an_unreachable_service_is_reported(send, monkeypatch):
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setenv(ANONYMOUS_VARIABLE, "true")
    code, _, error = send(RIGHT)
    assert code == 1
    check_error(error, "http://127.0.0.1:9", "--region", "python -m trainer jobs list")


@pytest.mark.parametrize("raised", [DefaultCredentialsError("none"), RefreshError("ya29.secret")])
def test_without_credentials_the_login_command_is_named(send, monkeypatch, raised):
    def default(*arguments, **settings):
        raise raised

    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    monkeypatch.delenv(ANONYMOUS_VARIABLE, raising=False)
    monkeypatch.setattr(google.auth, "default", default)
    code, _, error = send(RIGHT)
    assert code == 1 and "secret" not in error
    check_error(error, "gcloud auth application-default login")


def test_ctrl_c_while_sending_names_the_list_command(service, send, monkeypatch):
    def create(self, kind, body, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(client.JobClient, "create", create)
    code, _, error = send(RIGHT)
    assert code == 130
    check_error(error, "python -m trainer jobs list")


def test_a_local_package_goes_to_the_bucket_once(service, send, bucket, tmp_path):
    package = tmp_path / "mine-1.0.tar.gz"
    package.write_bytes(b"content")
    content = changed(
        PACKAGED,
        workerPoolSpecs__0__pythonPackageSpec__packageUris=[str(package), f"{bucket}/other.tar.gz"],
        baseOutputDirectory__outputUriPrefix=f"{bucket}/run",
    )
    locate(f"{bucket}/other.tar.gz").write_bytes(b"other")
    for _ in range(2):
        assert send(content, f"--staging_bucket={bucket}/stage/")[0] == 0
    (entry,) = locate(f"{bucket}/stage/packages").entries()
    assert entry.name == "mine-1.0-ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73.tar.gz"
    for body in service.bodies():
        spec = body["jobSpec"]["workerPoolSpecs"][0]["pythonPackageSpec"]
        assert spec["packageUris"] == [f"{bucket}/stage/packages/{entry.name}", f"{bucket}/other.tar.gz"]


def test_the_sdk_checks_a_job_before_a_package_is_sent(service, send, monkeypatch):
    monkeypatch.setattr(source_package, "_build", lambda project: ("p.tar.gz", b"package"))
    monkeypatch.setattr(source_package.Package, "upload", None)
    code, messages, error = send(UNBUILT | {"network": "\ud800"}, "--staging_bucket=gs://mine")
    assert (code, messages) == (2, []) and not service.requests
    check_error(error)


def test_a_missing_bucket_is_refused_before_the_job(service, send, bucket, monkeypatch):
    monkeypatch.setattr(source_package, "_build", lambda project: ("p.tar.gz", b"package"))
    content = changed(UNBUILT, baseOutputDirectory__outputUriPrefix=f"{bucket}/run")
    code, _, error = send(content, f"--staging_bucket={bucket}-missing")
    assert code == 1 and not service.requests
    check_error(error, f"{bucket}-missing")
