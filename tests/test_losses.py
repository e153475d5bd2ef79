"""Hand-computed values and gradient signs of every loss, both functions unreduced."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import losses
from trainer.errors import ConfigError, NetworkError

REAL, FAKE = 0.5, -2.0


def softplus(x):
    return math.log1p(math.exp(x))


EXPECTED = {
    "non_saturating": (softplus(-REAL) + softplus(FAKE), softplus(-FAKE)),
    "minimax": (softplus(-REAL) + softplus(FAKE), -softplus(FAKE)),
    "least_squares": (0.5 * ((REAL - 1) ** 2 + FAKE**2), 0.5 * (FAKE - 1) ** 2),
    "hinge": (max(0, 1 - REAL) + max(0, 1 + FAKE), -FAKE),
}


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


@pytest.mark.parametrize(
    ("function", "reads_logits"),
    [
        (keras.losses.binary_crossentropy, False),
        (tf.losses.binary_crossentropy, False),
        (keras.losses.BinaryCrossentropy(), False),
        (keras.losses.BinaryCrossentropy(from_logits=True), True),
        (keras.losses.mean_squared_error, False),
        (keras.losses.MeanSquaredError(), False),
    ],
)
def test_a_keras_loss_says_whether_it_reads_logits(function, reads_logits):
    loss = losses.get(function)
    assert loss.reads_logits == reads_logits
    assert loss.generator(tf.constant([0.5]), tf.constant([0.4])).shape == (1,)


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean hinge?"):
        losses.get("hnge")
    with pytest.raises(NetworkError, match="is not a name"):
        losses.get(3)
