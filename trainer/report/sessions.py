"""The sessions of a run: what its processes did between their starts and ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MAX_TIME = 1e12
_MAX_NUMBER = 1e18
_KILLED = "killed or lost"
_RUNNING = "running, or killed lately"


@dataclass
class Session:
    """The time from the start of a process to its end.

    Attributes:
        start: Time of the start in seconds since the epoch.
        end: Time of the last sign of life in seconds since the epoch.
        first_step: Step at the start.
        last_step: Last step that was recorded.
        num_devices: Number of devices that train.
        reason: Reason for the end.
        figures: Resource figures of the end; empty if the process did not end by itself.
        lost_steps: Steps that the next session had to repeat.
    """

    start: float
    end: float
    first_step: int
    last_step: int
    num_devices: int = 1
    reason: str = _RUNNING
    figures: Mapping[str, Any] = field(default_factory=dict)
    lost_steps: int = 0

    @property
    def hours(self) -> float:
        """Length of the session in hours."""
        return max(0.0, self.end - self.start) / 3600


def sessions_of(events: Sequence[Mapping[str, Any]], steps: np.ndarray, times: np.ndarray) -> list[Session]:
    """Returns the sessions of a run in order.

    Args:
        events: Lines of `events.jsonl`, with None for times that are not finite. Runs of version 0.1.0 have none; the
            scalars then make one session.
        steps: Step of each line of `metrics.jsonl`.
        times: Time of each of these lines in seconds since the epoch; NaN if unknown.
    """
    sessions: list[Session] = []
    for event in events:
        if event["time"] is None or not abs(event["time"]) < _MAX_TIME:
            continue
        time, step = float(event["time"]), _whole(event.get("step"), 0)
        if event["event"] == "start":
            if sessions:
                _end_earlier(sessions[-1], step)
            sessions.append(Session(time, time, step, step, max(1, _whole(event.get("num_devices"), 1))))
        elif sessions:
            last = sessions[-1]
            last.end, last.last_step = max(last.end, time), step
            if event["event"] == "end":
                last.reason, last.figures = str(event.get("reason"))[:100], _figures(event)
    is_known = np.isfinite(times)
    steps, times = steps[is_known], times[is_known]
    if not sessions and len(times):
        sessions.append(
            Session(float(times.min()), float(times.max()), int(steps[0]), int(steps[-1]), reason="unknown")
        )
    if sessions and len(times) and not sessions[-1].figures and times[-1] > sessions[-1].end:
        sessions[-1].end, sessions[-1].last_step = float(times[-1]), int(steps[-1])
    return sessions


def hours_of_training(times: np.ndarray, sessions: Sequence[Session]) -> np.ndarray:
    """Converts times in seconds since the epoch to hours of training, without the time between sessions."""
    if not sessions:
        return np.full(len(times), math.nan)
    bounds, hours, total = [], [], 0.0
    for session in sessions:
        bounds += [session.start, session.end]
        hours += [total, total + session.hours]
        total += session.hours
    order = np.argsort(bounds, kind="stable")  # a clock may have been set back
    return np.interp(times, np.array(bounds)[order], np.maximum.accumulate(np.array(hours)[order]))


def _end_earlier(session: Session, next_step: int) -> None:
    """Completes a session after which another one started at `next_step`."""
    if not session.figures:
        session.reason = _KILLED
    session.lost_steps = max(0, session.last_step - next_step)


def _figures(event: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers of an event: seconds by activity, and bytes by kind of memory."""
    seconds = event.get("secs")
    return {
        "secs": _numbers_of(seconds) if isinstance(seconds, dict) else {},
        "peak_bytes": {
            name.removesuffix("_peak_bytes"): value
            for name, value in _numbers_of(event).items()
            if name.endswith("_peak_bytes")
        },
    }


def _numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value for name, value in values.items() if isinstance(value, int | float) and abs(value) < _MAX_NUMBER
    }


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else default
