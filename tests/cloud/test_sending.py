"""`submit` against a stand-in for Vertex AI: what arrives there, what is said, how waiting ends."""

import json
import threading
from pathlib import Path

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.protobuf import json_format
from specs import JOB, PACKAGE, changed
from vertex_service import DROPPED, MESSAGES, OF_ANOTHER, Refusal, VertexService

from trainer import submit
from trainer.cloud import distribution, logs, vertex, waiting
from trainer.storage import locate

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
RIGHT = JOB | {"baseOutputDirectory": {"outputUriPrefix": "gs://b/run"}}
PACKAGED = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=PACKAGE)
UNBUILT = changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=...)
PARENT = "projects/my-project/locations/us-central1"
WHERE = "project=my-project region=us-central1"


@pytest.fixture
def service(monkeypatch):
    """A stand-in that the commands of this process talk to, without pauses."""
    with VertexService() as service:
        monkeypatch.setenv(vertex.ENDPOINT_VARIABLE, service.address)
        monkeypatch.setattr(vertex, "_FIRST_PAUSE_SECS", 0.01)
        monkeypatch.setattr(vertex, "_RETRY_SECS", 0.1)
        monkeypatch.setattr(waiting, "_POLL_SECS", 0.01)
        monkeypatch.setattr(waiting, "_LAST_LINES_SECS", 0.02)
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


def message_of(body, collection):
    """A body as the SDK's message, in which numbers and names of enumerations are the same."""
    return json_format.ParseDict(body, MESSAGES[collection].pb(MESSAGES[collection]()))


@pytest.mark.parametrize("name", FILES)
def test_what_arrives_is_what_a_dry_run_prints(service, send, monkeypatch, name):
    monkeypatch.setattr(distribution, "_built", lambda project: ("gan_trainer-0.1.0.tar.gz", b"package"))
    monkeypatch.setattr(distribution.Package, "upload", lambda self: None)
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


def test_the_job_and_its_page_are_told(service, send):
    assert send(RIGHT) == (
        0,
        [
            f"Made {PARENT}/customJobs/1000.",
            "See https://console.cloud.google.com/ai/platform/locations/us-central1/training/1000?project=my-project",
            f"Follow it with: python -m trainer jobs describe {PARENT}/customJobs/1000",
        ],
        "",
    )


def test_waiting_ends_with_the_job(service, send):
    ran = []
    service.run = ran.append
    code, said, error = send(RIGHT, "--wait")
    assert (code, error, said[-1]) == (0, "", "gan-trainer is SUCCEEDED.")
    assert ran[0]["baseOutputDirectory"] == RIGHT["baseOutputDirectory"]


def test_changes_of_the_state_are_said_once_each(service, send, monkeypatch):
    released = threading.Event()
    service.run = lambda spec: released.wait(10)
    polls = []

    def sleep(secs):
        polls.append(secs)
        service.await_state(f"{PARENT}/customJobs/1000", "SUCCEEDED" if released.is_set() else "RUNNING")
        if len(polls) == 3:
            released.set()
            service.await_state(f"{PARENT}/customJobs/1000", "SUCCEEDED")

    monkeypatch.setattr(waiting, "_sleep", sleep)
    code, said, _ = send(RIGHT, "--wait")
    assert code == 0
    assert said[2:] == [f"gan-trainer is {state}." for state in ("PENDING", "RUNNING", "SUCCEEDED")]


def test_a_job_that_fails_is_told_with_its_reason(service, send):
    def fail(spec):
        raise RuntimeError("The replica workerpool0-0 exited\nwith a non-zero status of 1.")

    service.run = fail
    code, said, error = send(RIGHT, "--wait")
    assert (code, said[-1]) == (1, "gan-trainer is FAILED.")
    assert error == (
        f"error: {PARENT}/customJobs/1000 ended as FAILED: The replica workerpool0-0 exited with a non-zero status of "
        "1; its logs are on its page in the console.\n"
    )


def test_a_jobs_log_is_said_as_it_comes_and_each_entry_once(service, send, monkeypatch):
    name, polls = f"{PARENT}/customJobs/1000", []

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
    monkeypatch.setattr(waiting, "_sleep", sleep)
    code, said, _ = send(RIGHT, "--wait")
    told = [f"workerpool0-0 | {word}" for word in ("one", "two", "three")] + ["workerpool1-0 | late"]
    assert code == 0 and polls[-1] == 0.02
    assert [line for line in said if " | " in line] == [*told, "workerpool0-0 | last"]
    assert said[-1] == "gan-trainer is SUCCEEDED."


