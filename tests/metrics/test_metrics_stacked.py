"""The metric suite for stacked digits."""

import subprocess
import sys

import numpy as np
import pytest
from image_sets import Model

from trainer import metrics
from trainer.data.loading import Arrays, load
from trainer.metrics.digits import DigitsMetrics
from trainer.metrics.extraction import ReplicatedFunction, blocks_of
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.modes import mode_divergence
from trainer.metrics.stacked import StackedMetrics
from trainer.metrics.suite import Suite

MODES = tuple(range(0, 1000, 111))
"""000, 111 … 999."""


@pytest.fixture(scope="module")
def real():
    """600 real images of ten modes."""
    arrays = load("stacked:digits", MODES)
    return Arrays(arrays.images[:600], arrays.labels[:600], arrays.info)


@pytest.fixture(scope="module")
def suite(real):
    return StackedMetrics(real.images, num_samples=250)


def extract(suite, images):
    """Returns the features and logits of each image."""
    return ReplicatedFunction(suite.extract_block)(blocks_of(images))


def test_real_images_show_their_modes(real, suite):
    values = suite.measure(Model(real.images[:250], real.labels[:250]))
    assert list(values) == [
        *("num_modes_stacked_250", "kl_stacked_250", "frechet_stacked_250"),
        "conditional_accuracy",
    ]
    assert 10 <= values["num_modes_stacked_250"] <= 20  # The classifier makes a few errors.
    assert values["kl_stacked_250"] < 0.1
    assert values["frechet_stacked_250"] == pytest.approx(0, abs=1e-6)
    assert values["conditional_accuracy"] > 0.97
    assert all(type(value) is float for value in values.values())


def test_the_mode_is_100_red_and_10_green_and_blue(digits, suite):
    digit = {label: digits.images[np.flatnonzero(digits.labels == label)[0], :, :, 0] for label in range(10)}
    images = np.stack(
        [np.stack([digit[label // 100], digit[label // 10 % 10], digit[label % 10]], -1) for label in range(0, 1000, 4)]
    )
    values = suite.measure(Model(images, np.arange(0, 1000, 4)))
    assert values["num_modes_stacked_250"] == 250
    assert values["conditional_accuracy"] == 1.0


def test_collapse_shows_in_modes_divergence_and_distance(real, suite):
    sevens = np.resize(np.flatnonzero(real.labels == 777), 250)
    whole, collapsed = suite.measure(Model(real.images[-250:])), suite.measure(Model(real.images[sevens]))
    assert collapsed["num_modes_stacked_250"] <= 3
    assert collapsed["kl_stacked_250"] == pytest.approx(np.log(10), rel=0.15)
    assert collapsed["frechet_stacked_250"] > 10 * whole["frechet_stacked_250"]


def test_a_mode_is_missed_when_one_digit_of_it_is_wrong(real, suite):
    labels = real.labels[:250].copy()
    labels[:50] += np.where(labels[:50] % 10 == 9, -1, 1)
    right, wrong = suite.measure(Model(real.images, real.labels)), suite.measure(Model(real.images, labels))
    assert right.pop("conditional_accuracy") - wrong.pop("conditional_accuracy") == pytest.approx(0.2, abs=0.02)
    assert right == wrong
    assert "conditional_accuracy" not in suite.measure(Model(real.images[:250]))


def test_classifying_each_distinct_digit_once_gives_the_same_features(real, suite):
    images = np.concatenate([real.images[:100], real.images[:100]])
    once, (features, logits) = StackedMetrics(images)._real, extract(suite, images)
    assert len(once.digit_logits) == len({digit.tobytes() for digit in np.moveaxis(images, 3, 1).reshape(-1, 784)})
    assert len(once.digit_logits) <= 300 < logits.size / 10
    np.testing.assert_array_equal(once.modes, logits.argmax(2) @ [100, 10, 1])
    np.testing.assert_allclose(once.features(), features, atol=1e-4)
    np.testing.assert_array_equal(once.features(slice(7, 9)), once.features()[7:9])


def test_the_values_are_those_of_the_parts(real, suite):
    fake_features, fake_logits = extract(suite, real.images[-250:])
    real_features, real_logits = extract(suite, real.images)
    values = suite.measure(Model(real.images[-250:]))
    modes = [logits.argmax(2) @ [100, 10, 1] for logits in (fake_logits, real_logits)]
    counts = [np.bincount(each, minlength=1000) for each in modes]
    assert values["kl_stacked_250"] == pytest.approx(mode_divergence(*counts))
    assert fake_features.shape == (250, 192)
    distance = frechet_distance(real_features[:250], fake_features)
    assert values["frechet_stacked_250"] == pytest.approx(distance, rel=1e-3)


def test_real_vs_real_compares_the_last_real_images_with_the_others(real, suite):
    real_vs_real = suite.real_vs_real()
    expected = StackedMetrics(real.images[:-250], num_samples=250).measure(Model(real.images[-250:]))
    assert list(real_vs_real) == list(expected)
    assert list(real_vs_real.values()) == pytest.approx(list(expected.values()), rel=1e-3)
    few = StackedMetrics(real.images[:400], num_samples=250).real_vs_real()
    halves = StackedMetrics(real.images[:200], num_samples=200).measure(Model(real.images[200:400]))
    assert list(few.values()) == pytest.approx(list(halves.values()), rel=1e-3)


def test_padding_does_not_change_what_is_measured(real, suite):
    padded = np.pad(real.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    values = StackedMetrics(padded, num_samples=250).measure(Model(padded[-250:], real.labels[-250:]))
    assert values == suite.measure(Model(real.images[-250:], real.labels[-250:]))


def test_measuring_a_model_does_not_evaluate_codes(real, suite):
    model = Model(real.images, real.labels)
    values = suite.measure(model)
    model.labels_are_codes = True
    del values["conditional_accuracy"]
    assert suite.measure(model) == values


def test_the_suite_is_found_by_name_and_takes_26000_samples(real):
    assert metrics.get("stacked") is StackedMetrics
    assert StackedMetrics(real.images).protocol == "stacked_26k"
    assert StackedMetrics(real.images).num_samples == 26_000
    assert metrics.monitor_name("stacked") == "kl_stacked_26k"


def test_monitored_metrics_end_in_the_default_protocol(real):
    suites = {"digits": DigitsMetrics(real.images), "stacked": StackedMetrics(real.images)}
    assert all(metrics.monitor_name(name).endswith(f"_{suite.protocol}") for name, suite in suites.items())


def test_every_suite_states_what_makes_values_comparable(real):
    digits, images = DigitsMetrics(real.images, num_samples=20), np.zeros((12, 8, 8, 1), np.uint8)
    stacked, cycle = StackedMetrics(real.images, num_samples=250), metrics.get("cycle")(images, images)
    assert all(issubclass(metrics.get(name), Suite) for name in metrics.names())
    assert [(suite.num_samples, suite.num_real_images) for suite in (digits, stacked)] == [(20, 20), (250, 600)]
    assert digits.weights_sha256 == stacked.weights_sha256 == digits.classifier.sha256
    assert (cycle.num_samples, cycle.num_real_images, cycle.weights_sha256) == (None, None, None)


def test_monitors_are_known_without_tensorflow():
    names = "[m.monitor_name(name) for name in m.names()]"
    code = f"import sys, trainer.metrics as m; {names}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
