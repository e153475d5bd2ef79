"""`submit` against a stand-in for Vertex AI: the requests, the printed facts, and how waiting ends."""

import json
import threading
from pathlib import Path

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.protobuf import json_format
from specs import JOB, PACKAGE, changed
from vertex_service import DROPPED, MESSAGES, OF_ANOTHER, Refusal, VertexService

from trainer.cli import submit
from trainer.cloud.jobs import source_package
from trainer.cloud.vertex import client, follow, logs
from trainer.storage import locate

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
RIGHT = JOB | {"baseOutputDirectory": {"outputUriPrefix": "gs://b/run"}}
PACKAGED = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=PACKAGE)
UNBUILT = changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=...)
PARENT = "projects/my-project/locations/us-central1"
JOB_NAME = f"{PARENT}/customJobs/1000"
PROJECT_AND_REGION = ("project=my-project", "region=us-central1")
STATES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")


@pytest.fixture
def service(monkeypatch):
    """A stand-in that the commands of this process talk to, without pauses."""
    with VertexService() as service:
        monkeypatch.setenv(client.ENDPOINT_VARIABLE, service.address)
        monkeypatch.setattr(client, "_FIRST_PAUSE_SECS", 0.01)
        monkeypatch.setattr(client, "_RETRY_SECS", 0.1)
        monkeypatch.setattr(follow, "_POLL_SECS", 0.01)
        monkeypatch.setattr(follow, "_LAST_LINES_SECS", 0.02)
        yield service


@pytest.fixture
def send(tmp_path, capsys):
    """Submits the content of a file; returns the exit code and what was printed."""

    def run(content, *flags):
        path = tmp_path / "job.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        code = submit.main(["submit", f"--config={path}", "--project=my-project", "--region=us-central1", *flags])
        printed = capsys.readouterr()
        return code, [json.loads(line)["message"] for line in printed.out.splitlines()], printed.err

    return run


def states(said):
    """The state of the job in each line that has one."""
    return [state for line in said for state in STATES if state in line and " | " not in line]


def lines_about(job, said):
    """The lines that name a job, after those that are printed when it was made."""
    return [line for line in said[2:] if job in line]


def check_error(error, *mentions):
    """Checks that an error is one line that names these facts."""
    assert error.startswith("error: ") and error.count("\n") == 1
    for mention in mentions:
        assert mention in error


def message_of(body, collection):
    """A body as the SDK's message, in which numbers and names of enumerations are the same."""
    return json_format.ParseDict(body, MESSAGES[collection].pb(MESSAGES[collection]()))


@pytest.mark.parametrize("name", FILES)
def test_what_arrives_is_what_a_dry_run_prints(service, send, monkeypatch, name):
    monkeypatch.setattr(source_package, "_built", lambda project: ("gan_trainer-0.1.0.tar.gz", b"package"))
    monkeypatch.setattr(source_package.Package, "upload", lambda self: None)
    monkeypatch.setattr(submit, "_check_data", lambda *_, **__: None)
    text = (ROOT / name).read_text().replace("gs://BUCKET/runs", "gs://mine/runs").replace("gs://BUCKET/data", "gs://d")
    assert send(text.replace("/PROJECT/", "/my-project/"), "--staging_bucket=gs://mine")[0] == 0
    golden = (Path(__file__).parent / "requests" / f"{Path(name).stem}.json").read_text()
    golden = golden.replace("gs://BUCKET/runs", "gs://mine/runs").replace("gs://BUCKET/data", "gs://d")
    request = json.loads(golden.replace("/PROJECT/", "/my-project/"))
    ((method, path, body),) = [asked for asked in service.requests if asked[0] == "POST" and ":" not in asked[1]]
    assert (method, path) == (
        request["method"],
        request["url"].removeprefix("https://us-central1-aiplatform.googleapis.com"),
    )
    collection = path.rpartition("/")[2]
    assert message_of(body, collection) == message_of(request["body"], collection)


