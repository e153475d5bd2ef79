"""`jobs` with a local substitute for Vertex AI: lists, describes, follows and cancels jobs of both kinds."""

import json
import re
import threading

import pytest
from local_vertex import use
from refusals import check_command_refusal
from specs import JOB, TUNING

from trainer.cli import jobs
from trainer.cloud.vertex import follow, sdk
from trainer.testing.vertex_service import ServiceError, VertexService

PARENT = "projects/my-project/locations/us-central1"
CUSTOM, STUDY = f"{PARENT}/customJobs/1000", f"{PARENT}/hyperparameterTuningJobs/1001"
PLACE = ["--project=my-project", "--region=us-central1"]


@pytest.fixture
def service(monkeypatch):
    """A local service with a custom job that has succeeded and a tuning job that runs until the test ends."""
    released = threading.Event()
    with VertexService(lambda spec: released.wait(10) if "studySpec" in spec else None) as service:
        use(service, monkeypatch)
        monkeypatch.setattr(sdk, "_FIRST_PAUSE_SECS", 0.01)
        monkeypatch.setattr(follow, "_POLL_SECS", 0.01)
        monkeypatch.setattr(follow, "_LOG_DELAY_SECS", 0.02)
        monkeypatch.setattr(jobs, "_LOG_RETRY_SECS", 0.0)
        service.answer("POST", f"/v1/{PARENT}/customJobs", {"displayName": "one", "jobSpec": JOB})
        service.answer("POST", f"/v1/{PARENT}/hyperparameterTuningJobs", {"displayName": "several", **TUNING})
        service.await_state(CUSTOM, "SUCCEEDED")
        service.await_state(STUDY, "RUNNING")
        service.released = released
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


def test_the_project_and_the_region_may_come_from_variables_as_for_submit(service, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PROJECT=of-file\nREGION=us-central1\n")
    assert "project=of-file" in run("describe", "7")[2]
    monkeypatch.setenv("PROJECT", "my-project")
    assert json.loads(run("describe", "1001")[1])["displayName"] == "several"
    assert "project=of-flag" in run("describe", "7", "--project=of-flag")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["cancel", "1001", *PLACE],
        ["cancel", *PLACE, "1001"],
        [*PLACE, "cancel", "1001"],
        ["--project", "my-project", "cancel", "--region", "us-central1", "1001"],
        ["cancel", *PLACE, "--", "1001"],
    ],
)
def test_a_job_is_cancelled_by_words_and_flags_in_any_order(service, run, arguments):
    code, out, _ = run(*arguments)
    assert code == 0
    assert STUDY in json.loads(out)["message"]
    assert service.jobs[STUDY]["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("labels.team=vision", ["two"]),
        ('state="JOB_STATE_RUNNING"', ["several"]),
        ("labels.team:* AND display_name!=two", []),
    ],
)
def test_a_filter_selects_jobs_and_their_labels_are_listed(service, run, text, names):
    body = {"displayName": "two", "jobSpec": JOB, "labels": {"team": "vision", "cost": "7"}}
    service.answer("POST", f"/v1/{PARENT}/customJobs", body)
    code, out, _ = run("list", *PLACE, f"--filter={text}")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert (code, [row[1] for row in rows]) == (0, names)
    assert all(row[-1] == "cost=7,team=vision" for row in rows if row[1] == "two")


def messages(out):
    """Messages of the lines, with their severities."""
    return [(entry["message"], entry["severity"]) for entry in map(json.loads, out.splitlines())]


LINES = [("one", "INFO"), ("two", "WARNING"), ("three", "INFO"), ("four", "ERROR")]


def write_log(service, name):
    for second, (text, severity) in enumerate(LINES):
        time, task = f"2026-01-31T12:00:0{second}.5Z", f"workerpool{second % 2}-0"
        service.write(name, {"message": text, "severity": severity}, time, task)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], LINES),
        (["--tail=3"], LINES[1:]),
        (["--tail=99"], LINES),
        (["--severity=warning"], LINES[1::2]),
        (["--task_name=workerpool0-0", "--tail=1"], LINES[2:3]),
    ],
)
def test_the_log_of_a_job_is_printed(service, run, flags, expected):
    write_log(service, CUSTOM)
    code, out, _ = run("logs", CUSTOM, *flags)
    assert code == 0
    assert messages(out) == [(f"workerpool{LINES.index(line) % 2}-0 | {line[0]}", line[1]) for line in expected]
    assert json.loads(out.splitlines()[0])["time"].startswith("2026-01-31T12:00:0")


