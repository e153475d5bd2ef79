"""Evaluation of the generator during training."""

import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer import heartbeat, stopwatch
from trainer.callbacks.base import Periodic, Priority
from trainer.logging import log_fields
from trainer.metrics.extraction import spans_machines, values_of_first_process
from trainer.metrics.log_names import log_name
from trainer.metrics.suite import Suite
from trainer.stopwatch import Activity
from trainer.training.distributed import consensus
from trainer.training.run_end import PENDING_STEP

_logger = logging.getLogger(__name__)


class Evaluation(Periodic):
    """Evaluates before training, at every `every_steps` and at the end, and adds `metric/NAME` to the logs.

    Later callbacks see the metrics in their logs. They also appear in the logs of an epoch's end and in `History`.

    If several machines train the model, each of them needs this callback: all take part in an evaluation, and all get
    the values of the first one, so that they decide alike, such as to stop training.

    SIGTERM abandons an evaluation after the current block of images, if `fit` handles it, and then stops training. The
    next `fit` begins with this evaluation: its logs of `on_train_begin` have the metrics. So does a resumed run if the
    state is in its checkpoints: pass it to `Checkpoint` as `callback_states={"evaluation": evaluation}`.

    Args:
        metrics: Metric suite.
        every_steps: Steps between two evaluations; 0 for only before and after training.
    """

    priority = Priority.EVALUATION

    def __init__(self, metrics: Suite, every_steps: int = 0):
        super().__init__(every_steps)
        self._metrics = metrics
        self._pending_step: int | None = None

    @property
    def is_pending(self) -> bool:
        """True if the evaluation of the current step began and did not end."""
        return self._pending_step == self.model.step

    def get_state(self) -> dict[str, float]:
        """Returns `pending_step`, the step whose evaluation began and did not end, if there is one."""
        return {} if self._pending_step is None else {PENDING_STEP: self._pending_step}

    def set_state(self, state: Mapping[str, float]) -> None:
        """Continues from the result of `get_state`. An empty state is that of a new run."""
        self._pending_step = int(state[PENDING_STEP]) if PENDING_STEP in state else None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if spans_machines(self._strategy):
            consensus.check_same_step(self._strategy, self.model.step)
        if self.model.step == 0 or self.is_pending:
            self._evaluate(logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.is_due:
            self._evaluate(logs)

    @property
    def _strategy(self) -> tf.distribute.Strategy:
        return self.model.compiled_state.strategy

    @stopwatch.measured(Activity.EVALUATION)
    def _evaluate(self, logs: dict[str, Any] | None) -> None:
        model, step = self.model, self.model.step
        self._pending_step = step
        try:
            with heartbeat.abandoned_if(lambda: model.preempted, is_shared=spans_machines(self._strategy)):
                measured = {name: float(value) for name, value in self._metrics.measure(model).items()}
        except heartbeat.Abandoned:
            model.stop_training = True
            _logger.info(f"Step {step} is evaluated when the run resumes.", extra=log_fields({"step": step}))
            return
        values = values_of_first_process(self._strategy, measured)
        self._pending_step = None
        if logs is not None:
            logs.update({log_name(name): value for name, value in values.items()})
        if self._strategy.extended.should_save_summary:  # once per job
            _logger.info(f"Step {step}: {describe(values)}.", extra=log_fields({"step": step, **values}))


def describe(values: Mapping[str, float]) -> str:
    """Formats metrics, such as `frechet_digits_5k 3.1, recall_digits_5k 0.88`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
