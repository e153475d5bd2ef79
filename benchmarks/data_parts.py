"""Pictures, durations, and the choice of parts, which the benchmarks of data have in common."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.registry import check_known


def measure_parts(measures: Mapping[str, Callable[[Path], None]], names: Sequence[str]) -> None:
    """Measures parts of a benchmark, each in a temporary folder of its own.

    Args:
        measures: Function of each part, which takes the folder.
        names: Parts to measure.

    Raises:
        ConfigError: If a name is unknown.
    """
    for name in names:
        check_known("part", name, measures)
    for name in names:
        with tempfile.TemporaryDirectory(prefix="gan-trainer-") as folder:
            measures[name](Path(folder))


def seconds(function: Callable[[], object]) -> float:
    """Returns the duration of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def median_ratio(ours: list[float], theirs: list[float]) -> str:
    """Formats the ratios of durations, theirs over ours: the median, then all of them."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


def picture(number: int, size: int) -> Image.Image:
    """Returns a picture that compresses like a photograph: soft colors with some grain."""
    rng = np.random.default_rng(number)
    soft = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.integers(-6, 7, (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(soft).astype(np.int16) + grain, 0, 255).astype(np.uint8))
