"""Follows a job on Vertex AI until it ends."""

import logging
import time

from trainer.cloud.vertex.api_errors import is_transient
from trainer.cloud.vertex.client import Job, JobClient
from trainer.cloud.vertex.logs import JobLog
from trainer.errors import Interrupted, JobError
from trainer.logging import log_fields

_logger = logging.getLogger(__name__)

_POLL_SECS = 10.0
_SECOND_INTERRUPT_SECS = 2.0
"""Time for a second Ctrl-C, which cancels the job."""
_MAX_FAILED_POLLS = 60
"""Failures of the service in a row that are tolerated. Each may take up to a minute and a half."""
_LOG_DELAY_SECS = 5.0
"""Time that the last entries of a job need to arrive in its log."""
_sleep = time.sleep


def follow(client: JobClient, job: Job) -> None:
    """Waits until a job ends, and logs each change of its state and the entries of its log.

    Ctrl-C stops the waiting. A second Ctrl-C cancels the job.

    Raises:
        JobError: If the job does not succeed, or the service can no longer be reached.
        Interrupted: If the user presses Ctrl-C.
    """
    try:
        job = _wait(client, job)
    except KeyboardInterrupt:
        _handle_interrupt(client, job)
    if job.state != "SUCCEEDED":
        reason = " ".join(job.error.split()).rstrip(".") or "the service gives no reason"
        raise JobError(f"{job.name} ended as {job.state}: {reason}; see its logs on its page in the console.")


def _wait(client: JobClient, job: Job) -> Job:
    last_state, log = "", _open_log(client, job)
    while True:
        log = _log_new_entries(log)
        if job.state != last_state:
            last_state = job.state
            if job.has_ended and log is not None:
                _sleep(_LOG_DELAY_SECS)
                _log_new_entries(log)
            fields = log_fields({"job": job.name, "state": job.state})
            _logger.info(f"{job.display_name} is {job.state}.", extra=fields)
        if job.has_ended:
            return job
        job = _poll(client, job)


def _poll(client: JobClient, job: Job) -> Job:
    """Returns the job after a pause, or after several if the service is unavailable for a while.

    Raises:
        JobError: If the service stays unavailable or rejects the call.
    """
    failed_polls = 0
    while True:
        _sleep(_POLL_SECS)
        try:
            return client.get(job.name)
        except JobError as error:
            failed_polls, problem = failed_polls + 1, f"{error}".rstrip(".")
            can_retry = isinstance(error.__cause__, Exception) and is_transient(error.__cause__)
            if failed_polls == _MAX_FAILED_POLLS or not can_retry:
                raise JobError(
                    f"{job.name} may still be running, but its state cannot be read ({problem}); check it with "
                    f"python -m trainer jobs describe {job.name} before you submit it again."
                ) from error
            if failed_polls == 1:
                _logger.warning(f"The state of {job.name} cannot be read at the moment ({problem}). Trying again.")


def _open_log(client: JobClient, job: Job) -> JobLog | None:
    """Returns the job's log. If it cannot be read, logs a warning and returns None."""
    try:
        return JobLog(client.endpoint, job.name)
    except JobError as error:
        _logger.warning(f"{error}")
        return None


def _log_new_entries(log: JobLog | None) -> JobLog | None:
    """Logs the new entries of a job's log and returns the log. If it cannot be read, warns and returns None."""
    try:
        for entry in log.new_entries() if log else ():
            first, _, rest = entry.message.partition("\n")
            fields = log_fields({"severity": entry.severity, "task": entry.task}, rest)
            _logger.info(f"{entry.task} | {first}", extra=fields)
    except JobError as error:
        _logger.warning(f"{error}")
        return None
    return log


def _handle_interrupt(client: JobClient, job: Job) -> None:
    _logger.warning(f"{job.name} is still running. Press Ctrl-C again within two seconds to cancel it.")
    try:
        _sleep(_SECOND_INTERRUPT_SECS)
    except KeyboardInterrupt:
        client.cancel(job.name)
        raise Interrupted(f"interrupted by Ctrl-C; {job.name} is being canceled.") from None
    raise Interrupted(
        f"interrupted by Ctrl-C; {job.name} is still running. Run python -m trainer jobs cancel {job.name} to cancel "
        "it."
    )
