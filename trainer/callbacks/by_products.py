"""Errors of by-products: samples, logs and metrics, whose loss must not end a training run."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from trainer.errors import quote
from trainer.metrics.log_names import is_metric
from trainer.storage import local_path

_logger = logging.getLogger(__name__)


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers in logs, to which any callback may add values, as floats by name. Scalar tensors count."""
    named = {name: _as_number(value) for name, value in logs.items() if isinstance(name, str)}
    return {name: value for name, value in named.items() if value is not None}


def metric_values(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns the metrics of an evaluation in logs, by name; empty without one."""
    return {name: value for name, value in numbers(logs or {}).items() if is_metric(name)}


def output_path(path: str | os.PathLike[str]) -> Path:
    """Returns the local path of the output of a callback.

    Raises:
        ConfigError: If it is in a bucket, or is no path; see `parse_path`.
    """
    return local_path(path, "give a local path, or train from a recipe, whose --job_dir may be in a bucket")


class WriteErrors:
    """Turns errors of the disk into a warning, so that training continues and its checkpoints are saved.

    Only the first error, and the first value that is no number, are logged.

    Args:
        content: Name of what is written, for the message, such as `sample grids`.
    """

    def __init__(self, content: str):
        self._content, self._has_logged_error, self._has_logged_value = content, False, False

    def numbers(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """Returns the numbers in logs, as `numbers` does, and logs the first other value as a warning."""
        values = numbers(logs)
        others = [name for name in logs if name not in values]
        if others and not self._has_logged_value:
            self._has_logged_value = True
            _logger.warning(
                f"The {self._content} do not contain {quote(others[0])}, which is no number but a "
                f"{type(logs[others[0]]).__name__}; a callback has added it to the logs."
            )
        return values

    @contextlib.contextmanager
    def suppress(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Logs an error of the disk in this context instead of raising it.

        Args:
            path: File or folder that is written, for errors that do not name it.
        """
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            if self._has_logged_error:
                return
            self._has_logged_error = True
            _logger.warning(
                f"The {self._content} cannot be written ({_describe(error, os.fspath(path))}). Training continues "
                "without them, and without further warnings about them; correct the cause to get them again."
            )


def _as_number(value: Any) -> float | None:
    """Returns a number or a scalar array or tensor of any library as a float; None for anything else."""
    if isinstance(value, str | bytes) or tuple(getattr(value, "shape", ())):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _describe(error: OSError | tf.errors.OpError, path: str) -> str:
    """Returns the file and the reason of an error."""
    if isinstance(error, OSError):
        return f"{error.filename2 or error.filename or path}: {error.strerror or error}"
    line = error.message.partition("\n")[0].partition(" [Op:")[0]
    return f"{path}: {line.rpartition('}} ')[2].rpartition('; ')[2]}"
