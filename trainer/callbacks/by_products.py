"""Errors of by-products: samples, logs and metrics, whose loss must not end a training run."""

import contextlib
import logging
import os
from collections.abc import Iterator

import tensorflow as tf

_logger = logging.getLogger(__name__)


class WriteErrors:
    """Turns errors of the disk into a warning, so that training continues and its checkpoints are saved.

    Only the first error is logged.

    Args:
        content: Name of what is written, for the message, such as `sample grids`.
    """

    def __init__(self, content: str):
        self._content, self._logged = content, False

    @contextlib.contextmanager
    def tolerated(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Logs an error of the disk in this context instead of raising it.

        Args:
            path: File or folder that is written, for errors that do not name it.
        """
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            if self._logged:
                return
            self._logged = True
            _logger.warning(
                f"The {self._content} cannot be written ({_describe(error, os.fspath(path))}). Training continues "
                "without them, and without further warnings about them; correct the cause to get them again."
            )


def _describe(error: OSError | tf.errors.OpError, path: str) -> str:
    """Returns the file and the reason of an error."""
    if isinstance(error, OSError):
        return f"{error.filename2 or error.filename or path}: {error.strerror or error}"
    line = error.message.partition("\n")[0].partition(" [Op:")[0]
    return f"{path}: {line.rpartition('}} ')[2].rpartition('; ')[2]}"
