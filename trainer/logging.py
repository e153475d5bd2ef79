"""Output of the commands: the handler of the `trainer` logger, JSON results, and the standard streams.

The package logs with the standard `logging` module to loggers below `trainer`. Only the commands install a handler.
"""

import contextlib
import datetime
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TextIO, cast

from trainer.errors import escape, escape_lines, shorten

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""Environment variable with the lowest level of the messages of TensorFlow's libraries."""
IS_LOG_LEVEL_SET = LOG_LEVEL in os.environ
"""True if the user has set it. `quiet_import` sets it, too, but this module is always imported before that."""
_CLEAR_LINE = "\r\x1b[K"


class CommandHandler(logging.Handler):
    """Handler that prints plain messages on a terminal, and one JSON object per line elsewhere.

    An object has the keys that Cloud Logging reads (`severity`, `message`, `time`) and the fields of
    `extra=log_fields(...)`. A message is one line of limited length without control characters, whatever values it
    quotes. Errors of the stream are raised, so that a closed pipe ends the command.
    """

    uses_stderr = False
    """True if messages go to standard error, because standard output is the result of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        message = escape(shorten(record.getMessage()))
        if text := getattr(record, "text", ""):
            message += f"\n{escape_lines(text)}"
        stream = sys.stderr if self.uses_stderr else sys.stdout
        if is_terminal(stream):
            print(f"{_CLEAR_LINE}{message}", flush=True, file=stream)
            return
        fields = {
            name: shorten(value) if isinstance(value, str) else value
            for name, value in getattr(record, "fields", {}).items()
        }
        entry = {"severity": record.levelname, "message": message, "time": to_rfc3339(record.created)}
        print(json.dumps(entry | fields), flush=True, file=stream)


def install_handler(*, uses_stderr: bool = False) -> None:
    """Installs the handler for messages of level INFO and above, unless it is installed.

    Args:
        uses_stderr: Whether messages go to standard error, because standard output is the result of the command.
    """
    logger = logging.getLogger("trainer")
    if not _command_handlers():
        logger.addHandler(CommandHandler())
    for handler in _command_handlers():
        handler.uses_stderr = uses_stderr
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _command_handlers() -> list[CommandHandler]:
    """Returns the handler that a command has installed, or an empty list."""
    return [handler for handler in logging.getLogger("trainer").handlers if isinstance(handler, CommandHandler)]


def log_fields(values: Mapping[str, Any], text: str = "") -> dict[str, Any]:
    """Returns the `extra` argument of a log call.

    Args:
        values: Keys to add to the JSON object of the message.
        text: Text of several lines to add to the message, such as a traceback.
    """
    return {"fields": dict(values), "text": text}


def to_rfc3339(time: float) -> str:
    """Returns a time in seconds since 1970 as UTC in RFC 3339 format, which Cloud Logging reads."""
    return datetime.datetime.fromtimestamp(time, datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def is_terminal(stream: TextIO | None = None) -> bool:
    """Returns whether a stream (standard output by default) is a terminal."""
    return (stream or sys.stdout).isatty()


def print_line(text: str) -> None:
    """Prints a text as one line of limited length without control characters, whatever values it quotes."""
    print(escape(shorten(text)), flush=True)


def print_json(value: Any) -> None:
    """Prints a value as indented JSON. Characters that standard output cannot encode are escaped."""
    text = escape_lines(json.dumps(value, indent=2, ensure_ascii=False))  # \u escapes are valid JSON
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def prepare_streams() -> None:
    """Opens closed standard streams, and makes standard output escape characters that its encoding does not have.

    A closed stream, as under `>&-`, leads to the null device. Otherwise the next file would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Redirects standard output to the null device, so that later writes and the final flush succeed."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, sys.stdout.fileno())
    os.close(null_device)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Suppresses the output of TensorFlow's libraries to standard error during an import, unless the import fails."""
    os.environ.setdefault(LOG_LEVEL, "3")
    sys.stderr.flush()
    standard_error = os.dup(2)
    with _temporary_file() as captured, _named_temporary_folder():
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(standard_error, captured.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def _temporary_file() -> BinaryIO:
    """Opens a file without a name: in memory where the system can, so that no folder needs to be writable."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile())


@contextlib.contextmanager
def _named_temporary_folder() -> Iterator[None]:
    """Gives the folder for temporary files a name if none is writable. TensorFlow asks for it when it is imported."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.sep
        try:
            yield
        finally:
            tempfile.tempdir = None
    else:
        yield
