"""A watchdog that ends a process whose training makes no progress."""

import faulthandler
import os
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import keras
import tensorflow as tf

from trainer import heartbeat
from trainer.callbacks.base import Priority
from trainer.errors import ExitCode

LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
"""Errors that TensorFlow raises when another machine of the cluster is lost."""


class Watchdog(keras.callbacks.Callback):
    """Ends the process if neither a step nor the callbacks finish in time.

    Use it as a context around `fit`, so that it also ends with an exception. It writes the reason and the stacks of all
    threads to standard error first.

    Args:
        timeout_secs: Longest time between two heartbeats: the begin and end of steps, the end of the callbacks, and
            those of work that takes long, such as each block of images in an evaluation.
    """

    priority = Priority.FIRST

    def __init__(self, timeout_secs: float):
        super().__init__()
        self._timeout = timeout_secs
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        heartbeat.beat()
        self._ended.set()  # ends the thread of a `fit` that ended with an exception
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=(self._ended,), name="watchdog", daemon=True).start()

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        heartbeat.beat()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        heartbeat.beat()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._ended.set()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, self._timeout / 10)):
            if heartbeat.secs_since_beat() > self._timeout:
                abort(f"no progress for {self._timeout:g} s", with_stacks=True)


class Heartbeat(keras.callbacks.Callback):
    """Resets the watchdog's time after all other callbacks, so that they and a step have separate limits."""

    priority = Priority.LAST

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        heartbeat.beat()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        heartbeat.beat()


def abort(reason: str, *, with_stacks: bool = False) -> None:
    """Ends this process at once, so that the job restarts from the last checkpoint.

    Args:
        reason: Reason, as a part of a sentence.
        with_stacks: Whether to write the stacks of all threads to standard error, too.
    """
    try:
        print(f"error: {reason}; a restart resumes from the last checkpoint.", file=sys.stderr, flush=True)
        if with_stacks:
            faulthandler.dump_traceback(all_threads=True)
        sys.stdout.flush()
    finally:  # also if the streams are closed
        os._exit(ExitCode.LOST_WORKER)
