"""Metrics that compare fake images with real ones, grouped in suites that are imported on first use.

`import trainer.metrics` does not import TensorFlow.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from trainer.errors import ConfigError
from trainer.registry import did_you_mean

if TYPE_CHECKING:
    from trainer.metrics.extractor import Extractor
    from trainer.metrics.suite import Suite

Goal = Literal["MINIMIZE", "MAXIMIZE"]


class _SuiteEntry(NamedTuple):
    module: str
    """Module in this package that has the class."""
    class_name: str
    """Name of a subclass of `trainer.metrics.suite.Suite`."""
    monitor: str
    """Metric that selects the best checkpoint, without the protocol in its name; smaller is better."""
    minimized: tuple[str, ...]
    """Metrics whose smallest value is the best, without the protocol in their names."""
    maximized: tuple[str, ...] = ()
    """Metrics whose greatest value is the best. A model reports the accuracy that fits its labels, or none."""
    num_samples: int | None = None
    """Default number of fake images. None: the suite generates no images, and its metrics name no protocol."""
    num_samples_on_gpu: int | None = None
    """Default number of fake images on machines with a GPU. None: `num_samples`."""
    min_images: int = 1
    """Smallest number of real images."""
    has_extractor: bool = False
    """True if the class takes an extractor, which `get_extractor` returns."""


_MANIFOLD = ("precision", "recall", "density", "coverage")
_SUITES = {
    "digits": _SuiteEntry(
        "digits",
        "DigitsMetrics",
        monitor="frechet",
        minimized=("frechet", "kid"),
        maximized=(*_MANIFOLD, "conditional_accuracy", "code_accuracy"),
        num_samples=5000,
        min_images=12,
    ),
    "cycle": _SuiteEntry(
        "cycle", "CycleMetrics", monitor="cycle_error", minimized=("cycle_error", "cycle_error_a", "cycle_error_b")
    ),
    "paired": _SuiteEntry(
        "paired",
        "PairedMetrics",
        monitor="paired_l1",
        minimized=("paired_l1",),
        maximized=("paired_psnr", "paired_ssim"),
    ),
    "stacked": _SuiteEntry(
        "stacked",
        "StackedMetrics",
        monitor="kl",
        minimized=("frechet", "kl"),
        maximized=("num_modes", "conditional_accuracy"),
        num_samples=26_000,
        min_images=4,
    ),
    "inception": _SuiteEntry(
        "image_metrics",
        "ImageMetrics",
        monitor="fid",
        minimized=("fid", "kid"),
        maximized=(*_MANIFOLD, "inception_score"),
        num_samples=5000,
        num_samples_on_gpu=50_000,
        min_images=12,
        has_extractor=True,
    ),
    "photos": _SuiteEntry(
        "image_metrics",
        "ImageMetrics",
        monitor="frechet",
        minimized=("frechet", "kid"),
        maximized=(*_MANIFOLD, "inception_score"),
        num_samples=5000,
        min_images=12,
        has_extractor=True,
    ),
}
NAMES = tuple(_SUITES)


def get(name: str) -> "Callable[..., Suite]":
    """Returns the class of a metric suite.

    Args:
        name: Name of a suite, one of `NAMES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    entry = _entry(name)
    return getattr(importlib.import_module(f"trainer.metrics.{entry.module}"), entry.class_name)


def find_weights(name: str, inception_weights: str | None = None) -> Path | None:
    """Returns the local path of the weights that a suite needs and that do not ship with the package, or None.

    Call it before data is read and devices are created, because weights may be missing.

    Args:
        name: Name of a suite, one of `NAMES`.
        inception_weights: Weights of the suite `inception`, as `trainer.metrics.inception_weights.find` takes them.

    Raises:
        ConfigError: If the weights are missing.
        TrainerError: If the weights cannot be read or are not those of the network.
    """
    if name != "inception":
        return None
    from trainer.metrics import inception_weights as weights_files

    return weights_files.find(inception_weights)


def get_extractor(name: str, inception_weights: str | None = None) -> "Extractor | None":
    """Returns the network whose features a suite compares; None for a suite that has its own.

    Args:
        name: Name of a suite, one of `NAMES`.
        inception_weights: Weights of the suite `inception`, as `find_weights` takes them.

    Raises:
        ConfigError: If the name is unknown or the weights are missing.
        TrainerError: If the weights cannot be read or are not those of the network.
    """
    if not _entry(name).has_extractor:
        return None
    path = find_weights(name, inception_weights)  # before the import of TensorFlow
    if path is None:
        from trainer.metrics.photos_network import PhotosNetwork

        return PhotosNetwork()
    from trainer.metrics.inception_network import InceptionNetwork

    return InceptionNetwork(path)


def protocol_of(name: str, num_samples: int) -> str:
    """Returns the suffix of the names of a suite's metrics, such as `digits_5k`."""
    thousands, rest = divmod(num_samples, 1000)
    return f"{name}_{num_samples if rest else f'{thousands}k'}"


def monitor_name(name: str, num_samples: int | None = None) -> str:
    """Returns the name of the metric whose smallest value marks the best checkpoint, such as `frechet_digits_5k`.

    Args:
        name: Name of a suite, one of `NAMES`.
        num_samples: Number of fake images. None: the default number on a machine without a GPU.

    Raises:
        ConfigError: If the name is unknown.
    """
    return _metric_name(name, _entry(name).monitor, num_samples)


def recall_name(name: str, num_samples: int | None = None) -> str | None:
    """Returns the name of the metric for the diversity of the images, such as `recall_digits_5k`; None without one.

    Args:
        name: Name of a suite, one of `NAMES`.
        num_samples: Number of fake images. None: the default number on a machine without a GPU.

    Raises:
        ConfigError: If the name is unknown.
    """
    return _metric_name(name, "recall", num_samples) if "recall" in _entry(name).maximized else None


def default_num_samples(name: str, *, has_gpu: bool = False) -> int | None:
    """Returns the default number of fake images of a suite; None if it generates none.

    Args:
        name: Name of a suite, one of `NAMES`.
        has_gpu: True if the machine has a GPU.

    Raises:
        ConfigError: If the name is unknown.
    """
    entry = _entry(name)
    return entry.num_samples_on_gpu or entry.num_samples if has_gpu else entry.num_samples


def min_images(name: str) -> int:
    """Returns the smallest number of real images that a suite compares with.

    Args:
        name: Name of a suite, one of `NAMES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    return _entry(name).min_images


