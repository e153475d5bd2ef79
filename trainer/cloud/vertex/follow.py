"""Follows a job on Vertex AI until it ends."""

import logging
import time
from typing import NoReturn

from trainer import signals
from trainer.cloud.vertex.client import Job, JobClient
from trainer.cloud.vertex.logs import JobLog, LogEntry
from trainer.cloud.vertex.polling import poll
from trainer.errors import ExitCode, Interrupted, JobError
from trainer.logging import is_terminal, log_fields

_logger = logging.getLogger(__name__)

_POLL_SECS = 10.0
_SECOND_INTERRUPT_SECS = 2.0
"""Time for a second Ctrl-C, which cancels the job."""
_LOG_DELAY_SECS = 5.0
"""Time that the last entries of a job need to arrive in its log."""
_sleep = time.sleep


def follow(client: JobClient, job: Job) -> Job:
    """Waits until a job of this command ends, and logs its states, shells, trials, and the entries of its log.

    Ctrl-C stops the waiting. A second Ctrl-C cancels the job.

    Returns:
        The job in its final state, for `check_success`.

    Raises:
        JobError: If the service can no longer be reached.
        Interrupted: If a signal ends the command.
    """
    try:
        return _watch(client, job, _open_log(client, job))
    except KeyboardInterrupt as error:
        _handle_interrupt(client, job, error)
    except signals.Terminated as error:
        raise _explained(error, job) from None


def wait(client: JobClient, job: Job, log: JobLog | None = None) -> Job:
    """Waits until a job ends that another command has sent, as `follow` does. Ctrl-C never cancels the job.

    Args:
        client: Client of the job's region.
        job: Job to wait for.
        log: Log whose new entries are logged. None: no entries are logged.
    """
    try:
        return _watch(client, job, log)
    except (KeyboardInterrupt, signals.Terminated) as error:
        raise _explained(error, job) from None


def check_success(job: Job) -> None:
    """Checks that a job that has ended has succeeded.

    Raises:
        JobError: If it has not. The exit code tells a canceled job from a failed one.
    """
    if job.state != "SUCCEEDED":
        reason = " ".join(job.error.split()).rstrip(".") or "the service gives no reason"
        raise JobError(
            f"{job.name} ended as {job.state}: {reason}; see its logs with python -m trainer jobs logs {job.name}.",
            ExitCode.JOB_CANCELED if job.state == "CANCELLED" else ExitCode.ERROR,
        )


def log_entry(entry: LogEntry) -> None:
    """Logs an entry of a job's log. On a terminal, its time in UTC comes first."""
    first, _, rest = entry.message.partition("\n")
    fields = log_fields({"severity": entry.severity, "task": entry.task, "time": entry.time}, rest)
    time_prefix = f"{entry.time[:19].replace('T', ' ')} " if is_terminal() else ""
    _logger.info(f"{time_prefix}{entry.task} | {first}", extra=fields)


def _watch(client: JobClient, job: Job, log: JobLog | None) -> Job:
    last_facts: dict[str, str] = {}
    while True:
        log = _log_new_entries(log)
        facts = _describe(job)
        if job.has_ended and log is not None:
            _sleep(_LOG_DELAY_SECS)
            _log_new_entries(log)
        for key, fact in facts.items():
            if fact != last_facts.get(key):
                _logger.info(fact, extra=log_fields({"job": job.name, "state": job.state}))
        last_facts = facts
        if job.has_ended:
            return job
        job = _poll(client, job)


def _describe(job: Job) -> dict[str, str]:
    """Returns a sentence for each fact about a job that may change while it runs."""
    shells = {} if job.has_ended else job.shells
    facts = {f"shell {name}": f"The shell of {name} is at {uri}" for name, uri in shells.items()}
    for trial in job.trials:
        facts[f"trial {trial.get('id')}"] = f"Trial {trial.get('id')} is {trial.get('state', 'UNKNOWN')}."
    if job.trials and job.has_ended:
        facts["trials"] = f"To see its trials: python -m trainer jobs trials {job.name}"
    return facts | {"state": f"{job.display_name} is {job.state}."}


def _poll(client: JobClient, job: Job) -> Job:
    """Returns the job after a pause. The errors are those of `poll`."""
    advice = f"check it with python -m trainer jobs describe {job.name} before you submit it again."
    return poll(lambda: client.get(job.name), lambda: _sleep(_POLL_SECS), job.name, advice)


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
            log_entry(entry)
    except JobError as error:
        _logger.warning(f"{error}")
        return None
    return log


def _handle_interrupt(client: JobClient, job: Job, error: KeyboardInterrupt) -> NoReturn:
    _logger.warning(f"{job.name} is still running. Press Ctrl-C again within two seconds to cancel it.")
    try:
        _sleep(_SECOND_INTERRUPT_SECS)
    except KeyboardInterrupt:
        client.cancel(job.name)
        raise signals.explained(error, f"{job.name} is being canceled.") from None
    except signals.Terminated as terminated:
        raise _explained(terminated, job) from None
    raise _explained(error, job)


def _explained(error: KeyboardInterrupt | signals.Terminated, job: Job) -> Interrupted:
    consequence = (
        f"{job.name} is still running. Wait for it with python -m trainer jobs wait {job.name}, or cancel it with "
        f"python -m trainer jobs cancel {job.name}."
    )
    return signals.explained(error, consequence)
