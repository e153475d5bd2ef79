"""`jobs` against a stand-in for Vertex AI: lists, describes and cancels jobs of both kinds."""

import json
import threading

import pytest
from specs import JOB, TUNING
from vertex_service import Refusal, VertexService

from trainer import jobs
from trainer.cloud import vertex

PARENT = "projects/my-project/locations/us-central1"
PLACE = ["--project=my-project", "--region=us-central1"]


@pytest.fixture
def service(monkeypatch):
    """A stand-in that holds a custom job, which is done, and a tuning job, which runs until the test is over."""
    released = threading.Event()
    with VertexService(lambda spec: released.wait(10) if "studySpec" in spec else None) as service:
        monkeypatch.setenv(vertex.ENDPOINT_VARIABLE, service.address)
        monkeypatch.setattr(vertex, "_FIRST_PAUSE_SECS", 0.01)
        service.answer("POST", f"/v1/{PARENT}/customJobs", {"displayName": "one", "jobSpec": JOB})
        service.answer("POST", f"/v1/{PARENT}/hyperparameterTuningJobs", {"displayName": "several", **TUNING})
        service.await_state(f"{PARENT}/customJobs/1000", "SUCCEEDED")
        service.await_state(f"{PARENT}/hyperparameterTuningJobs/1001", "RUNNING")
        yield service
        released.set()


@pytest.fixture
def run(capsys):
    """Runs the command; returns the exit code and what was printed."""

    def run(*arguments):
        code = jobs.main(["jobs", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_jobs_of_both_kinds_are_listed_the_newest_first(service, run):
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


def test_as_many_jobs_are_listed_as_are_asked_for(service, run):
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
def test_a_job_is_described_as_json_by_its_number_or_its_whole_name(service, run, arguments):
    code, out, _ = run("describe", *arguments)
    told = json.loads(out)
    assert (code, told["displayName"], told["state"]) == (0, "several", "JOB_STATE_RUNNING")
    assert told["studySpec"]["metrics"] == TUNING["studySpec"]["metrics"]


def test_a_job_is_cancelled(service, run):
    code, out, _ = run("cancel", "1001", *PLACE)
    assert code == 0
    assert json.loads(out)["message"] == f"{PARENT}/hyperparameterTuningJobs/1001 is being cancelled."
    assert service.jobs[f"{PARENT}/hyperparameterTuningJobs/1001"]["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "what to do is missing; write jobs list, jobs describe, jobs cancel."),
        (["lst", *PLACE], 2, "'lst' is an unknown action; did you mean list? Known are list, describe, cancel."),
        (["list", "7", *PLACE], 2, "jobs list takes no name, and got 1; write jobs list."),
        (["describe", *PLACE], 2, "jobs describe takes the name of one job, and got 0; write jobs describe NAME."),
        (["list", "--region=us-central1"], 2, "--project is missing; give it."),
        (["cancel", "7", "--project=p"], 2, "--region is missing; give it, or the whole name of the job."),
        (
            ["describe", f"{PARENT}/endpoints/7"],
            2,
            f"'{PARENT}/endpoints/7' names no job; give its number, or projects/PROJECT/locations/REGION/customJobs/N",
        ),
        (
            ["describe", "7", *PLACE],
            1,
            "there is no job 7 with project=my-project region=us-central1; python -m trainer jobs list shows those ",
        ),
        (["cancel", "1000", *PLACE], 1, f"{PARENT}/customJobs/1000 is over (SUCCEEDED); there is nothing to cancel."),
    ],
)
def test_a_mistake_is_one_sentence(service, run, arguments, code, sentence):
    exit_code, _, error = run(*arguments)
    assert exit_code == code and error.startswith(f"error: {sentence}") and error.count("\n") == 1


def test_what_is_refused_while_a_number_is_looked_up_is_told(service, run):
    service.refuse(403, "Permission denied.")
    code, _, error = run("describe", "1001", *PLACE)
    assert code == 1 and "roles/aiplatform.user" in error


def test_a_service_that_is_away_is_asked_again(service, run):
    service.refuse(503, times=3)
    assert run("list", *PLACE)[0] == 0


def test_the_stand_in_refuses_what_the_service_would(service):
    for body in ({"displayName": "x", "jobSpec": JOB | {"pools": 1}}, {"jobSpec": JOB}, {"displayName": "x"}):
        with pytest.raises(Refusal) as caught:
            service.answer("POST", f"/v1/{PARENT}/customJobs", body)
        assert caught.value.code == 400
