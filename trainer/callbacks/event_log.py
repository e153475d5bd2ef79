"""TensorBoard events of a run."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_api, api_pb2, summary as hparams_summary

from trainer.callbacks.base import Priority, is_interrupted
from trainer.callbacks.by_products import WriteErrors, output_path

_RETRY_SECS = 60.0


class EventWriter:
    """Writes events for TensorBoard. An error of the disk becomes a warning, and a new file is tried a minute later.

    Args:
        directory: Folder of the event files.
        content: Name of what is written, for the warning.
    """

    def __init__(self, directory: str | os.PathLike[str], content: str):
        self._directory = str(output_path(directory))
        self._errors = WriteErrors(f"{content} for TensorBoard")
        self._writer: tf.summary.SummaryWriter | None = None
        self._retry_at = 0.0

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Writes scalars by name. Values that are no numbers are left out."""
        scalars = self._errors.numbers(values)

        def write(writer: tf.summary.SummaryWriter) -> None:
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=step)

        self._write(write)

    def image(self, name: str, image: Any, step: int) -> None:
        """Writes an image uint8 [H, W, C], so that TensorBoard shows it at once."""

        def write(writer: tf.summary.SummaryWriter) -> None:
            tf.summary.image(name, image[tf.newaxis], step=step)
            writer.flush()

        self._write(write)

    def protos(self, summaries: Sequence[Any]) -> None:
        """Writes summaries, which are protocol buffers, at step 0."""

        def write(writer: tf.summary.SummaryWriter) -> None:
            for summary in summaries:
                tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=0)

        self._write(write)

    def close(self) -> None:
        """Writes the remaining events and closes the file."""
        writer, self._writer, self._retry_at = self._writer, None, 0.0
        if writer is not None:
            with self._errors.suppress(self._directory):
                writer.close()

    def _write(self, write: Callable[[tf.summary.SummaryWriter], None]) -> None:
        if self._writer is None and time.monotonic() < self._retry_at:
            return
        if not os.path.isdir(self._directory):
            self._writer = None  # its file was deleted
        writer, self._writer, self._retry_at = self._writer, None, time.monotonic() + _RETRY_SECS
        with self._errors.suppress(self._directory):
            writer = writer or tf.summary.create_file_writer(self._directory)
            with writer.as_default():
                write(writer)
            self._writer = writer  # only without an error, after which the file may end in half an event


class EventLog(keras.callbacks.Callback):
    """Writes the scalars of every execution for TensorBoard.

    Args:
        directory: Folder of the event files.
        hparams: Settings of a trial, for TensorBoard's HParams, by name. None: the run is no trial.
        monitor: Name in the logs of the metric of the comparison; None without one.
    """

    priority = Priority.LOGS

    def __init__(
        self,
        directory: str | os.PathLike[str],
        hparams: Mapping[str, Any] | None = None,
        monitor: str | None = None,
    ):
        super().__init__()
        self._events = EventWriter(directory, "scalars")
        self._monitor = monitor
        self._hparams: dict[str, Any] | None = None
        if hparams is not None:
            self._hparams = {name: value for name, value in hparams.items() if isinstance(value, str | int | float)}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._hparams is not None:
            columns = [hparams_api.HParam(name) for name in self._hparams]
            compared = [] if self._monitor is None else [hparams_api.Metric(self._monitor)]
            values = hparams_api.hparams_pb(self._hparams)
            self._events.protos([hparams_api.hparams_config_pb(columns, compared), values])
        self._events.scalars(logs or {}, self.model.step)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._events.scalars(logs or {}, self.model.step)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._hparams is not None and not is_interrupted(self.model, self.params["num_steps"]):
            self._events.protos([hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)])
        self._events.close()
