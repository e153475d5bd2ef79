"""Exceptions with messages for users: what was received, what is allowed, and what to do."""

import enum
import itertools
import re
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """Exit codes of the commands and of a training process."""

    DONE = 0
    ERROR = 1
    BAD_FLAGS = 2
    JOB_CANCELED = 3
    """The code of a command that waited for a job on Vertex AI that was canceled."""
    JOB_UNKNOWN = 4
    """The code of a command that waited for a job on Vertex AI and can no longer read its state."""
    HUNG_UP = 129
    INTERRUPTED = 130
    LOST_WORKER = 134
    """The code of a process that ends with SIGABRT. Vertex AI retries a job that ends with it."""
    BROKEN_PIPE = 141
    PREEMPTED = 143


MISSING_CREDENTIALS = (
    "Google Cloud credentials are missing, expired or not accepted; run gcloud auth application-default login, or set "
    "GOOGLE_APPLICATION_CREDENTIALS to a key file."
)
"""End of every message about credentials."""


class TrainerError(Exception):
    """Base class of errors that the user can fix. The commands print the message and exit with `exit_code`.

    The message is one line of limited length without control characters, whatever values it quotes.
    """

    exit_code: int = ExitCode.ERROR

    _keras_call_info_injected = True
    """Keeps Keras from adding lines about a layer and its arguments. A test fails if that changes."""

    def __str__(self) -> str:
        return escape(shorten(super().__str__()))


class ConfigError(TrainerError, ValueError):
    """An invalid setting or combination of settings."""


class DataError(TrainerError, ValueError):
    """Images or labels that are unreadable or do not fit the job."""


class FilteredImageError(DataError):
    """An image that a filter of the user leaves out."""


class StorageError(TrainerError):
    """A file or bucket that is not readable or not writable."""


class MissingError(StorageError):
    """A file or an object that does not exist."""


class LeaseError(StorageError):
    """A folder that another process is writing."""


class DocumentError(StorageError, ValueError):
    """A file that is too large for its kind, or JSON or YAML that is damaged, too deep or has unexpected fields."""


class NetworkError(TrainerError, ValueError):
    """Networks, a loss or an optimizer that do not work together."""


class CheckpointError(TrainerError):
    """A run directory that is not readable, not writable or not resumable."""


class DivergenceError(TrainerError):
    """A value that is not finite, produced by training."""


DIVERGENCE_ADVICE = "lower the learning rates or choose another loss"
"""Advice in every message of a `DivergenceError`; the first letter may be a capital."""


class JobError(TrainerError):
    """A job that Vertex AI rejects, or that did not succeed.

    Args:
        message: Message for the user.
        exit_code: Exit code of the process that made a local job fail.
    """

    def __init__(self, message: str, exit_code: int = ExitCode.ERROR):
        super().__init__(message)
        self.exit_code = exit_code


class JobStopped(JobError):
    """A local job that was stopped from outside."""


class Preempted(TrainerError):
    """Training that stopped on SIGTERM."""

    exit_code = ExitCode.PREEMPTED


class Interrupted(TrainerError):
    """A command that a signal ended while something it started continues elsewhere.

    Args:
        message: One sentence for the user.
        exit_code: Exit code of the signal.
    """

    def __init__(self, message: str, exit_code: int = ExitCode.INTERRUPTED):
        super().__init__(message)
        self.exit_code = exit_code


_MAX_QUOTED_CHARACTERS = 200  # most paths are shorter
_MAX_MESSAGE_CHARACTERS = 2000
UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal, end a line, or change the direction of the text."""


def status_of(error: TrainerError) -> int | None:
    """Returns the HTTP status with which Cloud Storage or Vertex AI caused an error. None: another cause."""
    return getattr(error.__cause__, "code", None)


def quote(value: object) -> str:
    """Returns an untrusted value for a message: escaped as by `repr`, and shortened."""
    limit = _MAX_QUOTED_CHARACTERS
    try:
        text = repr(value[: 2 * limit] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or a very deep list
        text = f"a very long {type(value).__name__}"
    is_cut = len(text) > limit or (isinstance(value, str) and len(value) > 2 * limit)
    return f"{text[: limit - 2]}…{text[:1] if isinstance(value, str) else ''}" if is_cut else text


def count_of(number: int, noun: str) -> str:
    """Returns a number with its noun for a message, such as `1 image`, `2 classes`, and `1,000 images`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def list_some(texts: Iterable[object], limit: int) -> str:
    """Returns the first texts for a message, separated by commas, and `…` if there are more than `limit`."""
    first = list(itertools.islice(map(str, texts), limit + 1))
    return ", ".join([*first[:limit], "…"] if len(first) > limit else first)


def shorten(text: str) -> str:
    """Returns a text without its middle part if it is very long. The end of a message tells the user what to do."""
    part = _MAX_MESSAGE_CHARACTERS // 2
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else f"{text[:part]} … {text[-part:]}"


def escape(value: object) -> str:
    """Returns a text as one line, with control characters and line breaks escaped."""
    return UNSAFE.sub(_escape_match, str(value))


def escape_lines(value: object) -> str:
    """Returns a text with control characters escaped, except line breaks and tabs."""
    return UNSAFE.sub(lambda match: match[0] if match[0] in "\n\t" else _escape_match(match), str(value))


def _escape_match(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
