"""Progress of commands that read or generate many images."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trainer.errors import count_of
from trainer.logging import is_terminal, log_fields

if TYPE_CHECKING:
    from trainer.data.prepare.convert import ConversionProgress

_SECS_BETWEEN_MESSAGES = 5.0
_SECS_BETWEEN_UPDATES = 0.2
_START_OF_LINE = "\r\x1b[K"
"""Moves to the start of the line of a terminal, and clears it."""

_logger = logging.getLogger(__name__)


class ProgressReporter:
    """Reports progress in regular intervals, however long a unit takes, while the context is active.

    On a terminal, it is one line that is rewritten; elsewhere, one log message every few seconds. After the last unit,
    nothing more is reported, because what follows, such as the waiting for other machines, has no known duration.

    Args:
        total: Number of units.
        unit: Name of a unit.
    """

    def __init__(self, total: int, unit: str = "image") -> None:
        self._total, self._unit, self._done = total, unit, 0
        self._start_time = time.monotonic()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._report_regularly, daemon=True)

    def __enter__(self) -> "ProgressReporter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()
        if is_terminal():
            print(_START_OF_LINE, end="", flush=True)

    def __call__(self, progress: "ConversionProgress") -> None:
        """Takes the progress of a conversion, which leaves out the shards that were finished earlier."""
        self._done, self._total = progress.done, progress.total

    def update(self, done: int) -> None:
        """Sets the number of finished units."""
        self._done = done

    def follow(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields blocks of images, and adds their images to the finished units."""
        for block in blocks:
            self.update(self._done + len(block))
            yield block

    def _report_regularly(self) -> None:
        reported = -1
        while not self._has_ended.wait(_SECS_BETWEEN_UPDATES if is_terminal() else _SECS_BETWEEN_MESSAGES):
            done, total = self._done, self._total
            if reported == total <= done:
                continue
            reported, speed = done, done / (time.monotonic() - self._start_time)
            message = f"{done:,} of {count_of(total, self._unit)}"
            if done:
                message += f", {speed:,.1f} per second, {(total - done) / speed:,.0f} s left"
            if is_terminal():
                print(f"{_START_OF_LINE}{message}.", end="", flush=True)
            else:
                _logger.info(f"{message}.", extra=log_fields({"done": done, f"{self._unit}s_per_sec": speed}))