@pytest.mark.parametrize("flags", [[], ["--tail=2"]])
def test_following_a_log_prints_each_entry_once_until_the_job_ends(service, run, monkeypatch, flags):
    write_log(service, STUDY)
    polls = []

    def sleep(secs):
        polls.append(secs)
        if len(polls) == 2:
            service.write(STUDY, "five", "2026-01-31T12:00:04Z")
            service.cancel(STUDY)

    monkeypatch.setattr(follow, "_sleep", sleep)
    code, out, _ = run("logs", STUDY, "--follow", *flags)
    texts = [message.partition(" | ")[2] for message, _ in messages(out) if " | " in message]
    assert code == 0 and texts == [text for text, _ in [*LINES, ("five", "")]][2 if flags else 0 :]
    assert any("CANCELLED" in message for message, _ in messages(out))


def test_following_the_last_entry_of_a_busy_second_prints_only_new_ones(service, run, monkeypatch):
    for number in range(7):
        service.write(STUDY, f"{number}", f"2026-01-31T12:00:00.{number}Z")

    def sleep(secs):
        service.write(STUDY, "late", "2026-01-31T12:00:00.65Z")
        service.write(STUDY, "new", "2026-01-31T12:00:04Z")
        service.cancel(STUDY)

    monkeypatch.setattr(follow, "_sleep", sleep)
    code, out, _ = run("logs", STUDY, "--follow", "--tail=1")
    texts = [message.partition(" | ")[2] for message, _ in messages(out) if " | " in message]
    assert code == 0 and sorted(set(texts)) == ["6", "late", "new"]


def test_an_incomplete_log_is_an_error(service, capsys, monkeypatch):
    def refuse(body):
        raise ServiceError(503, "no")

    monkeypatch.setattr(service, "_log_entries", refuse)
    check_command_refusal(jobs.main, ["jobs", "logs", CUSTOM], capsys, 1, CUSTOM)
    monkeypatch.undo()


@pytest.mark.parametrize("flags", [[], ["--tail=4"]])
def test_a_temporary_outage_neither_shortens_nor_repeats_the_log(service, run, monkeypatch, flags):
    write_log(service, CUSTOM)
    entries, pages = service._log_entries, []

    def answer(body):
        pages.append(body)
        if len(pages) == 2:
            raise ServiceError(429, "no")
        return entries(body)

    monkeypatch.setattr(service, "_log_entries", answer)
    code, out, _ = run("logs", CUSTOM, *flags)
    assert code == 0 and len(messages(out)) == 4


def fail(service):
    service.update(STUDY, state="JOB_STATE_FAILED", error={"code": 3, "message": "no luck"})


@pytest.mark.parametrize(
    ("end", "code", "mentions"),
    [
        (lambda service: service.released.set(), 0, []),
        (fail, 1, ["FAILED", "no luck", f"jobs logs {STUDY}"]),
        (lambda service: service.cancel(STUDY), 3, ["CANCELLED", STUDY]),
        (lambda service: service.fail(401), 4, [f"jobs describe {STUDY}"]),
    ],
)
def test_waiting_ends_with_a_code_for_the_final_state(service, run, monkeypatch, end, code, mentions):
    polls = []

    def sleep(secs):
        polls.append(secs)
        if len(polls) == 1:
            trial = {"id": "1", "state": "ACTIVE", "webAccessUris": {"workerpool0-0": "https://shell.example/1"}}
            service.update(STUDY, trials=[trial])
        else:
            end(service)
            if code == 0:
                service.await_state(STUDY, "SUCCEEDED")

    monkeypatch.setattr(follow, "_sleep", sleep)
    received, out, error = run("wait", STUDY)
    assert received == code and all(mention in error for mention in mentions)
    texts = [message for message, _ in messages(out)]
    assert "RUNNING" in texts[0] and sum("https://shell.example/1" in text for text in texts) == 1
    assert sum(bool(re.search(r"\b1\b.*ACTIVE", text)) for text in texts) == 1