def goals(name: str) -> Mapping[str, Goal]:
    """Returns the goal of each metric that a suite reports, by the metric's name without the protocol.

    Args:
        name: Name of a suite, one of `NAMES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    entry = _entry(name)
    goals: dict[str, Goal] = dict.fromkeys(entry.minimized, "MINIMIZE")
    return goals | dict.fromkeys(entry.maximized, "MAXIMIZE")


def without_protocol(metric: str, name: str, num_samples: int | None = None) -> str:
    """Returns the name of a metric without the protocol of its suite: `frechet` for `frechet_digits_5k`.

    Args:
        metric: Name of the metric. One without this protocol is returned as it is.
        name: Name of the suite, one of `NAMES`.
        num_samples: Number of fake images. None: the default number on a machine without a GPU.

    Raises:
        ConfigError: If the name of the suite is unknown.
    """
    return metric.removesuffix(_metric_name(name, "", num_samples))


def _metric_name(suite: str, metric: str, num_samples: int | None) -> str:
    """Returns the name of a metric with its protocol, if the suite generates images."""
    num_samples = num_samples or default_num_samples(suite)
    return metric if num_samples is None else f"{metric}_{protocol_of(suite, num_samples)}"


def _entry(name: str) -> _SuiteEntry:
    if name not in _SUITES:
        advice = did_you_mean(name, NAMES, f"choose one of {', '.join(NAMES)}.")
        raise ConfigError(f"metrics={name} is not a known metric suite; {advice}")
    return _SUITES[name]
