"""Ends a process whose training stands still: a machine that waits for ever costs as much as one that works."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.order import Priority
from trainer.errors import ExitCode


class Watchdog(keras.callbacks.Callback):
    """Where nothing has happened for a time, writes the stacks of all threads to standard error and ends the process.

    Put one first and one last among the callbacks, so that it sees what they do, too.

    Args:
        timeout_secs: Longest time between two calls of it.
    """

    priority = Priority.FIRST

    def __init__(self, timeout_secs: float):
        super().__init__()
        self._timeout = timeout_secs
        self._started, self._ended = False, threading.Event()
        self._last = time.monotonic()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._last = time.monotonic()
        if not self._started:
            self._started = True
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._last = time.monotonic()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._timeout / 10)):
            if time.monotonic() - self._last > self._timeout:
                faulthandler.dump_traceback(all_threads=True)
                abort(f"no step has ended for {self._timeout:g} s; the stacks of all threads are above")


def abort(reason: str) -> None:
    """Ends this process at once, so that the job is started again from the last checkpoint."""
    try:
        print(f"error: {reason}; the job goes on from the last checkpoint when it is started again.", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
    finally:  # where nobody reads, too: what stays costs as much as what works
        os._exit(ExitCode.LOST_WORKER)
