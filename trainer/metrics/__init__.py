"""Metrics that compare fake images with real ones, grouped in suites that are imported on first use.

`import trainer.metrics` does not import TensorFlow.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.suites import SUITES, MeasuredImages, register_suite

if TYPE_CHECKING:
    from trainer.metrics.extractor import Extractor
    from trainer.metrics.suite import Suite

__all__ = [
    "MeasuredImages",
    "check_name",
    "find_weights",
    "get",
    "get_extractor",
    "monitor_name",
    "names",
    "protocol_of",
    "recall_name",
    "register_suite",
    "without_protocol",
]

names, check_name = SUITES.names, SUITES.check_name


def get(name: str) -> "Callable[..., Suite]":
    """Returns the class of a metric suite.

    Args:
        name: Name of a suite, one of `names()`.

    Raises:
        ConfigError: If the name is unknown.
    """
    suite = SUITES[name].suite
    if not isinstance(suite, str):
        return suite
    module, _, class_name = suite.rpartition(".")
    return getattr(importlib.import_module(module), class_name)


def find_weights(name: str, inception_weights: str | None = None) -> Path | None:
    """Returns the local path of the weights that a suite needs and that do not ship with the package, or None.

    Call it before data is read and devices are created, because weights may be missing.

    Args:
        name: Name of a suite, one of `names()`.
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
        name: Name of a suite, one of `names()`.
        inception_weights: Weights of the suite `inception`, as `find_weights` takes them.

    Raises:
        ConfigError: If the name is unknown or the weights are missing.
        TrainerError: If the weights cannot be read or are not those of the network.
    """
    if not SUITES[name].has_extractor:
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
        name: Name of a suite, one of `names()`.
        num_samples: Number of fake images. None: the default number on a machine without a GPU.

    Raises:
        ConfigError: If the name is unknown.
    """
    return _metric_name(name, SUITES[name].monitor, num_samples)


def recall_name(name: str, num_samples: int | None = None) -> str | None:
    """Returns the name of the metric for the diversity of the images, such as `recall_digits_5k`; None without one.

    Args:
        name: Name of a suite, one of `names()`.
        num_samples: Number of fake images. None: the default number on a machine without a GPU.

    Raises:
        ConfigError: If the name is unknown.
    """
    return _metric_name(name, "recall", num_samples) if "recall" in SUITES[name].maximized else None


def without_protocol(metric: str, name: str, num_samples: int | None = None) -> str:
    """Returns the name of a metric without the protocol of its suite: `frechet` for `frechet_digits_5k`.

    Args:
        metric: Name of the metric. One without this protocol is returned as it is.
        name: Name of the suite, one of `names()`.
        num_samples: Number of fake images. None: the default number on a machine without a GPU.

    Raises:
        ConfigError: If the name of the suite is unknown.
    """
    return metric.removesuffix(_metric_name(name, "", num_samples))


def _metric_name(suite: str, metric: str, num_samples: int | None) -> str:
    """Returns the name of a metric with its protocol, if the suite generates images."""
    num_samples = num_samples or SUITES[suite].num_samples
    return metric if num_samples is None else f"{metric}_{protocol_of(suite, num_samples)}"
