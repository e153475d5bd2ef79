"""`submit --wait` with a local substitute for Vertex AI: states, logs, outages, and Ctrl-C."""

import functools
import threading

import pytest
from submissions import (
    JOB_NAME,
    PARENT,
    RIGHT,
    STATES,
    check_error,
    lines_about,
    run_submit,
    states,
)

from trainer.cloud.vertex import follow, logs, polling, sdk
from trainer.testing.vertex_service import FOREIGN_RESPONSE, NO_RESPONSE, ServiceError

pytest.importorskip("yaml")


@pytest.fixture
def send(tmp_path, capsys):
    return functools.partial(run_submit, tmp_path, capsys)


def test_waiting_ends_with_the_job(service, send):
    ran = []
    service.run = ran.append
    code, messages, error = send(RIGHT, "--wait")
    assert (code, error, states(messages)[-1]) == (0, "", "SUCCEEDED")
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
    code, messages, _ = send(RIGHT, "--wait")
    assert code == 0 and states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_a_failed_job_is_reported_with_its_reason(service, send):
    def fail(spec):
        raise RuntimeError("The replica workerpool0-0 exited\nwith a non-zero status of 1.")

    service.run = fail
    code, messages, error = send(RIGHT, "--wait")
    assert (code, states(messages)[-1]) == (1, "FAILED")
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
    code, messages, _ = send(RIGHT, "--wait")
    expected = [f"workerpool0-0 | {word}" for word in ("one", "two", "three")] + ["workerpool1-0 | late"]
    assert code == 0 and polls[-1] == 0.02
    assert [line for line in messages if " | " in line] == [*expected, "workerpool0-0 | last"]
    assert states(messages)[-1] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("code", "mentions"),
    [
        (403, ["403", "roles/logging.viewer", "my-project"]),
        (FOREIGN_RESPONSE, ["http://127.0.0.1:"]),
        (503, None),
        (501, None),
        (NO_RESPONSE, None),
    ],
)
def test_a_job_is_followed_without_its_log(service, send, monkeypatch, code, mentions):
    def refuse(body):
        raise ServiceError(code, "no")

    monkeypatch.setattr(service, "_log_entries", refuse)
    monkeypatch.setattr(follow, "_sleep", lambda secs: None)
    status, messages, _ = send(RIGHT, "--wait")
    warnings = [line for line in messages[2:] if not states([line])]
    assert status == 0 and states(messages)[-1] == "SUCCEEDED"
    assert len(warnings) == (mentions is not None)
    assert all(mention in warnings[0] for mention in mentions or ())


@pytest.mark.parametrize("code", [429, 500, 502, NO_RESPONSE])
def test_a_temporarily_unavailable_log_is_read_again(service, send, monkeypatch, code):
    def run(spec):
        service.write(JOB_NAME, "one")
        released.wait(10)

    def once(body):
        monkeypatch.setattr(service, "_log_entries", entries)
        raise ServiceError(code, "no")

    def sleep(secs):
        released.set()
        service.await_state(JOB_NAME, "SUCCEEDED")

    released, entries, service.run = threading.Event(), service._log_entries, run
    monkeypatch.setattr(service, "_log_entries", once)
    monkeypatch.setattr(follow, "_sleep", sleep)
    status, messages, _ = send(RIGHT, "--wait")
    assert status == 0 and messages[-2] == "workerpool0-0 | one" and states(messages)[-1] == "SUCCEEDED"


def test_a_log_entry_of_a_trial_has_its_number():
    labels = {"resource": {"labels": {"task_name": "workerpool0-0"}}, "labels": {"ml.googleapis.com/trial_id": "3"}}
    entry = logs._to_entry({"jsonPayload": {"message": "hello"}, "severity": "INFO", **labels})
    assert (entry.task, entry.message) == ("trial 3 workerpool0-0", "hello")
    assert logs._to_entry({"textPayload": "bare"}).task == "service"


@pytest.fixture
def blocked(service):
    """A local service whose jobs run until the test ends."""
    service.released = threading.Event()
    service.run = lambda spec: service.released.wait(10)
    yield service
    service.released.set()


def interrupt(monkeypatch, *sleeps):
    """Makes each pause end with Ctrl-C (True) or normally (False)."""
    turns = iter(sleeps)

    def sleep(secs):
        if next(turns):
            raise KeyboardInterrupt

    monkeypatch.setattr(follow, "_sleep", sleep)


def test_ctrl_c_leaves_the_job_running(blocked, send, monkeypatch):
    interrupt(monkeypatch, True, False)
    code, messages, error = send(RIGHT, "--wait")
    assert code == 130
    assert JOB_NAME in messages[-1] and "Ctrl-C" in messages[-1]
    check_error(error, f"python -m trainer jobs cancel {JOB_NAME}")
    assert not any(path.endswith(":cancel") for _, path, _ in blocked.requests)


def test_a_second_ctrl_c_cancels_the_job(blocked, send, monkeypatch):
    interrupt(monkeypatch, False, True, True)
    code, _, error = send(RIGHT, "--wait")
    assert code == 130
    check_error(error, JOB_NAME)
    assert blocked.jobs[JOB_NAME]["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504, NO_RESPONSE])
def test_an_unavailable_service_is_retried_while_waiting(blocked, send, monkeypatch, code):
    def sleep(secs):
        blocked.fail(code, times=2)
        blocked.released.set()

    monkeypatch.setattr(follow, "_sleep", sleep)
    monkeypatch.setattr(sdk, "_RETRY_SECS", 10.0)
    assert send(RIGHT, "--wait")[0] == 0


@pytest.mark.parametrize(
    ("code", "num_polls", "mention"),
    [(NO_RESPONSE, 3, "http://127.0.0.1:"), (401, 1, "gcloud auth application-default login")],
)
def test_an_unreachable_job_is_not_reported_as_ended(blocked, send, monkeypatch, code, num_polls, mention):
    pauses = []

    def sleep(secs):
        pauses.append(secs)
        blocked.fail(code, times=99)

    monkeypatch.setattr(follow, "_sleep", sleep)
    monkeypatch.setattr(polling, "_MAX_FAILED_POLLS", 3)
    exit_code, messages, error = send(RIGHT, "--wait")
    assert exit_code == 4 and len(pauses) == num_polls
    check_error(error, mention, f"python -m trainer jobs describe {JOB_NAME}")
    assert not any(state in error for state in STATES)
    assert len(lines_about(JOB_NAME, messages)) == (num_polls > 1)


def test_an_outage_is_reported_once_and_tolerated(blocked, send, monkeypatch):
    pauses = []

    def sleep(secs):
        pauses.append(secs)
        if len(pauses) == 1:
            blocked.fail(NO_RESPONSE, times=2)
        blocked.released.set()

    monkeypatch.setattr(follow, "_sleep", sleep)
    monkeypatch.setattr(sdk, "_RETRY_SECS", 0.0)
    code, messages, _ = send(RIGHT, "--wait")
    assert code == 0 and len(lines_about(JOB_NAME, messages)) == 1
