"""The digits classifier, and the metric suite on its features."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from image_sets import Model

from trainer import metrics
from trainer.data.loading import load
from trainer.metrics.digits import DigitsMetrics
from trainer.metrics.digits_classifier import WEIGHTS_PATH, DigitsClassifier


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def classifier():
    return DigitsClassifier()


@pytest.fixture(scope="module")
def suite(digits):
    return DigitsMetrics(digits.images[:1000], num_samples=1000)


DESCRIPTION = json.loads(WEIGHTS_PATH.with_suffix(".json").read_text())


def test_the_classifier_reaches_its_stated_accuracy(digits, classifier):
    held_out = np.concatenate([np.flatnonzero(digits.labels == k)[-50:] for k in range(10)])
    _, logits = classifier.extract(digits.images[held_out])
    accuracy = (logits.argmax(1) == digits.labels[held_out]).mean()
    assert accuracy >= 0.98
    assert accuracy == pytest.approx(DESCRIPTION["held_out_accuracy"], abs=0.003)
    assert DESCRIPTION["data_fingerprint"] == digits.fingerprint


def test_features_of_real_digits_have_mean_0_and_variance_1(digits, classifier):
    features, logits = classifier.extract(digits.images)
    assert (features.shape, features.dtype, logits.shape, logits.dtype) == (
        (5000, 64),
        np.float32,
        (5000, 10),
        np.float32,
    )
    np.testing.assert_allclose(features.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(features.std(0), 1, atol=0.05)


def test_padding_of_the_last_batch_does_not_change_its_results(digits, classifier):
    features, logits = classifier.extract(digits.images[:503])
    direct_features, direct_logits = classifier(digits.images[500:503])
    np.testing.assert_allclose(features[500:], direct_features, atol=1e-4)
    np.testing.assert_allclose(logits[500:], direct_logits, atol=1e-4)


def test_floats_and_three_equal_channels_read_like_bytes(digits, classifier):
    images = digits.images[:8]
    features, _ = classifier(images)
    np.testing.assert_allclose(classifier(images.astype(np.float32))[0], features, atol=1e-4)
    np.testing.assert_allclose(classifier(np.repeat(images, 3, axis=-1))[0], features, atol=1e-3)


def test_images_with_alpha_read_like_images_on_white(digits, classifier):
    colors = np.repeat(digits.images[:8], 3, axis=-1)
    alpha = np.random.Generator(np.random.PCG64(5)).integers(0, 256, (*colors.shape[:3], 1), np.uint8)
    on_white = colors * (alpha / 255.0) + 255.0 * (1.0 - alpha / 255.0)
    features, _ = classifier(np.concatenate([colors, alpha], axis=-1))
    np.testing.assert_allclose(features, classifier(on_white.astype(np.float32))[0], atol=1e-3)
    opaque = np.concatenate([colors, np.full_like(alpha, 255)], axis=-1)
    np.testing.assert_array_equal(classifier(opaque)[0], classifier(colors)[0])


def test_other_sizes_are_resized_with_antialiasing(digits, classifier):
    images = digits.images[:200]
    striped = np.zeros((2, 112, 112, 1), np.uint8)
    striped[:, :, ::4] = 255  # without antialiasing, no stripe is sampled and the image is black
    gray = np.full((2, 28, 28, 1), 255 / 4, np.float32)
    np.testing.assert_allclose(classifier(striped)[0], classifier(gray)[0], atol=0.5)
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)
    agreement = classifier.extract(doubled)[1].argmax(1) == digits.labels[:200]
    assert agreement.mean() >= 0.97


def test_it_runs_inside_a_graph(digits, classifier):
    features, _ = tf.function(classifier)(tf.constant(digits.images[:2]))
    np.testing.assert_allclose(features, classifier(digits.images[:2])[0], atol=1e-4)


def test_the_weights_are_small_plain_and_of_the_stated_hash(classifier):
    assert WEIGHTS_PATH.stat().st_size < 1_200_000
    assert classifier.sha256 == DESCRIPTION["sha256"]
    with np.load(WEIGHTS_PATH, allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float32)}


def test_the_images_that_are_not_used_are_not_kept():
    images = np.zeros((40, 28, 28, 1), np.uint8)
    kept = DigitsMetrics(images, num_samples=20)._real_images
    assert kept.shape == (20, 28, 28, 1) and kept.base is None and not np.shares_memory(kept, images)


def test_real_digits_have_the_best_values_against_themselves(digits, suite):
    values = suite.measure(Model(digits.images[:1000], digits.labels[:1000]))
    assert list(values) == [
        *("frechet_digits_1k", "kid_digits_1k", "precision_digits_1k", "recall_digits_1k"),
        *("density_digits_1k", "coverage_digits_1k", "conditional_accuracy"),
    ]
    assert values["frechet_digits_1k"] == pytest.approx(0, abs=1e-6)
    assert values["kid_digits_1k"] < 0
    assert values["precision_digits_1k"] == values["recall_digits_1k"] == values["coverage_digits_1k"] == 1.0
    assert values["density_digits_1k"] == pytest.approx(1.2)  # 5 neighbors and the sample itself
    assert values["conditional_accuracy"] >= 0.98
    assert all(type(value) is float for value in values.values())


def test_noise_is_far_and_other_real_digits_are_near(digits, suite):
    rng = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (1000, 28, 28, 1), dtype=np.uint8)
    far, near = suite.measure(Model(rng)), suite.measure(Model(digits.images[2000:3000]))
    assert far["frechet_digits_1k"] > 100 > 1 > near["frechet_digits_1k"]
    assert far["kid_digits_1k"] > 100 > 0.01 > near["kid_digits_1k"]
    assert far["precision_digits_1k"] == far["coverage_digits_1k"] == 0.0
    assert min(near["precision_digits_1k"], near["recall_digits_1k"], near["coverage_digits_1k"]) > 0.9


def test_fakes_of_one_digit_are_precise_and_cover_a_tenth(digits):
    suite = DigitsMetrics(digits.images, num_samples=500)
    values = suite.measure(Model(digits.images[digits.labels == 3], np.full(500, 3)))
    assert values["precision_digits_500"] > 0.9
    assert values["recall_digits_500"] < 0.2
    assert values["coverage_digits_500"] < 0.2
    assert values["conditional_accuracy"] > 0.98


def test_wrong_labels_lower_only_the_conditional_accuracy(digits, suite):
    images, labels = digits.images[:1000], digits.labels[:1000].copy()
    labels[:250] = (labels[:250] + 1) % 10
    right, wrong = suite.measure(Model(images, digits.labels[:1000])), suite.measure(Model(images, labels))
    assert right.pop("conditional_accuracy") - wrong.pop("conditional_accuracy") == pytest.approx(0.25, abs=0.01)
    assert right == wrong
    assert "conditional_accuracy" not in suite.measure(Model(images))


def test_real_vs_real_compares_the_odd_images_with_the_even_ones(digits, suite):
    real_vs_real = suite.real_vs_real()
    halves = DigitsMetrics(digits.images[:1000:2], num_samples=500).measure(Model(digits.images[1:1000:2]))
    assert list(real_vs_real.values()) == pytest.approx(list(halves.values()), rel=1e-3, abs=1e-5)
    assert list(real_vs_real) == [
        name for name in suite.measure(Model(digits.images[:1000])) if name != "conditional_accuracy"
    ]
    assert 0 < real_vs_real["frechet_digits_1k"] < 2


def test_real_features_are_computed_once_of_the_first_images(digits, monkeypatch):
    suite = DigitsMetrics(digits.images, num_samples=20)
    assert "_real" not in vars(suite)
    suite.measure(Model(digits.images))
    real = suite._real
    assert real.features.shape == (20, 64)
    np.testing.assert_allclose(real.features, suite.classifier(digits.images[:20])[0], atol=1e-4)
    monkeypatch.setattr("trainer.metrics.digits.ReplicatedFunction", None)
    suite.measure(Model(digits.images))
    assert suite._real is real


@pytest.mark.parametrize(("num_samples", "end"), [(5000, "digits_5k"), (50000, "digits_50k"), (2500, "digits_2500")])
def test_a_name_states_the_number_of_samples(digits, num_samples, end):
    assert DigitsMetrics(digits.images, num_samples).protocol == end


def test_codes_are_measured_under_their_best_matching(digits, suite):
    model = Model(digits.images, (digits.labels + 3) % 10)
    assert suite.measure(model)["conditional_accuracy"] < 0.02
    model.labels_are_codes = True
    values = suite.measure(model)
    assert values["code_accuracy"] == suite.measure(Model(digits.images, digits.labels))["conditional_accuracy"]
    assert "conditional_accuracy" not in values
    model = Model(digits.images, digits.labels)
    model.conditions = np.eye(10, dtype=np.float32)
    assert not {"code_accuracy", "conditional_accuracy"} & suite.measure(model).keys()


def test_padding_does_not_change_what_is_measured(digits, suite):
    padded = np.pad(digits.images[:2000], ((0, 0), (2, 2), (2, 2), (0, 0)))
    values = DigitsMetrics(padded, num_samples=1000).measure(Model(padded[1000:]))
    assert values == suite.measure(Model(digits.images[1000:2000]))


def test_a_margin_that_is_not_empty_is_not_cut(digits):
    framed = np.pad(digits.images[:20], ((0, 0), (2, 2), (2, 2), (0, 0)))
    framed[7, 31, 5] = 1
    for images, shape in [
        (framed, (32, 32)),
        (framed[:7], (28, 28)),
        (framed[:, 1:], (31, 32)),
        (framed[:, 6:], (26, 32)),
    ]:
        suite = DigitsMetrics(np.repeat(images, 2, axis=0))
        assert suite._without_padding(images).shape[1:3] == shape


def test_suites_are_found_by_name():
    assert metrics.get("digits") is DigitsMetrics


def test_the_metric_to_monitor_is_one_that_the_suite_reports(digits, suite):
    assert metrics.monitor_name("digits") == "frechet_digits_5k"
    assert "frechet_digits_1k" in suite.real_vs_real()
    assert DigitsMetrics(digits.images).protocol == "digits_5k"


def test_importing_metrics_does_not_import_tensorflow():
    code = "import sys, trainer.metrics as m; m.names(); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
