"""Reads of the state of something that runs on Vertex AI, which tolerate outages of the service."""

import logging
from collections.abc import Callable
from typing import TypeVar

from trainer.cloud.vertex.api_errors import is_transient
from trainer.errors import ExitCode, JobError

_logger = logging.getLogger(__name__)

_State = TypeVar("_State")
_MAX_FAILED_POLLS = 60
"""Failures of the service in a row that are tolerated. Each may take up to a minute and a half."""


def poll(read: Callable[[], _State], pause: Callable[[], object], name: str, advice: str) -> _State:
    """Returns a state after a pause, or after several if the service is unavailable for a while.

    Args:
        read: Function that reads the state.
        pause: Function that waits before each call of `read`.
        name: Name of the job or operation, for messages.
        advice: What to do if its state cannot be read, for the message of the error.

    Raises:
        JobError: If the service stays unavailable or rejects the call.
    """
    failed_polls = 0
    while True:
        pause()
        try:
            return read()
        except JobError as error:
            failed_polls, problem = failed_polls + 1, f"{error}".rstrip(".")
            can_retry = isinstance(error.__cause__, Exception) and is_transient(error.__cause__)
            if failed_polls == _MAX_FAILED_POLLS or not can_retry:
                raise JobError(
                    f"{name} may still be running, but its state cannot be read ({problem}); {advice}",
                    ExitCode.JOB_UNKNOWN,
                ) from error
            if failed_polls == 1:
                _logger.warning(f"The state of {name} cannot be read at the moment ({problem}). Trying again.")
