"""Sends what a run logs to experiment trackers."""

import contextlib
import functools
import json
import logging
import math
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import keras

from trainer.callbacks.base import Priority, is_interrupted
from trainer.callbacks.by_products import numbers
from trainer.callbacks.trackers import Parameter, Tracker, create
from trainer.config import TrainConfig
from trainer.errors import DocumentError, StorageError, escape
from trainer.metrics.log_names import own_name
from trainer.storage import RunDirectory, documents, is_remote, write_atomically
from trainer.storage.local import LocalLocation
from trainer.storage.run_directory import read_metrics, sample_grid_name

_logger = logging.getLogger(__name__)

_MAX_PENDING = 1000
_END_SECS, _PREEMPTED_END_SECS = 60.0, 5.0


class Tracking(keras.callbacks.Callback):
    """Sends settings, scalars, sample grids, and the best checkpoint to trackers. Use it as a context around `fit`.

    A thread per tracker calls it, and training does not wait. If a tracker fails, or is too slow for a thousand calls,
    a warning is logged once, and training continues without it. The IDs of the runs are stored, so that a resumed run
    continues them.

    Args:
        trackers: Client of each tracker, by name.
        ids: File of the IDs, `trackers.json`.
        samples: Folder of the sample grids.
        metrics: File of the scalars, `metrics.jsonl`, from which the best value is read at the end.
        name: Name of a new run.
        settings: Settings of the run as JSON values.
        monitor: Name in the logs of the metric whose smallest value is the best; None without one.
    """

    priority = Priority.PROGRESS

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        *,
        ids: Path,
        samples: Path,
        metrics: Path,
        name: str,
        settings: Mapping[str, Any],
        monitor: str | None,
    ):
        super().__init__()
        self._samples, self._metrics, self._monitor = samples, metrics, monitor
        self._name, self._parameters = name, _parameters(settings)
        self._ids_file, self._ids, self._ids_lock = ids, _read_ids(ids) if trackers else {}, threading.Lock()
        self._workers = {key: _Worker(key, tracker) for key, tracker in trackers.items()}
        self._has_begun = False

    @classmethod
    def of_run(cls, config: TrainConfig, directory: RunDirectory, monitor: str | None) -> "Tracking":
        """Returns the callback for the trackers of a run.

        The files of Weights & Biases stay in a local run directory. For a run in a bucket, they are temporary.
        """
        folder = Path(tempfile.gettempdir()) if is_remote(directory.name) else directory.root
        return cls(
            {name: create(name, folder) for name in dict.fromkeys(config.track)},
            ids=directory.trackers,
            samples=directory.samples,
            metrics=directory.metrics,
            name=run_name(directory.name),
            settings=config.to_dict(),
            monitor=monitor,
        )

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._has_begun:
            return
        is_complete = kind is None and not is_interrupted(self.model, self.params["num_steps"])
        summary = self._summary()
        for worker in self._workers.values():
            worker.send(lambda tracker: tracker.end(summary, is_complete=is_complete))
        deadline = time.monotonic() + (_PREEMPTED_END_SECS if self.model.preempted else _END_SECS)
        for worker in self._workers.values():
            worker.finish(deadline)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if not self._has_begun:
            self._has_begun = True
            for key, worker in self._workers.items():
                worker.send(functools.partial(self._begin, key))
        self._send(logs or {})

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._send(logs or {})

    def _begin(self, key: str, tracker: Tracker) -> None:
        run_id = tracker.begin(self._ids.get(key), self._name, self._parameters)
        with self._ids_lock:
            self._ids[key] = run_id
            write_atomically(self._ids_file, json.dumps(self._ids).encode())

    def _send(self, logs: Mapping[str, Any]) -> None:
        step, scalars = self.model.step, {name: value for name, value in numbers(logs).items() if math.isfinite(value)}
        grid = self._samples / sample_grid_name(step)
        has_grid = bool(self._workers) and grid.is_file()
        for worker in self._workers.values():
            if scalars:
                worker.send(lambda tracker: tracker.log(scalars, step))
            if has_grid:
                worker.send(lambda tracker: tracker.image(grid, step))

    def _summary(self) -> dict[str, float]:
        """Returns the best value of the monitored metric and its step, over all sessions of the run."""
        if self._monitor is None or not self._workers:
            return {}
        try:
            lines, _ = read_metrics(self._metrics)
        except OSError:
            return {}  # the callback that writes the file has logged it
        values = [(value, line["step"]) for line in lines if (value := numbers(line).get(self._monitor)) is not None]
        finite = [pair for pair in values if math.isfinite(pair[0]) and pair[1] > 0]  # no checkpoint has step 0
        if not finite:
            return {}
        best, step = min(finite)
        return {f"best/{own_name(self._monitor)}": best, "best/step": float(step)}


def run_name(job_dir: str) -> str:
    """Returns the name of a run for trackers: the last part of its directory, after its parent if it is a number.

    Such a directory is that of a trial. Trials of several studies would otherwise have the same name.
    """
    *_, parent, name = ("", *job_dir.rstrip("/").split("/"))
    return f"{parent}-{name}" if name.isdecimal() and parent else name


class _Worker:
    """The thread of a tracker."""

    def __init__(self, name: str, tracker: Tracker):
        self._name, self._tracker = name, tracker
        self._calls: queue.Queue[Callable[[Tracker], object] | None] = queue.Queue(_MAX_PENDING)
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def send(self, call: Callable[[Tracker], object]) -> None:
        """Calls a function of the tracker in the thread."""
        if self._has_failed:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._fail(f"more than {_MAX_PENDING} calls are waiting")

    def finish(self, deadline: float) -> None:
        """Waits for the calls, at most until a time of `time.monotonic`."""
        if self._has_failed:
            return
        with contextlib.suppress(queue.Full):
            self._calls.put(None, timeout=max(0.0, deadline - time.monotonic()))
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._fail("it had not finished when the run ended", "Training has ended without it")

    def _run(self) -> None:
        while (call := self._calls.get()) is not None and not self._has_failed:
            try:
                call(self._tracker)
            except Exception as error:  # a by-product of any kind must not end a run that took hours
                self._fail(f"{type(error).__name__}: {escape(error)}")

    def _fail(self, reason: str, effect: str = "Training continues without it") -> None:
        if not self._has_failed:
            self._has_failed = True
            _logger.warning(
                f"The tracker {self._name} failed ({reason}). {effect}; correct the cause and resume the run to track "
                "it again."
            )


def _read_ids(file: Path) -> dict[str, str]:
    """Returns the IDs of an earlier session."""
    if not file.exists():
        return {}
    try:
        schema = documents.map_of(documents.text(r"[\w.:/-]{1,200}", "an ID"))
        return dict(documents.read_json(LocalLocation(file), schema, remedy="the trackers begin new runs"))
    except (DocumentError, StorageError) as error:
        _logger.warning(f"The IDs of the trackers are lost: {error}")
        return {}


def _parameters(settings: Mapping[str, Any]) -> dict[str, Parameter]:
    """Returns settings as parameters: lists and objects as JSON, and without those that are not set."""
    return {
        name: json.dumps(value) if isinstance(value, list | dict) else value
        for name, value in settings.items()
        if value is not None
    }
