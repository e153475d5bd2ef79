"""Hand-computed values and gradient signs of every loss, both functions unreduced."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import ConfigError, NetworkError
from trainer.models import losses
from trainer.models.objective import Objective

REAL, FAKE = 0.5, -2.0


def softplus(x):
    return math.log1p(math.exp(x))


EXPECTED = {
    "non_saturating": (softplus(-REAL) + softplus(FAKE), softplus(-FAKE)),
    "minimax": (softplus(-REAL) + softplus(FAKE), -softplus(FAKE)),
    "least_squares": (0.5 * ((REAL - 1) ** 2 + FAKE**2), 0.5 * (FAKE - 1) ** 2),
    "hinge": (max(0, 1 - REAL) + max(0, 1 + FAKE), -FAKE),
    "mean_squared_error": (0.5 * ((REAL - 1) ** 2 + FAKE**2), (FAKE - 1) ** 2),
    "wasserstein": (FAKE - REAL, -FAKE),
    "relativistic": (softplus(FAKE - REAL), softplus(REAL - FAKE)),
}
OF_PAIRS = {"relativistic"}
"""Losses of pairs, which are no sum of a real and a fake part."""


def test_every_registered_loss_has_a_hand_computed_value():
    assert set(EXPECTED) == set(losses.names())


@pytest.mark.parametrize("name", losses.names())
def test_values_are_those_of_the_formula(name):
    loss = losses.get(name)
    real, fake = tf.constant([REAL, 0.0]), tf.constant([FAKE, 0.0])
    for function, expected in zip((loss.discriminator, loss.generator), EXPECTED[name], strict=True):
        value = function(real, fake)
        assert value.shape == (2,)
        np.testing.assert_allclose(value[0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", losses.names())
def test_each_side_pulls_the_logits_its_way(name):
    real, fake = tf.constant([0.2]), tf.constant([0.1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([real, fake])
        of_discriminator = losses.get(name).discriminator(real, fake)
        of_generator = losses.get(name).generator(real, fake)
    assert tape.gradient(of_discriminator, real) < 0 < tape.gradient(of_discriminator, fake)
    assert tape.gradient(of_generator, fake) < 0


@pytest.mark.parametrize("name", losses.names())
def test_the_discriminators_loss_is_the_sum_of_its_parts(name):
    loss = losses.get(name)
    real, fake = tf.constant([REAL, 0.3]), tf.constant([FAKE, 0.7])
    assert loss.is_separable == (name not in OF_PAIRS)
    if loss.is_separable:
        parts = loss.on_real(real) + loss.on_fake(fake)
        np.testing.assert_allclose(loss.discriminator(real, fake), parts, rtol=1e-6)
        return
    for part in (loss.on_real, loss.on_fake):
        with pytest.raises(NetworkError):
            part(real)


class ScaledHinge(losses.Hinge):
    def discriminator(self, real_logits, fake_logits):
        return 2.0 * super().discriminator(real_logits, fake_logits)


class ShiftedHinge(losses.Hinge):
    def on_real(self, real_logits):
        return super().on_real(real_logits) + 1.0


class PairsWithParts(losses.Relativistic):
    def on_real(self, real_logits):
        return -real_logits


@pytest.mark.parametrize(("kind", "expected"), [(ScaledHinge, False), (ShiftedHinge, True), (PairsWithParts, False)])
def test_a_loss_is_separable_only_if_its_parts_are_all_of_it(kind, expected):
    assert kind().is_separable == expected
    if expected:
        Objective(kind, updates="separate")
        return
    with pytest.raises(ConfigError, match="separate"):
        Objective(kind, updates="separate")


@pytest.mark.parametrize("name", losses.names())
def test_only_losses_of_pairs_read_the_real_logits_for_the_generator(name):
    values = [losses.get(name).generator(tf.constant([real]), tf.constant([FAKE])).numpy() for real in (REAL, 3.0)]
    assert (values[0] != values[1]).all() == (name in OF_PAIRS)


def test_the_relativistic_loss_reads_differences_of_pairs_alone():
    loss = losses.get("relativistic")
    real, fake = tf.constant([REAL, 1.0]), tf.constant([FAKE, 1.0])
    for function in (loss.discriminator, loss.generator):
        np.testing.assert_allclose(function(real, fake), function(real + 5.0, fake + 5.0), rtol=1e-5)
    np.testing.assert_allclose(loss.discriminator(real, fake), loss.generator(fake, real))
    np.testing.assert_allclose(loss.discriminator(real, fake)[1], math.log(2), rtol=1e-6)


@pytest.mark.parametrize("name", losses.names())
def test_losses_of_patches_are_those_of_each_patch(name):
    loss = losses.get(name)
    real, fake = tf.constant([[REAL, 0.3], [1.0, 2.0]]), tf.constant([[FAKE, 0.1], [-1.0, 0.5]])
    for function in (loss.discriminator, loss.generator):
        of_patches = function(real, fake)
        assert of_patches.shape == (2, 2)
        np.testing.assert_allclose(of_patches[:, 1], function(real[:, 1], fake[:, 1]), rtol=1e-6)


@pytest.mark.parametrize("name", losses.names())
def test_what_is_logged_as_score_grows_with_the_logit(name):
    assert tf.reduce_all(losses.get(name).score(tf.constant([1.0])) > losses.get(name).score(tf.constant([-1.0])))


@pytest.mark.parametrize(
    ("function", "from_logits"),
    [
        (keras.losses.binary_crossentropy, False),
        (tf.losses.binary_crossentropy, False),
        (keras.losses.BinaryCrossentropy(), False),
        (keras.losses.BinaryCrossentropy(from_logits=True), True),
        (keras.losses.mean_squared_error, None),
        (keras.losses.MeanSquaredError(), None),
    ],
)
def test_a_keras_loss_says_whether_it_reads_logits(function, from_logits):
    loss = losses.get(function)
    assert loss.from_logits is from_logits
    assert loss.generator(tf.constant([0.5]), tf.constant([0.4])).shape == (1,)


class Scaled(losses.AdversarialLoss):
    """A loss of one's own."""

    def __init__(self, scale=2.0):
        self.scale = scale

    def on_real(self, real_logits):
        return -self.scale * real_logits

    def on_fake(self, fake_logits):
        return self.scale * fake_logits

    def generator(self, real_logits, fake_logits):
        return -self.scale * fake_logits


def test_a_class_of_losses_is_as_good_as_an_instance():
    real, fake = tf.constant([REAL, 0.0]), tf.constant([FAKE, 0.0])
    pairs = [(Scaled, Scaled()), (losses.NonSaturating, "non_saturating")]
    pairs += [(keras.losses.BinaryCrossentropy, keras.losses.BinaryCrossentropy())]
    for kind, instance in pairs:
        for side in ("discriminator", "generator"):
            values = [getattr(losses.get(loss), side)(real, fake) for loss in (kind, instance)]
            np.testing.assert_array_equal(*values)
    assert losses.get(keras.losses.BinaryCrossentropy).decision_threshold == 0.5
