"""The time since this process last made progress, which the watchdog of a job with several machines limits."""

import time

_last = time.monotonic()


def beat() -> None:
    """Reports progress. Work that takes long, such as an evaluation, calls it after each part."""
    global _last
    _last = time.monotonic()


def secs_since_beat() -> float:
    """Returns the seconds since the last call of `beat`."""
    return time.monotonic() - _last
