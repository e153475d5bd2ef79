"""The scalars of a run as JSON lines."""

import errno
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from trainer.callbacks.base import Priority
from trainer.callbacks.by_products import WriteErrors, metric_values, output_path
from trainer.errors import count_of
from trainer.storage import write_atomically
from trainer.storage.local_files import open_regular
from trainer.storage.run_directory import read_metrics

_logger = logging.getLogger(__name__)

_ROLLBACK = "event/rollback"


class MetricsLog(keras.callbacks.Callback):
    """Appends `{"step", "images_seen", "time", scalars...}` per execution. A resumed run drops later lines.

    Metrics of a repeated evaluation at the beginning of a resumed run are added to the last line, if it is of its step.

    A rollback drops later lines, too, and adds a line `{"step", "time", "event/rollback": 1, "diverged_at_step",
    "rollbacks"}`.

    Values that are no numbers, and those that callbacks add under the first three names, are left out.

    If the file has damaged lines, a resumed run keeps a copy of it beside the file, `metrics.damaged.jsonl`. Lines that
    cannot be written are tried again with the next one.

    Args:
        path: Path of the file.
    """

    priority = Priority.LOGS

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self._path = output_path(path)
        self._errors = WriteErrors("metrics")
        self._unwritten = b""

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._unwritten = b""
        num_damaged = 0
        # In a resumed run, metrics are those of an evaluation that an earlier process has abandoned.
        values = self._errors.numbers(logs or {}) if self.model.step == 0 or metric_values(logs) else {}
        with self._errors.suppress(self._path):
            lines, num_damaged = read_metrics(self._path)
            if num_damaged:
                os.replace(self._path, self._damaged_path)
            step = self.model.step
            # A rollback to the step of this checkpoint came after it was written, and comes again.
            lines = [
                line for line in lines if line["step"] < step or (line["step"] == step > 0 and _ROLLBACK not in line)
            ]
            if values and lines and lines[-1]["step"] == step:
                lines[-1] = values | lines[-1]
                values = {}
            self._rewrite(lines)
        if num_damaged:
            _logger.warning(
                f"{self._path.name} has {count_of(num_damaged, 'damaged line')}; the other lines are kept, and the "
                f"damaged file is now {self._damaged_path.name}."
            )
        if values:
            self._append(values)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._append(logs or {})

    def on_rollback(self, event: Mapping[str, int]) -> None:
        """Drops the lines after `model.step`, to which the run has returned, and appends a line about the rollback."""
        step = self.model.step
        self._unwritten = b""
        with self._errors.suppress(self._path):
            lines, _ = read_metrics(self._path)
            line = {"step": step, "time": time.time(), _ROLLBACK: 1.0, **event}
            self._rewrite([*(line for line in lines if line["step"] <= step), line])

    def _rewrite(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    @property
    def _damaged_path(self) -> Path:
        return self._path.with_name(f"{self._path.stem}.damaged{self._path.suffix}")

    def _append(self, scalars: Mapping[str, Any]) -> None:
        step = self.model.step
        progress = {"step": step, "images_seen": step * self.params["global_batch_size"], "time": time.time()}
        line = progress | self._errors.numbers(scalars) | progress
        self._unwritten += json.dumps(line).encode() + b"\n"
        with self._errors.suppress(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_lines(self._path, self._unwritten)
            self._unwritten = b""


def append_lines(path: Path, lines: bytes) -> None:
    """Appends to a file completely or not at all.

    Raises:
        OSError: If it is not a regular file or cannot be written.
    """
    with open_regular(path, "ab") as file:
        size = file.tell()
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        except OSError:
            file.truncate(size)
            raise
