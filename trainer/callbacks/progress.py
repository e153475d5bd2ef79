"""Progress display."""

import datetime
import logging
import math
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.base import Priority
from trainer.callbacks.by_products import numbers
from trainer.logging import is_terminal, log_fields

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_UPDATES = 0.1
_SHORTEST_BAR, _LONGEST_BAR = 5, 20


class Progress(keras.callbacks.Callback):
    """Shows a bar with the time left, images/s, and losses on a terminal or in a notebook.

    Elsewhere it logs a message every ten seconds, per epoch, and at the end. Epochs shorter than one second are logged
    every ten seconds.
    """

    priority = Priority.PROGRESS

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._bar = _SessionBar(self.model.step, self.params["num_steps"]) if _is_interactive() else None
        self._last_line = self._last_epoch_line = 0.0
        self._epoch_secs: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        step, num_steps = self.model.step, self.params["num_steps"]
        displayed = {
            name: value for name, value in numbers(logs or {}).items() if name.startswith(("loss/", "images_per_sec"))
        }
        if self._bar is not None:
            self._bar.update(step, displayed)
        elif step == num_steps or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            text = ", ".join([f"Step {step} of {num_steps}", *_describe(displayed)])
            _logger.info(f"{text}.", extra=log_fields({"step": step, **displayed, **self._epoch_secs}))

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._bar is not None:
            self._bar.end()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        seconds = (logs or {}).get("epoch_secs", 0.0)
        self._epoch_secs = {"epoch_secs": seconds}
        waited = time.monotonic() - self._last_epoch_line
        if self._bar is None and (seconds >= 1.0 or waited >= _SECONDS_BETWEEN_LINES):
            self._last_epoch_line = time.monotonic()
            _logger.info(
                f"Epoch {epoch + 1} of {self.params['epochs']} took {seconds:.1f} s.",
                extra=log_fields(self._epoch_secs),
            )


class _SessionBar:
    """A line with a bar over all steps of a run, and the time left at the speed of this session.

    The clock of the session starts here. The line is rewritten, and never longer than the terminal is wide, because a
    line that wraps cannot be rewritten.

    Args:
        first_step: Step at which the session begins.
        num_steps: Number of steps of the run.
    """

    def __init__(self, first_step: int, num_steps: int):
        self._num_steps, self._latest_step, self._num_session_steps = num_steps, first_step, 0
        self._start_time, self._last_update, self._last_length = time.monotonic(), -math.inf, 0

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Shows a step with its losses and images/s."""
        self._num_session_steps += max(0, step - self._latest_step)  # a rollback decreases the step
        self._latest_step = step
        now = time.monotonic()
        if now - self._last_update < _SECONDS_BETWEEN_UPDATES and step != self._num_steps:
            return
        self._last_update = now
        line = self._line(now - self._start_time, values)
        print("\r" + line.ljust(self._last_length), end="", flush=True)
        self._last_length = len(line)

    def end(self) -> None:
        """Ends the line, if one was shown."""
        if self._last_length:
            print(flush=True)

    def _line(self, elapsed: float, values: Mapping[str, float]) -> str:
        """Returns the line: a bar in the space that the other parts leave, or the parts that fit."""
        width = shutil.get_terminal_size((100, 24)).columns - 1  # some terminals wrap after the last column
        line, *parts = self._parts(elapsed, values)
        length = min(_LONGEST_BAR, width - len(", ".join([line, *parts])))
        if length >= _SHORTEST_BAR:
            full, empty = "━─" if (sys.stdout.encoding or "").lower().startswith("utf") else "=-"
            num_full = length * self._latest_step // self._num_steps
            return f"{line} {full * num_full}{empty * (length - num_full)} {', '.join(parts)}"
        for part in parts:
            if len(line) + len(part) + 2 > width:
                break
            line += f", {part}"
        return line

    def _parts(self, elapsed: float, values: Mapping[str, float]) -> list[str]:
        """Returns the parts of the line except the bar, the most important ones first."""
        steps = f"{self._latest_step:>{len(str(self._num_steps))}}/{self._num_steps}"
        num_left = self._num_steps - self._latest_step
        seconds = elapsed * num_left / max(1, self._num_session_steps) if num_left else elapsed
        duration = str(datetime.timedelta(seconds=round(seconds))).removeprefix("0:")
        rates = [f"{value:,.0f} images/s" for name, value in values.items() if name == "images_per_sec"]
        losses = [f"{name[5:]} {value:.3g}" for name, value in values.items() if name.startswith("loss/")]
        losses[:1] = [f"loss: {text}" for text in losses[:1]]
        return [steps, f"{duration} left" if num_left else f"took {duration}", *rates, *losses]


def _describe(values: Mapping[str, float]) -> list[str]:
    """Returns losses and images/s as text, because some viewers of a log show only the message."""
    losses = [f"{name} {value:.4g}" for name, value in values.items() if name.startswith("loss/")]
    rates = [f"{value:,.1f} images/s" for name, value in values.items() if name == "images_per_sec"]
    return losses + rates


def _is_interactive() -> bool:
    """Returns whether a progress bar can be redrawn: on a terminal, and in a notebook."""
    return is_terminal() or "ipykernel" in sys.modules
