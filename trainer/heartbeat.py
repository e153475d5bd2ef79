"""Reports of progress, the time between which the watchdog limits, and requests to stop long work early.

Work that takes long, such as an evaluation, calls `beat` after each part.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple


class Abandoned(Exception):
    """The end of work that was requested to stop early."""


class _Stop(NamedTuple):
    is_requested: Callable[[], bool]
    is_shared: bool


_last = time.monotonic()
_stop: ContextVar[_Stop | None] = ContextVar("stop", default=None)


@contextlib.contextmanager
def abandoned_if(is_requested: Callable[[], bool], *, is_shared: bool = False) -> Iterator[None]:
    """Abandons the work in this context, at its next `beat`, after a request to stop. Other threads are not affected.

    Args:
        is_requested: Function that returns True once the work is to stop.
        is_shared: Whether other processes take part in the work. It is then abandoned only where they exchange
            `is_stop_requested`, so that all of them abandon it at the same place.

    Raises:
        Abandoned: If the stop is requested before or during the work.
    """
    token = _stop.set(_Stop(is_requested, is_shared))
    try:
        beat()
        yield
    finally:
        _stop.reset(token)


def is_stop_requested() -> bool:
    """Returns whether the current work is to stop early."""
    stop = _stop.get()
    return stop is not None and stop.is_requested()


def beat() -> None:
    """Reports progress.

    Raises:
        Abandoned: If the work is to stop early, and no other process takes part in it.
    """
    global _last
    _last = time.monotonic()
    stop = _stop.get()
    if stop is not None and not stop.is_shared and stop.is_requested():
        raise Abandoned


def secs_since_beat() -> float:
    """Returns the seconds since the last call of `beat`."""
    return time.monotonic() - _last
