"""Measures the generator while it learns."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from trainer.callbacks.order import Priority
from trainer.callbacks.periodic import Periodic
from trainer.logging import fields as logging_fields

_logger = logging.getLogger(__name__)


class Metrics(Protocol):
    """A suite of metrics, such as `trainer.metrics.digits.DigitsMetrics`."""

    def measure(self, model: Any) -> dict[str, float]:
        """The metrics of a model."""
        ...

    def real_vs_real(self) -> dict[str, float]:
        """What a perfect model would score."""
        ...


class Evaluation(Periodic):
    """Evaluates before learning, at every `every_steps` and at the end; adds `metric/NAME` to the logs.

    Callbacks after it find them there, all of them at the end of an epoch that had an evaluation; so does `History`.

    Args:
        metrics: The suite.
        every_steps: Steps between two evaluations; 0 for only before and after learning.
    """

    priority = Priority.EVALUATION

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
        values = self._metrics.measure(self.model)
        if logs is not None:
            logs.update({f"metric/{name}": value for name, value in values.items()})
        _logger.info(f"Step {step}: {describe(values)}.", extra=logging_fields({"step": step, **values}))


def describe(values: Mapping[str, float]) -> str:
    """Metrics as words, such as `frechet_digits_5k 3.1, recall_digits_5k 0.88`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
