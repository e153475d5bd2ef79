"""Tells a hyperparameter tuning job how a trial does."""

import contextlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from trainer.callbacks.order import Priority
from trainer.errors import StorageError
from trainer.storage import write_atomically

_logger = logging.getLogger(__name__)

_LINES = 100
_OF_SUITE = re.compile(r"_[a-z]+_\d+k$")


class TuningReport(keras.callbacks.Callback):
    """Adds the metrics of each evaluation while training to the file that the tuning service reads: an object a line.

    The tag of a metric is its name without the suite: `metric/frechet_digits_5k` is reported as `frechet`. What is not
    a number is not reported.

    Source: the file format of cloudml-hypertune, of which the last 100 lines count.

    Args:
        path: The file; that of a trial that was interrupted is gone on with.
        trial: Name of the trial.

    Raises:
        StorageError: The file cannot be written.
    """

    priority = Priority.LOGS

    def __init__(self, path: str | os.PathLike[str], trial: str):
        super().__init__()
        self._path, self._trial = Path(path), trial
        _check_folder(self._path.parent)
        self._lines = self._path.read_text().splitlines() if self._path.exists() else []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        found = {tag(name): value for name, value in (logs or {}).items() if name.startswith("metric/")}
        if not found:
            return
        for name, value in found.items():
            if math.isfinite(value):
                self._lines.append(self._line(name, value))
            else:
                _logger.warning(f"{name} is {value} at step {self.model.step}, and is not reported.")
        if not self._lines:
            return
        write_atomically(self._path, ("\n".join(self._lines[-_LINES:]) + "\n").encode())

    def _line(self, name: str, value: float) -> str:
        return json.dumps(
            {
                "timestamp": time.time(),
                "trial": self._trial,
                name: str(float(value)),
                "global_step": str(self.model.step),
                "checkpoint_path": "",
            },
            sort_keys=True,
        )


def _check_folder(folder: Path) -> None:
    """Makes the folder of the metric file; one that may not be written is told before a trial is paid for."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"{folder}, where the tuning service reads metrics, may not be written by user {os.geteuid()}; Vertex AI's "
            "is root's, so let the image run as root."
        )


def tag(name: str) -> str:
    """What a tuning job calls a metric: `metric/frechet_digits_5k` is `frechet`."""
    return _OF_SUITE.sub("", name.removeprefix("metric/"))