def test_the_job_and_its_page_are_printed(service, send):
    code, said, error = send(RIGHT)
    name, page, command = said
    assert (code, error) == (0, "") and JOB_NAME in name
    assert "https://console.cloud.google.com/ai/platform/locations/us-central1/training/1000?project=my-project" in page
    assert f"python -m trainer jobs describe {JOB_NAME}" in command


def test_waiting_ends_with_the_job(service, send):
    ran = []
    service.run = ran.append
    code, said, error = send(RIGHT, "--wait")
    assert (code, error, states(said)[-1]) == (0, "", "SUCCEEDED")
    assert ran[0]["baseOutputDirectory"] == RIGHT["baseOutputDirectory"]


def test_each_change_of_state_is_printed_once(service, send, monkeypatch):
    released = threading.Event()
    service.run = lambda spec: released.wait(10)
    polls = []

    def sleep(secs):
        polls.append(secs)
        service.await_state(JOB_NAME, "SUCCEEDED" if released.is_set() else "RUNNING")
        if len(polls) == 3:
            released.set()
            service.await_state(JOB_NAME, "SUCCEEDED")

    monkeypatch.setattr(follow, "_sleep", sleep)
    code, said, _ = send(RIGHT, "--wait")
    assert code == 0 and states(said) == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_a_failed_job_is_reported_with_its_reason(service, send):
    def fail(spec):
        raise RuntimeError("The replica workerpool0-0 exited\nwith a non-zero status of 1.")

    service.run = fail
    code, said, error = send(RIGHT, "--wait")
    assert (code, states(said)[-1]) == (1, "FAILED")
    check_error(error, JOB_NAME, "FAILED", "The replica workerpool0-0 exited with a non-zero status of 1")


def test_each_log_entry_is_printed_once(service, send, monkeypatch):
    name, polls = JOB_NAME, []

    def run(spec):
        service.write(name, "one", "2026-01-31T12:00:00.5Z")
        service.write(name, {"severity": "WARNING", "message": "two", "step": 3}, "2026-01-31T12:00:01Z")
        service.write(f"{PARENT}/customJobs/7", "of another job", "2026-01-31T12:00:01Z")
        released.wait(10)

    def sleep(secs):
        polls.append(secs)
        service.await_state(name, "SUCCEEDED" if released.is_set() else "RUNNING")
        if len(polls) == 2:
            service.write(name, "three", "2026-01-31T12:02:00Z")
        if len(polls) == 3:
            service.write(name, "late", "2026-01-31T12:01:30.25Z", "workerpool1-0")
        if len(polls) == 4:
            released.set()
            service.await_state(name, "SUCCEEDED")
        if len(polls) == 5:
            service.write(name, "last", "2026-01-31T12:03:00Z")

    released, service.run = threading.Event(), run
    monkeypatch.setattr(follow, "_sleep", sleep)
    code, said, _ = send(RIGHT, "--wait")
    told = [f"workerpool0-0 | {word}" for word in ("one", "two", "three")] + ["workerpool1-0 | late"]
    assert code == 0 and polls[-1] == 0.02
    assert [line for line in said if " | " in line] == [*told, "workerpool0-0 | last"]
    assert states(said)[-1] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("code", "mentions"),
    [
        (403, ["403", "roles/logging.viewer", "my-project"]),
        (OF_ANOTHER, ["http://127.0.0.1:"]),
        (503, None),
        (501, None),
        (DROPPED, None),
    ],
)
def test_a_job_is_followed_without_its_log(service, send, monkeypatch, code, mentions):
    def refuse(body):
        raise Refusal(code, "no")

    monkeypatch.setattr(service, "_entries", refuse)
    monkeypatch.setattr(follow, "_sleep", lambda secs: None)
    status, said, _ = send(RIGHT, "--wait")
    warnings = [line for line in said[2:] if not states([line])]
    assert status == 0 and states(said)[-1] == "SUCCEEDED"
    assert len(warnings) == (mentions is not None)
    assert all(mention in warnings[0] for mention in mentions or ())