@pytest.mark.parametrize(
    ("code", "warnings"),
    [
        (
            403,
            [f"the job's log cannot be read (403); give this account roles/logging.viewer on {WHERE.split()[0]}, or "],
        ),
        (OF_ANOTHER, ["http://127.0.0.1:"]),
        (503, []),
        (501, []),
        (DROPPED, []),
    ],
)
def test_a_log_that_cannot_be_read_is_said_once_and_the_job_is_followed(service, send, monkeypatch, code, warnings):
    def refuse(body):
        raise Refusal(code, "no")

    monkeypatch.setattr(service, "_entries", refuse)
    monkeypatch.setattr(waiting, "_sleep", lambda secs: None)
    status, said, _ = send(RIGHT, "--wait")
    found = [line for line in said if "log" in line or "answer" in line]
    assert status == 0 and said[-1] == "gan-trainer is SUCCEEDED."
    assert len(found) == len(warnings) and all(map(str.startswith, found, warnings))


@pytest.mark.parametrize("code", [429, 500, 502, DROPPED])
def test_a_log_that_is_away_for_a_moment_is_read_again(service, send, monkeypatch, code):
    def run(spec):
        service.write(f"{PARENT}/customJobs/1000", "one")
        released.wait(10)

    def once(body):
        monkeypatch.setattr(service, "_entries", entries)
        raise Refusal(code, "no")

    def sleep(secs):
        released.set()
        service.await_state(f"{PARENT}/customJobs/1000", "SUCCEEDED")

    released, entries, service.run = threading.Event(), service._entries, run
    monkeypatch.setattr(service, "_entries", once)
    monkeypatch.setattr(waiting, "_sleep", sleep)
    status, said, _ = send(RIGHT, "--wait")
    assert status == 0 and said[-2:] == ["workerpool0-0 | one", "gan-trainer is SUCCEEDED."]


def test_an_entry_of_a_trial_says_so():
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

    monkeypatch.setattr(waiting, "_sleep", sleep)


def test_ctrl_c_leaves_the_job_alone(held, send, monkeypatch):
    interrupt(monkeypatch, True, False)
    code, said, error = send(RIGHT, "--wait")
    assert code == 130
    assert said[-1] == f"{PARENT}/customJobs/1000 goes on; press Ctrl-C again within two seconds to cancel it."
    assert error == (
        f"error: {PARENT}/customJobs/1000 goes on; python -m trainer jobs cancel {PARENT}/customJobs/1000 cancels it.\n"
    )
    assert not any(path.endswith(":cancel") for _, path, _ in held.requests)


def test_a_second_ctrl_c_cancels_the_job(held, send, monkeypatch):
    interrupt(monkeypatch, False, True, True)
    code, _, error = send(RIGHT, "--wait")
    assert (code, error) == (130, f"error: {PARENT}/customJobs/1000 is being cancelled, as you asked by Ctrl-C.\n")
    assert held.jobs[f"{PARENT}/customJobs/1000"]["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize(
    ("code", "message", "times", "sentence"),
    [
        (
            400,
            "List of found errors: 1.Field: x.",
            1,
            "Vertex AI does not take the request: List of found errors: 1.Fi",
        ),
        (401, "token", 1, "Vertex AI does not take the credentials (401); run gcloud auth application-default login "),
        (
            403,
            "Permission denied.",
            1,
            f"this account may not use Vertex AI with {WHERE} (Permission denied); give it roles/aiplatform.user "
            "there, or correct --project.",
        ),
        (404, "Not found.", 1, f"Vertex AI finds nothing with {WHERE} (Not found); correct --project or --region."),
        (429, "Quota", 99, f"Vertex AI refuses more of {WHERE} for now (Quota); wait, or ask for more quota."),
        (
            503,
            "Busy",
            1,
            f"Vertex AI is not available with {WHERE} (Busy); look with python -m trainer jobs list whether the "
            "job is there before you send it again.",
        ),
        (
            500,
            "Oops",
            1,
            f"Vertex AI failed with {WHERE} (InternalServerError: Oops); look with python -m trainer jobs",
        ),
    ],
)
def test_what_the_service_refuses_is_one_sentence(service, send, code, message, times, sentence):
    service.refuse(code, message, times)
    exit_code, _, error = send(RIGHT)
    assert exit_code == 1 and error.startswith(f"error: {sentence}") and error.count("\n") == 1
    assert not service.jobs


def test_too_many_requests_are_tried_again_and_make_one_job(service, send, monkeypatch):
    monkeypatch.setattr(vertex, "_RETRY_SECS", 10.0)
    service.refuse(429, times=2)
    assert send(RIGHT)[0] == 0
    assert (len(service.requests), len(service.jobs)) == (3, 1)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504, DROPPED])
def test_a_service_that_is_away_while_waiting_is_asked_again(held, send, monkeypatch, code):
    def sleep(secs):
        held.refuse(code, times=2)
        held.released.set()

    monkeypatch.setattr(waiting, "_sleep", sleep)
    monkeypatch.setattr(vertex, "_RETRY_SECS", 10.0)
    assert send(RIGHT, "--wait")[0] == 0


