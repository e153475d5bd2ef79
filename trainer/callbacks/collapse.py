"""The alarm for a generator that collapses during training."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import keras

from trainer.callbacks.base import Priority
from trainer.callbacks.by_products import numbers
from trainer.logging import log_fields
from trainer.metrics.collapse import CollapseRule
from trainer.metrics.log_names import own_name
from trainer.training.run_end import IS_COLLAPSED

_logger = logging.getLogger(__name__)


class CollapseAlarm(keras.callbacks.Callback):
    """Warns if the evaluations show a collapse by `trainer.metrics.collapse.CollapseRule`.

    The alarm is raised once per collapse, and again after a recovery. It adds `event/collapse`, with the value 1, to
    the logs, and therefore to `metrics.jsonl`. Its state belongs to checkpoints: pass it to `Checkpoint` as
    `callback_states={"collapse": alarm}`, so that a resumed run raises the same alarms.

    Args:
        monitor: Name in the logs of a metric from 0 up whose smallest value is the best, such as
            `metric/frechet_photos_5k`.
        recall: Name in the logs of a recall in [0, 1], such as `metric/recall_photos_5k`; None if there is none.
        stop: Whether to stop training at an alarm. If the run was in a collapse at its checkpoint, training does not
            begin.
    """

    priority = Priority.ALARM
    EVENT = "event/collapse"

    def __init__(self, monitor: str, recall: str | None = None, stop: bool = False):
        super().__init__()
        self._monitor, self._recall, self._stop = monitor, recall, stop
        self.set_state({})

    def get_state(self) -> dict[str, float]:
        """Returns the numbers on which later alarms depend, by name.

        The names contain those of the metrics, because values of other metrics say nothing about them.
        """
        state = {  # the names are stored in checkpoints, "peak None" too
            f"best {self._monitor}": self._rule.best,
            f"untrained {self._monitor}": self._rule.untrained,
            f"num_bad {self._monitor}": float(self._rule.num_bad),
            f"peak {self._recall}": self._rule.peak,
            IS_COLLAPSED: float(self._is_collapsed),
        }
        return {name: value for name, value in state.items() if math.isfinite(value)}

    def set_state(self, state: Mapping[str, float]) -> None:
        """Continues from the result of `get_state`. An empty state is that of a new run."""
        self._rule = CollapseRule(own_name(self._monitor), self._recall and own_name(self._recall))
        self._rule.best = state.get(f"best {self._monitor}", math.inf)
        self._rule.untrained = state.get(f"untrained {self._monitor}", math.inf)
        self._rule.num_bad = int(state.get(f"num_bad {self._monitor}", 0))
        self._rule.peak = state.get(f"peak {self._recall}", 0.0)
        self._is_collapsed = bool(state.get(IS_COLLAPSED, 0.0))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        values = numbers(logs or {})
        if self.model.step == 0:
            self.set_state({})
            self._rule.untrained = values.get(self._monitor, math.inf)
        elif self._monitor in values:  # the evaluation of this step, which an earlier process has abandoned
            self.on_train_batch_end(0, logs)
        elif self._is_collapsed and self._stop:
            self.model.stop_training = True
            _logger.warning(
                f"The generator had collapsed at step {self.model.step}, and training does not continue; to continue "
                "it anyway, train without stopping at a collapse."
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        values = numbers(logs or {})
        if logs is None or self._monitor not in values:
            return
        problem = self._rule.update(values[self._monitor], values.get(self._recall or ""))
        was_collapsed, self._is_collapsed = self._is_collapsed, bool(problem)
        if problem and not was_collapsed:
            logs[self.EVENT] = 1.0
            end = "Training stops." if self._stop else "Training continues."
            _logger.warning(
                f"The generator may have collapsed at step {self.model.step}: {problem}. {end} Use the best "
                "checkpoint.",
                extra=log_fields({"step": self.model.step, self.EVENT: 1.0}),
            )
        elif was_collapsed and not problem:
            _logger.info(f"The generator has recovered from its collapse at step {self.model.step}.")
        if problem and self._stop:
            self.model.stop_training = True
