"""`jobs` with a local substitute for Vertex AI: lists, describes and cancels jobs of both kinds."""

import json
import threading

import pytest
from refusals import check_command_refusal
from specs import JOB, TUNING

from trainer.cli import jobs
from trainer.cloud.vertex import client
from trainer.cloud.vertex.endpoint import ENDPOINT_VARIABLE
from trainer.testing.vertex_service import ServiceError, VertexService

PARENT = "projects/my-project/locations/us-central1"
PLACE = ["--project=my-project", "--region=us-central1"]


@pytest.fixture
def service(monkeypatch):
    """A local service with a custom job that has succeeded and a tuning job that runs until the test ends."""
    released = threading.Event()
    with VertexService(lambda spec: released.wait(10) if "studySpec" in spec else None) as service:
        monkeypatch.setenv(ENDPOINT_VARIABLE, service.address)
        monkeypatch.setattr(client, "_FIRST_PAUSE_SECS", 0.01)
        service.answer("POST", f"/v1/{PARENT}/customJobs", {"displayName": "one", "jobSpec": JOB})
        service.answer("POST", f"/v1/{PARENT}/hyperparameterTuningJobs", {"displayName": "several", **TUNING})
        service.await_state(f"{PARENT}/customJobs/1000", "SUCCEEDED")
        service.await_state(f"{PARENT}/hyperparameterTuningJobs/1001", "RUNNING")
        yield service
        released.set()


@pytest.fixture
def run(capsys):
    """Runs the command and returns the exit code, standard output and standard error."""

    def run(*arguments):
        code = jobs.main(["jobs", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_jobs_of_both_kinds_are_listed_newest_first(service, run):
    code, out, _ = run("list", *PLACE)
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert [row[:4] for row in rows] == [
        ["NAME", "DISPLAY", "NAME", "KIND"],
        ["1001", "several", "tuning", "RUNNING"],
        ["1000", "one", "custom", "SUCCEEDED"],
    ]
    assert (
        len({line.index(word) for line, word in zip(out.splitlines(), ("KIND", "tuning", "custom"), strict=True)}) == 1
    )


def test_limit_bounds_the_listed_jobs(service, run):
    for number in range(5):
        body = {"displayName": f"more-{number}", "jobSpec": JOB}
        service.answer("POST", f"/v1/{PARENT}/customJobs", body)
    _, out, _ = run("list", *PLACE, "--limit=3")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["more-4", "more-3", "more-2"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["1001", *PLACE],
        [f"{PARENT}/hyperparameterTuningJobs/1001"],
        [f"{PARENT}/hyperparameterTuningJobs/1001", "--project=other"],
    ],
)
def test_a_job_is_described_by_number_or_whole_name(service, run, arguments):
    code, out, _ = run("describe", *arguments)
    job = json.loads(out)
    assert (code, job["displayName"], job["state"]) == (0, "several", "JOB_STATE_RUNNING")
    assert job["studySpec"]["metrics"] == TUNING["studySpec"]["metrics"]


def test_a_job_is_cancelled(service, run):
    code, out, _ = run("cancel", "1001", *PLACE)
    assert code == 0
    assert f"{PARENT}/hyperparameterTuningJobs/1001" in json.loads(out)["message"]
    assert service.jobs[f"{PARENT}/hyperparameterTuningJobs/1001"]["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "code", "mentions"),
    [
        ([], 2, ("jobs list", "jobs describe", "jobs cancel")),
        (["lst", *PLACE], 2, ("'lst'", "list", "describe", "cancel")),
        (["list", "7", *PLACE], 2, ("jobs list", "1")),
        (["describe", *PLACE], 2, ("jobs describe NAME", "0")),
        (["list", "--region=us-central1"], 2, ("--project",)),
        (["cancel", "7", "--project=p"], 2, ("--region",)),
        (["describe", f"{PARENT}/endpoints/7"], 2, (f"{PARENT}/endpoints/7", "customJobs")),
        (["describe", "7", *PLACE], 1, ("7", "my-project", "us-central1", "jobs list")),
        (["cancel", "1000", *PLACE], 1, (f"{PARENT}/customJobs/1000", "SUCCEEDED")),
    ],
)
def test_a_mistake_is_refused(service, capsys, arguments, code, mentions):
    check_command_refusal(jobs.main, ["jobs", *arguments], capsys, code, *mentions)


def test_a_missing_role_is_named(service, capsys):
    service.fail(403, "Permission denied.")
    check_command_refusal(jobs.main, ["jobs", "describe", "1001", *PLACE], capsys, 1, "roles/aiplatform.user")


def test_an_unavailable_service_is_retried(service, run):
    service.fail(503, times=3)
    assert run("list", *PLACE)[0] == 0


def test_the_local_service_rejects_invalid_jobs(service):
    for body in ({"displayName": "x", "jobSpec": JOB | {"pools": 1}}, {"jobSpec": JOB}, {"displayName": "x"}):
        with pytest.raises(ServiceError) as caught:
            service.answer("POST", f"/v1/{PARENT}/customJobs", body)
        assert caught.value.code == 400
