"""How training goes, for whoever watches."""

import time
from collections.abc import Mapping
from typing import Any

import keras

from trainer import console

_SECONDS_BETWEEN_LINES = 10.0


class Progress(keras.callbacks.Callback):
    """A bar with losses and images/s on a terminal; elsewhere a JSON line every ten seconds and at the end."""

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._bar = keras.utils.Progbar(self.params["num_steps"], unit_name="step") if console.is_terminal() else None
        self._last_line = 0.0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        step, num_steps = self.model.step, self.params["num_steps"]
        shown = {name: value for name, value in (logs or {}).items() if name.startswith(("loss/", "images_per_sec"))}
        if self._bar is not None:
            self._bar.stateful_metrics = set(shown)
            self._bar.update(step, list(shown.items()), finalize=step == num_steps)
        elif step == num_steps or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            console.say(f"Step {step} of {num_steps}.", fields={"step": step, **shown})
