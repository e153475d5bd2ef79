"""The rule by which a generator counts as collapsed, for the alarm during training and for records of whole runs."""

import math

_MAX_RATIO = 2.0
"""Ratio of the metric to its best value from which an evaluation counts as bad."""
_NUM_BAD_EVALUATIONS = 2
_MIN_RECALL_RATIO = 0.5
_MIN_PEAK = 0.1
"""Peak of the recall from which there is something to lose. The recall of few samples varies by a few hundredths."""


class CollapseRule:
    """A metric that is at least twice its best in two evaluations in a row, or a recall below half its peak.

    The best and the peak are those of earlier evaluations after the first step. They begin when the metric is lower
    than that of the untrained generator: before that there is nothing to lose, and no collapse. A value that is not
    finite counts as bad.

    Args:
        metric: Name of a metric from 0 up whose smallest value is the best.
        recall: Name of a recall in [0, 1]; None if there is none.

    Attributes:
        best: Smallest value of the metric; infinity before the first.
        untrained: Value of the metric before the first step; infinity if unknown.
        num_bad: Number of bad evaluations in a row until now.
        peak: Largest recall; 0 before the first best value.
    """

    def __init__(self, metric: str, recall: str | None = None):
        self._metric, self._recall = metric, recall
        self.best, self.untrained = math.inf, math.inf
        self.num_bad = 0
        self.peak = 0.0

    def update(self, value: float, recall: float | None) -> str:
        """Takes the values of an evaluation. Returns the description of the collapse; empty if there is none."""
        has_best, best, peak = math.isfinite(self.best), self.best, self.peak
        is_bad = has_best and not (value < _MAX_RATIO * best or value <= best)
        self.num_bad = self.num_bad + 1 if is_bad else 0
        if value < min(self.best, self.untrained):
            self.best = value
        problem = ""
        if self.num_bad >= _NUM_BAD_EVALUATIONS:
            problem = f"{self._metric} is {value:.4g} and was {best:.4g} at its best"
        if recall is not None and math.isfinite(self.best):
            self.peak = max(peak, recall)
            if peak >= _MIN_PEAK and not recall >= _MIN_RECALL_RATIO * peak:
                problem = problem or f"{self._recall} is {recall:.4g} and was {peak:.4g} at its peak"
        return problem
