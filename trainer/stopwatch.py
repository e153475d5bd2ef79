"""The seconds that training spends in each activity, such as evaluation.

The training loop and its callbacks call `measured`. There is one record per process, as training has one loop.
"""

import contextlib
import enum
import time
from collections.abc import Iterator


class Activity(enum.Enum):
    """An activity for which training waits."""

    TRAINING = "training"
    DATA = "data"
    EVALUATION = "evaluation"
    SAMPLES = "samples"
    CHECKPOINTS = "checkpoints"


_secs: dict[Activity, float] = {}
_started = time.time()


def restart() -> None:
    """Forgets all measured times, and begins a new record."""
    global _started
    _started = time.time()
    _secs.clear()


def started_at() -> float:
    """Returns the time of the last `restart`, in seconds since the epoch."""
    return _started


@contextlib.contextmanager
def measured(activity: Activity) -> Iterator[None]:
    """Adds the time of the context to the seconds of an activity."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        _secs[activity] = _secs.get(activity, 0.0) + time.perf_counter() - begin


def seconds() -> dict[str, float]:
    """Returns the seconds since the last `restart` by activity. `other` is the time outside of all of them."""
    values = {activity.value: _secs.get(activity, 0.0) for activity in Activity}
    return values | {"other": max(0.0, time.time() - _started - sum(values.values()))}
