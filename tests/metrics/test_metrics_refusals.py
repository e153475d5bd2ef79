"""Refused inputs of the metrics: names, shapes, numbers of samples, and weights with a wrong hash.

Each row states the type of the error and the facts that its message mentions. The rest of the wording is free.
"""

import shutil

import numpy as np
import pytest
from image_sets import Model, PooledPixels, real_images_of
from refusals import Refusal, check_refusal

from trainer import metrics
from trainer.errors import ConfigError, DataError
from trainer.metrics.comparison import feature_statistics
from trainer.metrics.cycle import CycleMetrics
from trainer.metrics.digits import DigitsMetrics
from trainer.metrics.digits_classifier import WEIGHTS_PATH, DigitsClassifier
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.paired import PairedMetrics
from trainer.metrics.real_statistics import real_statistics
from trainer.metrics.stacked import StackedMetrics

FEW, MANY = np.zeros((5, 2)), np.ones((30, 2))


def images(count, channels=1, size=28):
    return np.zeros((count, size, size, channels), np.uint8)


def stacked():
    return StackedMetrics(images(20, 3), num_samples=20)


def copied_weights(folder):
    shutil.copy(WEIGHTS_PATH.with_suffix(".json"), folder)
    return folder / WEIGHTS_PATH.name


def changed_weights(folder):
    path = copied_weights(folder)
    content = bytearray(WEIGHTS_PATH.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    return path


def real_statistics_of(pixels):
    return real_statistics(PooledPixels(), real_images_of(pixels))


def refused(name, act, *mentions, error=DataError):
    return Refusal(name, act, error, mentions)


SUITES = [
    *[
        refused(name, lambda _, find=find: find("digit"), "digit", " digits", "cycle", "stacked", error=ConfigError)
        for name, find in (("unknown suite", metrics.get), ("unknown suite to monitor", metrics.monitor_name))
    ],
    refused("too few digit samples", lambda _: DigitsMetrics(images(20), num_samples=5), "num_samples=5", "6"),
    refused("too few real digits", lambda _: DigitsMetrics(images(11)), "11", "12"),
    refused("gray fake stacks", lambda _: stacked().measure(Model(images(20))), "fake", "[28, 28, 1]"),
    refused("too few real stacks", lambda _: StackedMetrics(images(3, 3)), "3 real", "4"),
    refused("gray real stacks", lambda _: StackedMetrics(images(20)), "real", "[28, 28, 1]"),
    *[
        refused(f"{kind} in {suite.__name__}", lambda _, suite=suite, x=x: suite(x, x), mention, "uint8")
        for suite in (CycleMetrics, PairedMetrics)
        for kind, x, mention in (
            ("floats", images(20) / np.float32(255), "float32"),
            ("images without channels", images(20)[..., 0], "[20, 28, 28]"),
        )
    ],
    refused("floats as real digits", lambda _: DigitsMetrics(images(20) / np.float32(255)), "float32", "uint8"),
    refused("real digits without channels", lambda _: DigitsMetrics(images(20)[..., 0]), "[20, 28, 28]", "uint8"),
    refused("floats as real photos", lambda _: real_statistics_of(images(20, 3, 8) / np.float32(255)), "float32"),
    refused("too few stacks", lambda _: StackedMetrics(images(20, 3), num_samples=1), "num_samples=1", "2"),
]
WEIGHTS = [
    refused("images without channels", lambda _: DigitsClassifier().extract(images(5)[..., 0]), "[5, 28, 28]"),
    refused("no images", lambda _: DigitsClassifier().extract(images(0)), "[0, 28, 28, 1]"),
    refused("changed weights", lambda path: DigitsClassifier(changed_weights(path)), WEIGHTS_PATH.name, "SHA-256"),
    refused("missing weights", lambda path: DigitsClassifier(copied_weights(path)), WEIGHTS_PATH.name),
]
FEATURES = [
    refused("more features", lambda _: frechet_distance(MANY, np.zeros((3, 4))), "fake_features", "real_features", "4"),
    refused("one real sample", lambda _: frechet_distance(MANY[:1], MANY), "real_features", "[1, 2]", "2"),
    refused("features of one axis", lambda _: frechet_distance(MANY, np.zeros(3)), "fake_features", "[3]"),
    refused("features that are NaN", lambda _: frechet_distance(MANY, MANY * np.nan), "fake_features"),
    refused("infinite features", lambda _: feature_statistics(MANY * np.inf, "real_features"), "real_features"),
    refused("five images", lambda _: feature_statistics(FEW, "fake_features"), "fake_features", "[5, 2]", "6"),
]


@pytest.mark.parametrize("refusal", [*SUITES, *WEIGHTS, *FEATURES], ids=lambda refusal: refusal.name)
def test_refused_inputs_of_metrics_are_named(tmp_path, refusal):
    check_refusal(lambda: refusal.act(tmp_path), refusal.error, *refusal.mentions)
