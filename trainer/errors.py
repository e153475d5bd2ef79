"""The exceptions that users meet: each message is one sentence with what was got, what was expected, what to do."""

import enum
import re


class ExitCode(enum.IntEnum):
    """Exit codes of the commands and of a training process."""

    DONE = 0
    ERROR = 1
    BAD_FLAGS = 2
    INTERRUPTED = 130
    LOST_WORKER = 134
    """As after SIGABRT: Vertex AI retries a job whose process ends with this code."""
    BROKEN_PIPE = 141
    PREEMPTED = 143


class TrainerError(Exception):
    """A mistake that the user can mend. The command line prints its message and exits with `exit_code`."""

    exit_code: int = ExitCode.ERROR


class ConfigError(TrainerError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(TrainerError, ValueError):
    """Images or labels that cannot be read or do not fit the job."""


class StorageError(TrainerError):
    """A file or a bucket that cannot be read or written."""


class MissingError(StorageError):
    """A file or an object that does not exist."""


class NetworkError(TrainerError, ValueError):
    """A generator, discriminator, loss or optimizer that cannot be trained together."""


class CheckpointError(TrainerError):
    """A run directory that cannot be written, resumed or read."""


class DivergenceError(TrainerError):
    """Training produced a value that is not finite."""


class JobError(TrainerError):
    """A job that Vertex AI refuses, or that ended without success.

    Args:
        message: The sentence.
        exit_code: That of the process that decided it, where it ran here.
    """

    def __init__(self, message: str, exit_code: int = ExitCode.ERROR):
        super().__init__(message)
        self.exit_code = exit_code


class JobStopped(JobError):
    """A job that runs here and was told to end from outside."""


class Preempted(TrainerError):
    """Training stopped on SIGTERM, after its state was committed."""

    exit_code = ExitCode.PREEMPTED


class Interrupted(TrainerError):
    """The user stopped waiting for something that goes on elsewhere."""

    exit_code = ExitCode.INTERRUPTED


_MAX_QUOTED_CHARACTERS = 80
UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal, end a line, or change the direction of the text."""


def quote(value: object) -> str:
    """Returns a value from outside for a message: escaped like by `repr`, and shortened."""
    limit = _MAX_QUOTED_CHARACTERS
    text = repr(value[: 2 * limit] if isinstance(value, str) else value)
    is_cut = len(text) > limit or (isinstance(value, str) and len(value) > 2 * limit)
    return f"{text[: limit - 2]}…{text[:1] if isinstance(value, str) else ''}" if is_cut else text


def escape(value: object) -> str:
    """Returns a text on one line: characters that control a terminal are escaped, line breaks included."""
    return UNSAFE.sub(_escape_match, str(value))


def escape_lines(value: object) -> str:
    """Returns a text whose line breaks and tabs stay, and whose other control characters are escaped."""
    return UNSAFE.sub(lambda match: match[0] if match[0] in "\n\t" else _escape_match(match), str(value))


def _escape_match(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
