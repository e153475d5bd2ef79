"""Measures the generator while it learns."""

from collections.abc import Mapping
from typing import Any, Protocol

import keras
import numpy as np

from trainer import console
from trainer.callbacks.periodic import Periodic


class Metrics(Protocol):
    """A suite of metrics, such as `trainer.metrics.digits.DigitsMetrics`."""

    num_samples: int

    def evaluate(self, fake_images: np.ndarray, fake_labels: np.ndarray | None = None) -> dict[str, float]:
        """The metrics of uint8 images [N, H, W, C]; the labels they were made for where there are any."""
        ...


class Evaluation(Periodic):
    """Evaluates before learning, at every `every_steps` and at the end; adds `metric/NAME` to the logs.

    Args:
        metrics: The suite.
        every_steps: Steps between two evaluations; 0 for only before and after learning.
    """

    def __init__(self, metrics: Metrics, every_steps: int = 0):
        super().__init__(every_steps)
        self._metrics = metrics

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.model.step == 0:
            self._evaluate(logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.is_due:
            self._evaluate(logs)

    def _evaluate(self, logs: dict[str, Any] | None) -> None:
        step = self.model.step
        values = evaluate(self.model, self._metrics)
        if logs is not None:
            logs.update({f"metric/{name}": value for name, value in values.items()})
        console.say(f"Step {step}: {describe(values)}.", fields={"step": step, **values})


def evaluate(model: keras.Model, metrics: Metrics) -> dict[str, float]:
    """The metrics of as many samples as the suite takes."""
    return metrics.evaluate(*model.sample(metrics.num_samples))


def describe(values: Mapping[str, float]) -> str:
    """Metrics as words, such as `frechet_digits_5k 3.1, recall_digits_5k 0.88`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