@pytest.mark.parametrize("code", [429, 500, 502, DROPPED])
def test_a_log_that_is_away_for_a_moment_is_read_again(service, send, monkeypatch, code):
    def run(spec):
        service.write(JOB_NAME, "one")
        released.wait(10)

    def once(body):
        monkeypatch.setattr(service, "_entries", entries)
        raise Refusal(code, "no")

    def sleep(secs):
        released.set()
        service.await_state(JOB_NAME, "SUCCEEDED")

    released, entries, service.run = threading.Event(), service._entries, run
    monkeypatch.setattr(service, "_entries", once)
    monkeypatch.setattr(follow, "_sleep", sleep)
    status, said, _ = send(RIGHT, "--wait")
    assert status == 0 and said[-2] == "workerpool0-0 | one" and states(said)[-1] == "SUCCEEDED"


def test_a_log_entry_of_a_trial_has_its_number():
    labels = {"resource": {"labels": {"task_name": "workerpool0-0"}}, "labels": {"ml.googleapis.com/trial_id": "3"}}
    entry = logs._entry({"jsonPayload": {"message": "hello"}, "severity": "INFO", **labels})
    assert (entry.task, entry.message) == ("trial 3 workerpool0-0", "hello")
    assert logs._entry({"textPayload": "bare"}).task == "service"


@pytest.fixture
def held(service):
    """A job that runs until the test is over."""
    service.released = threading.Event()
    service.run = lambda spec: service.released.wait(10)
    yield service
    service.released.set()


def interrupt(monkeypatch, *sleeps):
    """Makes each pause in turn end in Ctrl-C (True) or in time."""
    turns = iter(sleeps)

    def sleep(secs):
        if next(turns):
            raise KeyboardInterrupt

    monkeypatch.setattr(follow, "_sleep", sleep)


def test_ctrl_c_leaves_the_job_running(held, send, monkeypatch):
    interrupt(monkeypatch, True, False)
    code, said, error = send(RIGHT, "--wait")
    assert code == 130
    assert JOB_NAME in said[-1] and "Ctrl-C" in said[-1]
    check_error(error, f"python -m trainer jobs cancel {JOB_NAME}")
    assert not any(path.endswith(":cancel") for _, path, _ in held.requests)


def test_a_second_ctrl_c_cancels_the_job(held, send, monkeypatch):
    interrupt(monkeypatch, False, True, True)
    code, _, error = send(RIGHT, "--wait")
    assert code == 130
    check_error(error, JOB_NAME)
    assert held.jobs[JOB_NAME]["state"] == "JOB_STATE_CANCELLED"


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
    service.refuse(code, message, times)
    exit_code, _, error = send(RIGHT)
    assert exit_code == 1
    check_error(error, *mentions)
    assert not service.jobs


def test_a_retried_request_makes_one_job(service, send, monkeypatch):
    monkeypatch.setattr(client, "_RETRY_SECS", 10.0)
    service.refuse(429, times=2)
    assert send(RIGHT)[0] == 0
    assert (len(service.requests), len(service.jobs)) == (3, 1)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504, DROPPED])
def test_a_service_that_is_away_while_waiting_is_retried(held, send, monkeypatch, code):
    def sleep(secs):
        held.refuse(code, times=2)
        held.released.set()

    monkeypatch.setattr(follow, "_sleep", sleep)
    monkeypatch.setattr(client, "_RETRY_SECS", 10.0)
    assert send(RIGHT, "--wait")[0] == 0


@pytest.mark.parametrize(
    ("code", "looks", "mention"),
    [(DROPPED, 3, "http://127.0.0.1:"), (401, 1, "gcloud auth application-default login")],
)
def test_a_job_out_of_sight_is_not_reported_as_over(held, send, monkeypatch, code, looks, mention):
    pauses = []

    def sleep(secs):
        pauses.append(secs)
        held.refuse(code, times=99)

    monkeypatch.setattr(follow, "_sleep", sleep)
    monkeypatch.setattr(follow, "_MOST_LOOKS", 3)
    exit_code, said, error = send(RIGHT, "--wait")
    assert exit_code == 1 and len(pauses) == looks
    check_error(error, mention, f"python -m trainer jobs describe {JOB_NAME}")
    assert not any(state in error for state in STATES)
    assert len(lines_about(JOB_NAME, said)) == (looks > 1)


