"""How training goes, for whoever watches."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.order import Priority
from trainer.logging import fields as logging_fields, is_terminal

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class Progress(keras.callbacks.Callback):
    """A bar with losses, images/s and the last epoch's time on a terminal; elsewhere JSON lines.

    There is one every ten seconds and at the end, and one for each epoch with its time; of epochs that take less than a
    second, one every ten seconds.
    """

    priority = Priority.PROGRESS

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._bar = keras.utils.Progbar(self.params["num_steps"], unit_name="step") if is_terminal() else None
        self._last_line = self._last_epoch_line = 0.0
        self._epoch_secs: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        step, num_steps = self.model.step, self.params["num_steps"]
        shown = {name: value for name, value in (logs or {}).items() if name.startswith(("loss/", "images_per_sec"))}
        shown |= self._epoch_secs
        if self._bar is not None:
            self._bar.stateful_metrics = set(shown)
            self._bar.update(step, list(shown.items()), finalize=step == num_steps)
        elif step == num_steps or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            _logger.info(f"Step {step} of {num_steps}.", extra=logging_fields({"step": step, **shown}))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        seconds = (logs or {}).get("epoch_secs", 0.0)
        self._epoch_secs = {"epoch_secs": seconds}
        waited = time.monotonic() - self._last_epoch_line
        if self._bar is None and (seconds >= 1.0 or waited >= _SECONDS_BETWEEN_LINES):
            self._last_epoch_line = time.monotonic()
            _logger.info(
                f"Epoch {epoch + 1} of {self.params['epochs']} took {seconds:.1f} s.",
                extra=logging_fields(self._epoch_secs),
            )
