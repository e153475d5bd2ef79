"""Follows a job to its end."""

import time

from trainer import console
from trainer.cloud.logs import JobLog
from trainer.cloud.refusals import passes
from trainer.cloud.vertex import Job, Jobs
from trainer.errors import Interrupted, JobError

_POLL_SECS = 10.0
_SECOND_THOUGHT_SECS = 2.0
_MOST_LOOKS = 60
"""How often in turn the service may be away: each takes up to a minute and a half."""
_LAST_LINES_SECS = 5.0
"""What is written last arrives in the log after the job is over."""
_sleep = time.sleep


def follow(jobs: Jobs, job: Job) -> None:
    """Waits for a job, and says each change of its state and what it writes to its log.

    Ctrl-C stops the waiting, twice cancels the job.

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
    said, log = "", _log(jobs, job)
    while True:
        log = _read(log)
        if job.state != said:
            said = job.state
            if job.is_over and log is not None:
                _sleep(_LAST_LINES_SECS)
                _read(log)
            console.say(f"{job.display_name} is {said}.", fields={"job": job.name, "state": said})
        if job.is_over:
            return job
        job = _next_look(jobs, job)


def _next_look(jobs: Jobs, job: Job) -> Job:
    """The job after a pause, or after more of them where the service is away: nothing of that ends the job.

    Raises:
        JobError: It stays away, or refuses.
    """
    looks = 0
    while True:
        _sleep(_POLL_SECS)
        try:
            return jobs.get(job.name)
        except JobError as error:
            looks, problem = looks + 1, f"{error}".rstrip(".")
            is_away = isinstance(error.__cause__, Exception) and passes(error.__cause__)
            if looks == _MOST_LOOKS or not is_away:
                raise JobError(
                    f"{job.name} may go on, and cannot be seen any more ({problem}); look with python -m trainer jobs "
                    f"describe {job.name} before you send it again."
                ) from error
            if looks == 1:
                console.say(f"{job.name} cannot be seen for now ({problem}).", severity="WARNING")


def _log(jobs: Jobs, job: Job) -> JobLog | None:
    """The job's log; None where it cannot be read, which is said."""
    try:
        return JobLog(jobs.place, job.name)
    except JobError as error:
        console.say(f"{error}", severity="WARNING")
        return None


def _read(log: JobLog | None) -> JobLog | None:
    """Says what is new in a log; returns it, or None where it cannot be read, which is said once."""
    try:
        for entry in log.news() if log else ():
            console.say(f"{entry.task} | {entry.message}", severity=entry.severity, fields={"task": entry.task})
    except JobError as error:
        console.say(f"{error}", severity="WARNING")
        return None
    return log


def _stop_waiting(jobs: Jobs, job: Job) -> None:
    console.say(f"{job.name} goes on; press Ctrl-C again within two seconds to cancel it.", severity="WARNING")
    try:
        _sleep(_SECOND_THOUGHT_SECS)
    except KeyboardInterrupt:
        jobs.cancel(job.name)
        raise Interrupted(f"{job.name} is being cancelled, as you asked by Ctrl-C.") from None
    raise Interrupted(f"{job.name} goes on; python -m trainer jobs cancel {job.name} cancels it.")
