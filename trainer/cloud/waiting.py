"""Follows a job to its end."""

import time

from trainer import console
from trainer.cloud.vertex import Job, Jobs
from trainer.errors import Interrupted, JobError

_POLL_SECS = 10.0
_SECOND_THOUGHT_SECS = 2.0
_sleep = time.sleep


def follow(jobs: Jobs, job: Job) -> None:
    """Waits for a job, and says each change of its state. Ctrl-C stops the waiting, twice cancels the job.

    Raises:
        JobError: It did not succeed.
        Interrupted: By Ctrl-C.
    """
    try:
        job = _to_its_end(jobs, job)
    except KeyboardInterrupt:
        _stop_waiting(jobs, job)
    if job.state != "SUCCEEDED":
        reason = " ".join(job.error.split()).rstrip(".") or "the service gives no reason"
        raise JobError(f"{job.name} ended as {job.state}: {reason}; its logs are on its page in the console.")


def _to_its_end(jobs: Jobs, job: Job) -> Job:
    said = ""
    while True:
        if job.state != said:
            said = job.state
            console.say(f"{job.display_name} is {said}.", fields={"job": job.name, "state": said})
        if job.is_over:
            return job
        _sleep(_POLL_SECS)
        job = jobs.get(job.name)


def _stop_waiting(jobs: Jobs, job: Job) -> None:
    console.say(f"{job.name} goes on; press Ctrl-C again within two seconds to cancel it.", severity="WARNING")
    try:
        _sleep(_SECOND_THOUGHT_SECS)
    except KeyboardInterrupt:
        jobs.cancel(job.name)
        raise Interrupted(f"{job.name} is being cancelled, as you asked by Ctrl-C.") from None
    raise Interrupted(f"{job.name} goes on; python -m trainer jobs cancel {job.name} cancels it.")
