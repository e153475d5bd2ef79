"""TensorBoard events of the scalars of a run."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.callbacks.order import Priority
from trainer.storage import local_path


class EventLog(keras.callbacks.Callback):
    """Writes the scalars of every execution for TensorBoard.

    Args:
        directory: Folder of the event files.
    """

    priority = Priority.LOGS

    def __init__(self, directory: str | os.PathLike[str]):
        super().__init__()
        self._directory = str(local_path(directory))

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._writer = tf.summary.create_file_writer(self._directory)
        self._write(logs or {})

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._write(logs or {})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._writer.close()

    def _write(self, scalars: Mapping[str, Any]) -> None:
        with self._writer.as_default():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=self.model.step)
