"""Metric suites on the features of any extractor: names, values, and the real images that they compare with."""

import logging

import numpy as np
import pytest
from image_sets import NUM_FEATURES, Generator, PooledPixels, images_of, real_images_of
from refusals import Refusal, check_refusal

from trainer.errors import DataError
from trainer.metrics.image_metrics import ImageMetrics

NAMES = ["frechet", "kid", "kid_std", "precision", "recall", "density", "coverage"]
REAL, FAKE = images_of(120), images_of(150, seed=1, contrast=0.9)


def suite_of(images=REAL, num_samples=150, **options):
    return ImageMetrics(PooledPixels(), real_images_of(images), num_samples, **options)


def features_of(images):
    return PooledPixels()(images)[0].numpy()


@pytest.fixture(scope="module")
def suite():
    return suite_of()


def test_the_metrics_of_a_model_have_the_names_of_their_protocol(suite):
    values = suite.measure(Generator(FAKE))
    assert list(values) == [f"{name}_pooled_150" for name in NAMES]
    assert list(suite.real_vs_real()) == list(values)
    assert all(type(value) is float for value in [*values.values(), *suite.real_vs_real().values()])
    assert values == pytest.approx(suite.evaluate_features(features_of(FAKE)), rel=1e-5)


@pytest.mark.parametrize(
    ("num_samples", "frechet_name", "name"),
    [
        (5000, "frechet", "frechet_pooled_5k"),
        (50_000, "fid", "fid_pooled_50k"),
        (2500, "fid", "fid_pooled_2500"),
        (150, "frechet", "frechet_pooled_150"),
    ],
)
def test_a_name_states_the_distance_the_extractor_and_the_number(num_samples, frechet_name, name):
    suite = suite_of(num_samples=num_samples)
    suite.extractor.frechet_name = frechet_name
    assert next(iter(suite.real_vs_real())) == name
    assert name.endswith(suite.protocol)


def test_real_images_are_the_best_fakes_of_themselves():
    values = suite_of(num_samples=120).evaluate_features(features_of(REAL))
    assert values["frechet_pooled_120"] == pytest.approx(0.0, abs=1e-6)
    assert values["kid_pooled_120"] < 0
    assert (values["precision_pooled_120"], values["recall_pooled_120"], values["coverage_pooled_120"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "worsen",
    [
        lambda images, strength: np.repeat(images[: len(images) // (1 + strength)], 1 + strength, axis=0)[:150],
        lambda images, strength: (images * (1 - 0.15 * strength)).astype(np.uint8),
        lambda images, strength: np.clip(images.astype(int) + 15 * strength, 0, 255).astype(np.uint8),
        lambda images, strength: np.where(np.arange(150)[:, None, None, None] < 30 * strength, 0, images),
    ],
    ids=["repeated", "darker", "brighter", "partly black"],
)
def test_distances_grow_with_the_strength_of_a_change(suite, worsen):
    images = images_of(150, seed=2)
    values = [suite.evaluate_features(features_of(worsen(images, strength))) for strength in (0, 1, 2, 4)]
    distances = [value["frechet_pooled_150"] for value in values]
    assert distances == sorted(distances) and distances[-1] > 2 * distances[0]
    assert values[-1]["coverage_pooled_150"] < values[0]["coverage_pooled_150"]


def test_real_vs_real_compares_the_odd_images_with_the_even_ones():
    halves = suite_of(REAL[0::2], num_samples=60).evaluate_features(features_of(REAL[1::2]))
    assert list(suite_of().real_vs_real().values()) == pytest.approx(list(halves.values()), rel=1e-4, abs=1e-6)


def test_the_inception_score_is_reported_on_request(suite):
    with_score = suite_of(inception_score=True)
    values = with_score.measure(Generator(FAKE))
    assert list(values) == [f"{name}_pooled_150" for name in [*NAMES, "inception_score"]]
    assert list(with_score.real_vs_real()) == list(values)
    assert {name: value for name, value in values.items() if "score" not in name} == suite.measure(Generator(FAKE))
    assert 1 < values["inception_score_pooled_150"] < 5


def test_two_replicas_give_the_same_numbers(suite, two_replicas):
    mirrored = suite_of(strategy=two_replicas)
    assert mirrored.real_vs_real() == suite.real_vs_real()
    assert mirrored.measure(Generator(FAKE)) == suite.measure(Generator(FAKE))


@pytest.mark.parametrize(
    ("num_images", "is_few"), [(12, True), (NUM_FEATURES, True), (NUM_FEATURES + 1, False), (120, False)]
)
def test_a_warning_names_the_better_metric_for_few_images(num_images, is_few, caplog):
    with caplog.at_level(logging.WARNING):
        suite_of(REAL[:num_images])
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("trainer")]
    assert ["kid_pooled_150" in message for message in warnings] == [True] * is_few


@pytest.mark.parametrize("num_images", [12, 13, 25])
def test_few_images_have_finite_metrics(num_images):
    suite = suite_of(REAL[:num_images], num_samples=30)
    values = suite.evaluate_features(features_of(FAKE[:30])) | suite.real_vs_real()
    assert np.isfinite(list(values.values())).all()


@pytest.mark.parametrize("images", [REAL[:1].repeat(150, 0), np.zeros((150, 8, 8, 3), np.uint8)], ids=["one", "black"])
def test_a_collapsed_generator_has_finite_metrics_without_recall(suite, images):
    values = suite.measure(Generator(images))
    assert np.isfinite(list(values.values())).all()
    assert values["recall_pooled_150"] <= 1 / 120 and values["coverage_pooled_150"] < 0.1


NAN = np.where(np.arange(150)[:, None] == 149, np.nan, np.zeros((150, NUM_FEATURES)))
REFUSALS = [
    Refusal("no real images", lambda: suite_of(REAL[:0]), DataError, ("0", "12", "metrics=none")),
    Refusal("few real images", lambda: suite_of(REAL[:11]), DataError, ("11", "12", "metrics=none")),
    Refusal("few samples", lambda: suite_of(REAL, 11), DataError, ("num_samples=11", "12")),
    Refusal("more real images", lambda: suite_of(REAL, 119), DataError, ("120", "num_samples=119")),
    Refusal("fewer fakes", lambda: suite_of().evaluate_features(features_of(FAKE[:149])), DataError, ("149", "150")),
    Refusal("more fakes", lambda: suite_of(num_samples=140).measure(Many()), DataError, ("150", "140", "pooled_140")),
    Refusal("not finite", lambda: suite_of().evaluate_features(NAN), DataError, ("fake_features",)),
    Refusal("other features", lambda: suite_of().evaluate_features(NAN[:, :3] * 0 + 1), DataError, ("fake_features",)),
    Refusal(
        "no logits",
        lambda: suite_of(inception_score=True).evaluate_features(features_of(FAKE)),
        DataError,
        ("inception_score", "logits"),
    ),
]


class Many(Generator):
    """A model that returns more samples than it is asked for."""

    def __init__(self):
        super().__init__(FAKE)

    def sample_features(self, num_images, function):
        return super().sample_features(150, function)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_refused_images_and_features_are_named(refusal):
    check_refusal(refusal.act, refusal.error, *refusal.mentions)
