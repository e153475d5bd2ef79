"""What the program says: plain sentences on a terminal, one JSON object a line everywhere else."""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from trainer.storage.safe_names import shown_lines

_CLEAR_LINE = "\r\x1b[K"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person reads the stream (standard output by default) as it is written."""
    return (stream or sys.stdout).isatty()


def say(message: str, *, severity: str = "INFO", fields: Mapping[str, Any] | None = None) -> None:
    """Tells the user something.

    Args:
        message: A sentence.
        severity: INFO, WARNING or ERROR, as Cloud Logging reads it.
        fields: More of the JSON object; a terminal shows the message alone.
    """
    if is_terminal():
        print(f"{_CLEAR_LINE}{shown_lines(message)}", flush=True)
    else:
        print(json.dumps({"severity": severity, "message": message, "time": time.time(), **(fields or {})}), flush=True)


def print_json(value: Any) -> None:
    """Prints a value as indented JSON, escaped where standard output has no place for all of its characters."""
    text = shown_lines(json.dumps(value, indent=2, ensure_ascii=False))  # the same value: \u is JSON's escape, too
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def escape_unprintable() -> None:
    """Lets standard output show as an escape what its encoding lacks, where an error would end what prints it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Lets what is still written to standard output, at the interpreter's end too, go nowhere without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Holds back what TensorFlow's libraries write to standard error while they load; shows it where that fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
