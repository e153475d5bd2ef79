"""What the program says: plain sentences on a terminal, one JSON object a line everywhere else."""

import json
import sys
import time
from typing import Any, TextIO

_CLEAR_LINE = "\r\x1b[K"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person reads the stream (standard output by default) as it is written."""
    return (stream or sys.stdout).isatty()


def say(message: str, *, severity: str = "INFO", **fields: Any) -> None:
    """Tells the user something.

    Args:
        message: A sentence.
        severity: INFO or WARNING, as Cloud Logging reads it.
        **fields: More of the JSON object; a terminal shows the message alone.
    """
    if is_terminal():
        print(f"{_CLEAR_LINE}{message}", flush=True)
    else:
        print(json.dumps({"severity": severity, "message": message, "time": time.time(), **fields}), flush=True)
