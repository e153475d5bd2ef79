"""Refreshes the report of a run while it trains."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras

from trainer.callbacks.base import Priority
from trainer.errors import escape
from trainer.metrics.log_names import is_metric

_logger = logging.getLogger(__name__)

_MAX_SHARE = 0.01


class ReportWriter(keras.callbacks.Callback):
    """Writes a report in the background when training begins and after each evaluation, and at the end of the context.

    Training never waits for it. At most one percent of the time is spent on writing: if evaluations are more frequent
    than that allows, several of them share a report. An error of the report is logged once, and does not end the run.

    Args:
        write: Function that writes the report, completely or not at all.
    """

    priority = Priority.PROGRESS

    def __init__(self, write: Callable[[], object]):
        super().__init__()
        self._write_report = write
        self._requested, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._has_failed = False

    def __enter__(self) -> "ReportWriter":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._requested.set()
        self._thread.join()
        self._write()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._requested.set()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if any(map(is_metric, logs or {})):
            self._requested.set()

    def _run(self) -> None:
        while True:
            self._requested.wait()
            if self._stopped.is_set():
                return
            self._requested.clear()
            begin = time.perf_counter()
            self._write()
            if self._stopped.wait((time.perf_counter() - begin) * (1 / _MAX_SHARE - 1)):
                return

    def _write(self) -> None:
        try:
            self._write_report()
        except Exception as error:  # a by-product of any kind must not end a run that took hours
            if not self._has_failed:
                self._has_failed = True
                _logger.warning(
                    f"The report cannot be written ({type(error).__name__}: {escape(error)}). Training continues, and "
                    "the report is tried again without further warnings; correct the cause, or run the report command "
                    "later."
                )
