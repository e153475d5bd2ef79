"""Metrics of a trial for a hyperparameter tuning job."""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from trainer import metrics
from trainer.callbacks.base import Priority
from trainer.callbacks.by_products import WriteErrors, output_path
from trainer.errors import StorageError
from trainer.metrics.log_names import is_metric, own_name
from trainer.storage import write_atomically
from trainer.storage.local_files import open_regular

_logger = logging.getLogger(__name__)

_MAX_LINES = 100


class TuningReport(keras.callbacks.Callback):
    """Writes the metrics of each evaluation to the file that the tuning service reads, one JSON object per line.

    Lines that cannot be written are logged as a warning, and written with the next ones or at the end.

    The tag of a metric is its name without the protocol: `metric/frechet_digits_5k` is reported as `frechet`. Values
    that are not finite are not reported.

    Source: the file format of cloudml-hypertune, of which the last 100 lines count.

    Args:
        path: Path of the file. A resumed trial appends to it.
        trial: Name of the trial.
        suite: Suite of the metrics, one of `trainer.metrics.names()`. None: the names have no protocol.
        num_samples: Number of fake images of the suite. None: its default number.

    Raises:
        StorageError: If the file cannot be read, or its folder cannot be written.
    """

    priority = Priority.LOGS

    def __init__(
        self,
        path: str | os.PathLike[str],
        trial: str,
        *,
        suite: str | None = None,
        num_samples: int | None = None,
    ):
        super().__init__()
        self._suite, self._num_samples = suite, num_samples
        self._path, self._trial = output_path(path), trial
        _check_folder(self._path.parent)
        self._lines = _read_lines(self._path)
        self._errors, self._is_written = WriteErrors("metrics of this trial"), True

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.model.step > 0:  # the evaluation of this step, which an earlier process has abandoned
            self.on_train_batch_end(0, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        measured = {name: value for name, value in (logs or {}).items() if is_metric(name)}
        if not measured:
            return
        for name, value in self._errors.numbers(measured).items():
            tag = self._tag(name)
            if math.isfinite(value):
                self._lines.append(self._line(tag, value))
            else:
                _logger.warning(f"{tag} is {value} at step {self.model.step} and is not reported.")
        self._is_written = not self._lines
        self._write()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._write()

    def _write(self) -> None:
        if self._is_written:
            return
        with self._errors.suppress(self._path):
            write_atomically(self._path, ("\n".join(self._lines[-_MAX_LINES:]) + "\n").encode())
            self._is_written = True

    def _tag(self, name: str) -> str:
        """Returns the name of a metric in a tuning job: `frechet` for `metric/frechet_digits_5k`."""
        metric = own_name(name)
        if self._suite is None:
            return metric
        return metrics.without_protocol(metric, self._suite, self._num_samples)

    def _line(self, name: str, value: float) -> str:
        return json.dumps(
            {
                "timestamp": time.time(),
                "trial": self._trial,
                name: str(value),
                "global_step": str(self.model.step),
                "checkpoint_path": "",
            },
            sort_keys=True,
        )


def _check_folder(folder: Path) -> None:
    """Creates the folder of the metric file. An error here is cheaper than one after the first evaluation."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"user {os.geteuid()} cannot write to {folder}, where the tuning service reads metrics; on Vertex AI the "
            "folder belongs to root, so run the image as root."
        )


def _read_lines(path: Path) -> list[str]:
    """Returns the lines that an earlier process of the trial has reported."""
    try:
        if not os.path.lexists(path):
            return []
        with open_regular(path, "rb") as file:
            return file.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise StorageError(
            f"{path}, where the tuning service reads metrics, cannot be read ({error.strerror}); delete it."
        ) from error
