"""The scalars of a run as JSON lines."""

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.order import Priority
from trainer.storage import documents, local_path, read_json_lines, write_atomically

_logger = logging.getLogger(__name__)


class MetricsLog(keras.callbacks.Callback):
    """Appends `{"step", "images_seen", "time", scalars...}` per execution. A resumed run drops later lines.

    Args:
        path: Path of the file.
    """

    priority = Priority.LOGS

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self._path = local_path(path)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        lines, num_unreadable = read_json_lines(self._path, documents.record({"step": documents.whole()}))
        if num_unreadable and self.model.step:
            _logger.warning(f"{self._path} has {num_unreadable} unreadable lines, which are dropped.")
        lines = [line for line in lines if line["step"] <= self.model.step and self.model.step]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        if logs:
            self._append(logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._append(logs or {})

    def _append(self, scalars: Mapping[str, Any]) -> None:
        step = self.model.step
        line = {"step": step, "images_seen": step * self.params["global_batch_size"], "time": time.time(), **scalars}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