def test_an_outage_is_reported_once_and_waited_for(held, send, monkeypatch):
    pauses = []

    def sleep(secs):
        pauses.append(secs)
        if len(pauses) == 1:
            held.refuse(DROPPED, times=2)
        held.released.set()

    monkeypatch.setattr(follow, "_sleep", sleep)
    monkeypatch.setattr(client, "_RETRY_SECS", 0.0)
    code, said, _ = send(RIGHT, "--wait")
    assert code == 0 and len(lines_about(JOB_NAME, said)) == 1


def test_a_job_whose_answer_is_lost_is_sent_once(service, send):
    service.refuse(DROPPED)
    code, _, error = send(RIGHT)
    assert code == 1 and len(service.requests) == 1
    check_error(error, "python -m trainer jobs list")


def test_an_answer_of_another_server_is_refused(service, send):
    service.refuse(OF_ANOTHER)
    code, _, error = send(RIGHT)
    assert code == 1
    check_error(error, service.address, "python -m trainer jobs list")


def test_an_unreachable_service_is_reported(send, monkeypatch):
    monkeypatch.setenv(client.ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    code, _, error = send(RIGHT)
    assert code == 1
    check_error(error, "http://127.0.0.1:9", "--region", "python -m trainer jobs list")


@pytest.mark.parametrize("raised", [DefaultCredentialsError("none"), RefreshError("ya29.secret")])
def test_without_credentials_the_login_command_is_named(send, monkeypatch, raised):
    def default(*arguments, **settings):
        raise raised

    monkeypatch.delenv(client.ENDPOINT_VARIABLE, raising=False)
    monkeypatch.setattr(google.auth, "default", default)
    code, _, error = send(RIGHT)
    assert code == 1 and "secret" not in error
    check_error(error, "gcloud auth application-default login")


def test_ctrl_c_while_sending_names_the_list_command(service, send, monkeypatch):
    def create(self, kind, body):
        raise KeyboardInterrupt

    monkeypatch.setattr(client.Jobs, "create", create)
    code, _, error = send(RIGHT)
    assert code == 130
    check_error(error, "python -m trainer jobs list")


def test_a_local_package_goes_to_the_bucket_once(service, send, bucket, tmp_path):
    package = tmp_path / "mine-1.0.tar.gz"
    package.write_bytes(b"content")
    content = changed(
        PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=[str(package), "gs://b/other.tar.gz"]
    )
    for _ in range(2):
        assert send(content, f"--staging_bucket={bucket}/stage/")[0] == 0
    (entry,) = locate(f"{bucket}/stage/packages").entries()
    assert entry.name == "mine-1.0-ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73.tar.gz"
    for body in service.bodies():
        spec = body["jobSpec"]["workerPoolSpecs"][0]["pythonPackageSpec"]
        assert spec["packageUris"] == [f"{bucket}/stage/packages/{entry.name}", "gs://b/other.tar.gz"]


def test_the_sdk_checks_a_job_before_a_package_is_sent(service, send, monkeypatch):
    monkeypatch.setattr(source_package, "_built", lambda project: ("p.tar.gz", b"package"))
    monkeypatch.setattr(source_package.Package, "upload", None)
    code, said, error = send(UNBUILT | {"network": "\ud800"}, "--staging_bucket=gs://mine")
    assert (code, said) == (2, []) and not service.requests
    check_error(error)


def test_a_missing_bucket_is_refused_before_the_job(service, send, bucket, monkeypatch):
    monkeypatch.setattr(source_package, "_built", lambda project: ("p.tar.gz", b"package"))
    code, _, error = send(UNBUILT, f"--staging_bucket={bucket}-missing")
    assert code == 1 and not service.requests
    check_error(error, f"{bucket}-missing")
