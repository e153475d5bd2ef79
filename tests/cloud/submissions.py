"""Helpers for tests of `submit` with a local substitute for Vertex AI."""

import json

from specs import JOB

from trainer.cli import submit

RIGHT = JOB | {"baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run"}}
PARENT = "projects/my-project/locations/us-central1"
JOB_NAME = f"{PARENT}/customJobs/1000"
STATES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")


def run_submit(folder, capsys, content, *flags):
    """Submits the content of a file and returns the exit code, the messages and standard error."""
    path = folder / "job.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    code = submit.main(["submit", f"--config={path}", "--project=my-project", "--region=us-central1", *flags])
    printed = capsys.readouterr()
    return code, [json.loads(line)["message"] for line in printed.out.splitlines()], printed.err


def states(messages):
    """States of the job in these messages."""
    return [state for line in messages for state in STATES if state in line and " | " not in line]


def lines_about(job, messages):
    """Messages that mention a job, without the two about its creation."""
    return [line for line in messages[2:] if job in line]


def check_error(error, *mentions):
    """Checks that an error is one line that mentions these facts."""
    assert error.startswith("error: ") and error.count("\n") == 1
    for mention in mentions:
        assert mention in error
