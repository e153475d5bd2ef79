"""Progress display."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.by_products import numbers
from trainer.callbacks.order import Priority
from trainer.logging import is_terminal, log_fields

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class Progress(keras.callbacks.Callback):
    """Shows a bar with losses, images/s and the time per epoch on a terminal or in a notebook.

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
        displayed |= self._epoch_secs
        if self._bar is not None:
            self._bar.stateful_metrics = set(displayed)
            self._bar.update(step, list(displayed.items()), finalize=step == num_steps)
        elif step == num_steps or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            text = ", ".join([f"Step {step} of {num_steps}", *_describe(displayed)])
            _logger.info(f"{text}.", extra=log_fields({"step": step, **displayed}))

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


class _SessionBar(keras.utils.Progbar):
    """A bar over all steps of a run, with the time left at the speed of this session, whose clock starts here.

    Args:
        first_step: Step at which the session begins.
        num_steps: Number of steps of the run.
    """

    def __init__(self, first_step: int, num_steps: int):
        super().__init__(num_steps, unit_name="step")
        self._latest_step, self._num_session_steps = first_step, 0

    def update(self, current: int, *values: Any, **options: Any) -> None:
        self._num_session_steps += max(0, current - self._latest_step)  # a rollback decreases the step
        self._latest_step = current
        super().update(current, *values, **options)

    def _estimate_step_duration(self, current: int, now: float) -> float:
        # Private, because no public method sets the number by which the bar divides its time.
        return super()._estimate_step_duration(self._num_session_steps, now)


def _describe(values: Mapping[str, float]) -> list[str]:
    """Returns losses and images/s as text, because some viewers of a log show only the message."""
    losses = [f"{name} {value:.4g}" for name, value in values.items() if name.startswith("loss/")]
    rates = [f"{value:,.1f} images/s" for name, value in values.items() if name == "images_per_sec"]
    return losses + rates


def _is_interactive() -> bool:
    """Returns whether a progress bar can be redrawn: on a terminal, and in a notebook."""
    return is_terminal() or "ipykernel" in sys.modules