@pytest.mark.parametrize(
    ("code", "looks", "told"),
    [
        (DROPPED, 3, "{address} cannot be reached; check --region and the network, and try again"),
        (401, 1, "Vertex AI does not take the credentials (401); run gcloud auth application-default login with an"),
    ],
)
def test_a_job_that_cannot_be_seen_any_more_is_not_said_to_have_ended(held, send, monkeypatch, code, looks, told):
    pauses = []

    def sleep(secs):
        pauses.append(secs)
        held.refuse(code, times=99)

    monkeypatch.setattr(waiting, "_sleep", sleep)
    monkeypatch.setattr(waiting, "_MOST_LOOKS", 3)
    exit_code, said, error = send(RIGHT, "--wait")
    job = f"{PARENT}/customJobs/1000"
    told = told.format(address=held.address)
    assert exit_code == 1 and len(pauses) == looks and error.count("\n") == 1
    assert error.startswith(f"error: {job} may go on, and cannot be seen any more ({told}")
    assert error.endswith(f"look with python -m trainer jobs describe {job} before you send it again.\n")
    assert [line for line in said if "for now" in line] == ([f"{job} cannot be seen for now ({told})."] * (looks > 1))


def test_a_service_that_is_away_for_long_is_waited_for(held, send, monkeypatch):
    pauses = []

    def sleep(secs):
        pauses.append(secs)
        if len(pauses) == 1:
            held.refuse(DROPPED, times=2)
        held.released.set()

    monkeypatch.setattr(waiting, "_sleep", sleep)
    monkeypatch.setattr(vertex, "_RETRY_SECS", 0.0)
    code, said, _ = send(RIGHT, "--wait")
    assert code == 0 and len([line for line in said if "cannot be seen for now" in line]) == 1


def test_a_job_whose_answer_is_lost_is_sent_once(service, send):
    service.refuse(DROPPED)
    code, _, error = send(RIGHT)
    assert code == 1 and "look with python -m trainer jobs list" in error and len(service.requests) == 1


def test_an_answer_of_something_else_is_told(service, send):
    service.refuse(OF_ANOTHER)
    code, _, error = send(RIGHT)
    assert (code, error) == (
        1,
        f"error: {service.address} gives an answer that is not Vertex AI's; check whether something on the network "
        "answers in its place, and look with python -m trainer jobs list whether the job is there before you send it "
        "again.\n",
    )


def test_a_service_that_is_not_there_is_told(send, monkeypatch):
    monkeypatch.setenv(vertex.ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    code, _, error = send(RIGHT)
    assert (code, error) == (
        1,
        "error: http://127.0.0.1:9 cannot be reached; check --region and the network, and look with python -m trainer "
        "jobs list whether the job is there before you send it again.\n",
    )


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (
            DefaultCredentialsError("none"),
            "no credentials for Google Cloud were found; run gcloud auth application-def",
        ),
        (
            RefreshError("ya29.secret"),
            "the credentials for Google Cloud are not taken (RefreshError); run gcloud auth ",
        ),
    ],
)
def test_without_credentials_the_user_is_told_what_to_run(send, monkeypatch, raised, sentence):
    def default(*arguments, **settings):
        raise raised

    monkeypatch.delenv(vertex.ENDPOINT_VARIABLE, raising=False)
    monkeypatch.setattr(google.auth, "default", default)
    code, _, error = send(RIGHT)
    assert code == 1 and error.startswith(f"error: {sentence}") and "secret" not in error


def test_ctrl_c_while_a_job_is_sent_leaves_open_whether_it_is_there(service, send, monkeypatch):
    def create(self, kind, body):
        raise KeyboardInterrupt

    monkeypatch.setattr(vertex.Jobs, "create", create)
    code, _, error = send(RIGHT)
    assert (code, error) == (
        130,
        "error: interrupted while the job was being sent; look with python -m trainer jobs list whether it is there.\n",
    )


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


def test_what_the_sdk_does_not_take_is_told_before_a_package_is_sent(service, send, monkeypatch):
    monkeypatch.setattr(distribution, "_built", lambda project: ("p.tar.gz", b"package"))
    monkeypatch.setattr(distribution.Package, "upload", None)
    code, said, error = send(UNBUILT | {"network": "\ud800"}, "--staging_bucket=gs://mine")
    assert (code, said) == (2, []) and error.count("\n") == 1 and not service.requests
    assert error.startswith("error: Google's SDK does not take the job (") and error.endswith("; correct it.\n")


def test_a_bucket_that_is_missing_is_told_and_no_job_is_made(service, send, bucket, monkeypatch):
    monkeypatch.setattr(distribution, "_built", lambda project: ("p.tar.gz", b"package"))
    code, _, error = send(UNBUILT, f"--staging_bucket={bucket}-missing")
    assert code == 1 and f"{bucket}-missing" in error and error.count("\n") == 1
    assert not service.requests
