"""Evaluation of the generator during training."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from trainer.callbacks.order import Priority
from trainer.callbacks.periodic import Periodic
from trainer.logging import log_fields
from trainer.metrics.extraction import values_of_first_process
from trainer.training.distributed import consensus
from trainer.training.distributed.strategy import spans_machines

_logger = logging.getLogger(__name__)


class EvaluationMetrics(Protocol):
    """A metric suite, such as `trainer.metrics.digits.DigitsMetrics`."""

    def measure(self, model: Any) -> dict[str, float]:
        """Returns the metrics of a model. All machines that train the model call it."""
        ...

    def real_vs_real(self) -> dict[str, float]:
        """Returns the metrics of real images against other real images."""
        ...


class Evaluation(Periodic):
    """Evaluates before training, at every `every_steps` and at the end, and adds `metric/NAME` to the logs.

    Later callbacks see the metrics in their logs. They also appear in the logs of an epoch's end and in `History`.

    If several machines train the model, each of them needs this callback: all take part in an evaluation, and all get
    the values of the first one, so that they decide alike, such as to stop training.

    Args:
        metrics: Metric suite.
        every_steps: Steps between two evaluations; 0 for only before and after training.
    """

    priority = Priority.EVALUATION

    def __init__(self, metrics: EvaluationMetrics, every_steps: int = 0):
        super().__init__(every_steps)
        self._metrics = metrics

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if spans_machines(self._strategy):
            consensus.check_same_step(self._strategy, self.model.step)
        if self.model.step == 0:
            self._evaluate(logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.is_due:
            self._evaluate(logs)

    @property
    def _strategy(self) -> tf.distribute.Strategy:
        return self.model.compiled_state.strategy

    def _evaluate(self, logs: dict[str, Any] | None) -> None:
        step = self.model.step
        measured = {name: float(value) for name, value in self._metrics.measure(self.model).items()}
        values = values_of_first_process(self._strategy, measured)
        if logs is not None:
            logs.update({f"metric/{name}": value for name, value in values.items()})
        if self._strategy.extended.should_save_summary:  # once per job
            _logger.info(f"Step {step}: {describe(values)}.", extra=log_fields({"step": step, **values}))


def describe(values: Mapping[str, float]) -> str:
    """Formats metrics, such as `frechet_digits_5k 3.1, recall_digits_5k 0.88`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
