"""Follows a job to its end."""

import logging
import time

from trainer.cloud.vertex.api_errors import passes
from trainer.cloud.vertex.client import Job, Jobs
from trainer.cloud.vertex.logs import JobLog
from trainer.errors import Interrupted, JobError
from trainer.logging import fields as logging_fields

_logger = logging.getLogger(__name__)

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
            _logger.info(f"{job.display_name} is {said}.", extra=logging_fields({"job": job.name, "state": said}))
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
                _logger.warning(f"{job.name} cannot be seen for now ({problem}).")


def _log(jobs: Jobs, job: Job) -> JobLog | None:
    """The job's log; None where it cannot be read, which is said."""
    try:
        return JobLog(jobs.place, job.name)
    except JobError as error:
        _logger.warning(f"{error}")
        return None


def _read(log: JobLog | None) -> JobLog | None:
    """Says what is new in a log; returns it, or None where it cannot be read, which is said once."""
    try:
        for entry in log.news() if log else ():
            _logger.info(
                f"{entry.task} | {entry.message}",
                extra=logging_fields({"severity": entry.severity, "task": entry.task}),
            )
    except JobError as error:
        _logger.warning(f"{error}")
        return None
    return log


def _stop_waiting(jobs: Jobs, job: Job) -> None:
    _logger.warning(f"{job.name} goes on; press Ctrl-C again within two seconds to cancel it.")
    try:
        _sleep(_SECOND_THOUGHT_SECS)
    except KeyboardInterrupt:
        jobs.cancel(job.name)
        raise Interrupted(f"{job.name} is being cancelled, as you asked by Ctrl-C.") from None
    raise Interrupted(f"{job.name} goes on; python -m trainer jobs cancel {job.name} cancels it.")
