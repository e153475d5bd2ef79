"""The cycle error is the mean difference between an image and its translation there and back."""

import numpy as np
import pytest

from trainer import metrics
from trainer.metrics.cycle import CycleMetrics


class Shifts:
    """Translates by adding 30 for `b` and -20 for `a`, so that images come back brighter by 10."""

    def translate(self, images, domain):
        return (images.astype(int) + {"b": 30, "a": -20}[domain]).astype(np.uint8)


def test_the_error_is_a_fraction_of_the_pixel_range():
    a, b = np.full((4, 2, 2, 1), 100, np.uint8), np.full((3, 2, 2, 1), 50, np.uint8)
    measured = CycleMetrics(a, b).measure(Shifts())
    assert measured == pytest.approx(dict.fromkeys(("cycle_error_a", "cycle_error_b", "cycle_error"), 10 / 255))
    assert set(CycleMetrics(a, b).real_vs_real()) == set(measured)
    assert metrics.monitor_name("cycle") in measured