def test_ctrl_c_ends_waiting_and_names_the_commands(service, run, monkeypatch):
    def sleep(secs):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "_sleep", sleep)
    for arguments in (["wait", STUDY], ["logs", STUDY, "--follow"]):
        code, _, error = run(*arguments)
        assert code == 130 and f"jobs wait {STUDY}" in error and f"jobs cancel {STUDY}" in error
    assert service.jobs[STUDY]["state"] == "JOB_STATE_RUNNING"


def test_trials_are_a_table_with_the_flags_of_the_best(service, run, tmp_path):
    def trial(number, state, rate, loss, value=None):
        parameters = [{"parameterId": "rate", "value": rate}, {"parameterId": "loss", "value": loss}]
        metrics = [{"metricId": "frechet", "value": value}] if value else [{"metricId": "frechet"}]
        final = {"stepCount": "30", "metrics": metrics}
        return {"id": number, "state": state, "parameters": parameters, "finalMeasurement": final}

    trials = [trial("1", "SUCCEEDED", 1.5, "hinge", 2.25), trial("2", "SUCCEEDED", 1, "a b"), {"id": "3"}]
    service.update(STUDY, trials=[*trials, trial("4", "INFEASIBLE", 2, "hinge", -3.0)])
    code, out, _ = run("trials", STUDY, f"--plot={tmp_path}/study.png")
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[:6] == ["trial", "state", "frechet", "step", "rate", "units"]
    assert [line.split()[0] for line in lines[1:5]] == ["2", "1", "3", "4"]
    assert lines[1].split()[1:5] == ["SUCCEEDED", "0", "30", "1"]  # the service omits a value of 0
    assert lines[7] == "--rate=1 '--loss=a b'"
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "mentions"),
    [
        ([], 2, ("jobs list", "jobs describe", "jobs logs", "jobs wait", "jobs trials", "jobs cancel")),
        (PLACE, 2, ("jobs list", "jobs cancel")),
        (["cancel", *PLACE, "7", "8"], 2, ("jobs cancel NAME", "2")),
        (["list", *PLACE, "--follow"], 2, ("--follow", "jobs logs", "jobs list")),
        (["wait", CUSTOM, "--plot=x.png"], 2, ("--plot", "jobs trials", "jobs wait")),
        (["list", *PLACE, "--filter=team is vision"], 1, ("team is vision",)),
        (["logs", CUSTOM, "--tail=0"], 2, ("--tail", "0")),
        (["logs", CUSTOM, "--severity=LOUD"], 2, ("LOUD", "WARNING")),
        (["logs", CUSTOM, '--task_name=" OR "'], 2, ("task_name", "workerpool0-0")),
        (["wait", "7", *PLACE], 1, ("7", "jobs list")),
        (["trials", CUSTOM], 2, (CUSTOM, "tuning")),
        (["trials", STUDY, "--plot=x.pdf"], 2, ("plot=x.pdf", ".png")),
        (["trials", STUDY, "--plot=missing/x.png"], 2, ("missing",)),
        (["list", *PLACE, "--api_endpoint=http://example.com", "--noanonymous"], 2, ("example.com", "--anonymous")),
        (["lst", *PLACE], 2, ("'lst'", "list", "describe", "cancel")),
        (["list", "7", *PLACE], 2, ("jobs list", "1")),
        (["describe", *PLACE], 2, ("jobs describe NAME", "0")),
        (["list", "--region=us-central1"], 2, ("--project",)),
        (["cancel", "7", "--project=p"], 2, ("--region",)),
        (["describe", f"{PARENT}/endpoints/7"], 2, (f"{PARENT}/endpoints/7", "customJobs")),
        *(
            (["describe", name], 2, (name, "customJobs"))
            for name in (f"{PARENT}/customJobs/7/", f"{PARENT}/customJobs/../7", "customJobs/7")
        ),
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
