"""The starts and ends of a run's processes, and what they cost, as JSON lines."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import keras
import tensorflow as tf

from trainer import stopwatch
from trainer.callbacks.base import Priority
from trainer.callbacks.by_products import WriteErrors, output_path
from trainer.callbacks.metrics_log import append_lines
from trainer.metrics.log_names import is_metric, log_name
from trainer.storage.run_directory import REAL_VS_REAL_EVENT, read_events

_PROGRESS_SECS = 60.0


class SessionLog(keras.callbacks.Callback):
    """Appends events of a `fit` to a file. Use it as a context manager around `fit`; its end is the end of the session.

    Lines `{"event", "time", "step", ...}`: `start` with facts; `progress` once per minute, which shows how long a
    killed process ran; `real_vs_real` with the metrics of real images, after the first evaluation of a run; `end` with
    the reason, the seconds by activity, and the peak of the memory in bytes. Unlike `metrics.jsonl`, the file keeps all
    its lines when a run resumes.

    The logs of the last step get the resource figures, too: `resources/ACTIVITY_secs`, up to this step, and
    `resources/MEMORY_peak_bytes`.

    Args:
        path: Path of the file, `events.jsonl`.
        facts: JSON values by name for the line of the start, such as the number of devices.
        real_vs_real: Function that returns the metrics of real images against other real images; None without metrics.
    """

    priority = Priority.ALARM

    def __init__(
        self,
        path: str | os.PathLike[str],
        facts: Mapping[str, Any] | None = None,
        real_vs_real: Callable[[], Mapping[str, float]] | None = None,
    ):
        super().__init__()
        self._path, self._facts, self._real_vs_real = output_path(path), dict(facts or {}), real_vs_real
        self._errors = WriteErrors("events")
        self._last_progress = 0.0
        self._has_started = False

    def __enter__(self) -> "SessionLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_started:
            reason = self._reason() if kind is None else kind.__name__
            self._append("end", {"reason": reason, "secs": stopwatch.seconds(), **peak_memory()})

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._has_started = True
        with self._errors.suppress(self._path):
            events, _ = read_events(self._path)
            if self.model.step > 0 and any(event["event"] == REAL_VS_REAL_EVENT for event in events):
                self._real_vs_real = None
            self._end_last_line()
        self._append("start", self._facts, stopwatch.started_at())
        self._record_real_vs_real(logs or {})

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if time.monotonic() - self._last_progress >= _PROGRESS_SECS:
            self._append("progress", {})
        self._record_real_vs_real(logs or {})
        if logs is not None and self.model.step == self.params["num_steps"]:
            seconds = {f"resources/{name}_secs": value for name, value in stopwatch.seconds().items()}
            logs.update(seconds | {f"resources/{name}": float(value) for name, value in peak_memory().items()})

    def _reason(self) -> str:
        if self.model.step >= self.params["num_steps"]:
            return "finished"
        return "preempted" if self.model.preempted else "stopped"

    def _record_real_vs_real(self, logs: Mapping[str, Any]) -> None:
        """Measures real images after an evaluation, whose statistics of real images it uses."""
        if self._real_vs_real is not None and any(map(is_metric, logs)):
            with stopwatch.measured(stopwatch.Activity.EVALUATION):
                values = {log_name(name): float(value) for name, value in self._real_vs_real().items()}
            self._real_vs_real = None
            self._append(REAL_VS_REAL_EVENT, {"values": values})

    def _end_last_line(self) -> None:
        """Ends a line that a killed process has not finished."""
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            append_lines(self._path, b"\n")

    def _append(self, event: str, values: Mapping[str, Any], seconds: float | None = None) -> None:
        self._last_progress = time.monotonic()
        line = {"event": event, "time": time.time() if seconds is None else seconds, "step": self.model.step, **values}
        with self._errors.suppress(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_lines(self._path, json.dumps(line).encode() + b"\n")


def peak_memory() -> dict[str, int]:
    """Returns the peak of this process's memory in bytes, and that of its busiest GPU if there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    gpus = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")]
    if gpus:
        peaks["device_peak_bytes"] = max(tf.config.experimental.get_memory_info(name)["peak"] for name in gpus)
    return peaks
