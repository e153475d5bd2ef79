"""What networks end in, against what the loss reads and where the images lie."""

import functools

import keras
import numpy as np
import pytest
from conftest import uncompiled_gan
from keras import Sequential, layers
from refusals import check_refusal

from trainer import GAN
from trainer.errors import DataError, NetworkError
from trainer.models import losses
from trainer.models.validation import check_expects, check_reaches

ON_PROBABILITIES = [
    keras.losses.binary_crossentropy,
    keras.losses.BinaryCrossentropy(),
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy(),
    functools.partial(keras.losses.binary_crossentropy, label_smoothing=0.1),
]
ON_LOGITS = [
    "non_saturating",
    keras.losses.BinaryCrossentropy(from_logits=True),
    functools.partial(keras.losses.binary_crossentropy, from_logits=True),
]
ON_ANYTHING = [keras.losses.mean_squared_error, keras.losses.MeanSquaredError(), lambda target, output: target - output]
INPUTS = keras.Input((6,))


def ending(*last):
    """A network that ends in these layers."""
    return Sequential([keras.Input((6,)), layers.Dense(4, "relu"), *last])


def sigmoids():
    """Networks that end in a sigmoid, spelled in several ways."""
    return [
        ending(layers.Dense(1, "sigmoid")),
        ending(layers.Dense(1), layers.Activation("sigmoid")),
        ending(layers.Dense(1, "sigmoid"), layers.Activation("linear"), layers.Reshape((1, 1))),
        keras.Model(INPUTS, ending(layers.Dense(1, "sigmoid"))(INPUTS)),
    ]


def linears():
    return [
        ending(layers.Dense(1)),
        ending(layers.Reshape((2, 2, 1)), layers.Conv2D(1, 2), layers.Flatten()),
        keras.Model(INPUTS, layers.Dense(1)(INPUTS)),
    ]


def uncertain():
    """Networks whose last activation cannot be told."""
    return [
        keras.Model(INPUTS, keras.ops.sigmoid(layers.Dense(1)(INPUTS))),
        ending(layers.Dense(1), layers.LeakyReLU()),
        ending(layers.SpectralNormalization(layers.Dense(1))),
    ]


@pytest.mark.parametrize("loss", [*ON_PROBABILITIES, *ON_LOGITS, *ON_ANYTHING])
def test_a_discriminator_must_end_in_what_the_loss_reads(loss):
    of_probabilities, of_logits = (any(loss is held for held in kind) for kind in (ON_PROBABILITIES, ON_LOGITS))
    refused = (linears() if of_probabilities else []) + (sigmoids() if of_logits else [])
    taken = (linears() if not of_probabilities else []) + (sigmoids() if not of_logits else []) + uncertain()
    what = "probabilities" if of_probabilities else "logits"
    for network in refused:
        check_refusal(
            functools.partial(check_expects, losses.get(loss), network), NetworkError, "loss", what, "sigmoid"
        )
    for network in taken:
        check_expects(losses.get(loss), network)


def test_a_generator_must_reach_the_range_of_the_images():
    for network in sigmoids():
        check_reaches(network, (0.0, 1.0))
        for image_range in ((-1.0, 1.0), (0.0, 255.0)):
            mentions = ("generator", "sigmoid", *(f"{bound:g}" for bound in image_range))
            check_refusal(functools.partial(check_reaches, network, image_range), NetworkError, *mentions)
    tanh = ending(layers.Dense(1, "tanh"))
    check_refusal(lambda: check_reaches(tanh, (0.0, 255.0)), NetworkError, "generator", "tanh", "-1", "255")
    for image_range in ((-1.0, 1.0), (0.0, 1.0)):
        check_reaches(ending(layers.Dense(1, "tanh")), image_range)
    for network in linears() + uncertain():
        check_reaches(network, (-1.0, 1.0))


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_a_generator_that_makes_no_negative_values_is_refused_for_images_with_them(activation):
    network = ending(layers.Dense(1, activation))
    check_refusal(lambda: check_reaches(network, (-1.0, 1.0)), NetworkError, "generator", activation, "-1")
    check_reaches(network, (0.0, 1.0))


def test_a_tanh_for_images_without_negative_values_logs_a_warning(caplog):
    tanh = ending(layers.Dense(1, "tanh"))
    check_reaches(tanh, (-1.0, 1.0))
    assert not caplog.records
    check_reaches(tanh, (0.0, 1.0))
    assert all(word in caplog.text for word in ("tanh", "from 0 to 1", "-1..1"))


def test_a_loss_that_does_not_take_targets_and_predictions_is_refused():
    for function in (lambda predictions: predictions, lambda real, fake, weights: real):
        check_refusal(functools.partial(losses.get, function), NetworkError, "<lambda>", "y_true, y_pred")
    losses.get(lambda target, output, weight=1.0: weight * (target - output))


def test_the_first_image_with_a_value_that_is_not_finite_is_named():
    images = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 2, 2, 1)
    images[2, 1, 0, 0] = np.nan
    gan = sigmoid_gan()
    check_refusal(lambda: gan.fit(images, batch_size=2, verbose=0), DataError, "x[2]")


def sigmoid_gan(loss="non_saturating", generator=None, **settings):
    """A GAN whose generator ends in a sigmoid and its discriminator in a logit."""
    pixels = layers.Dense(4, "sigmoid"), layers.Reshape((2, 2, 1))
    networks = {
        "generator": generator or (lambda: ending(*pixels)),
        "discriminator": lambda: Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1)]),
    }
    gan = GAN(6, networks=networks, **settings)
    gan.compile(optimizer="adam", loss=loss)
    return gan


def test_compile_and_fit_refuse_them():
    check_refusal(lambda: sigmoid_gan(keras.losses.binary_crossentropy), NetworkError, "loss", "discriminator")
    images = np.tile(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1) * 85, (8, 1, 1, 1))
    for given in (images, images / np.float32(127.5) - 1):
        fit = functools.partial(sigmoid_gan().fit, given, batch_size=4, steps=1, verbose=0)
        check_refusal(fit, NetworkError, "generator", "sigmoid", "-1")
    sigmoid_gan().fit(images / np.float32(255), batch_size=4, steps=1, verbose=0)
    sigmoid_gan(image_range="0..1").fit(images, batch_size=4, steps=1, verbose=0)


def test_a_second_head_is_no_discriminator():
    gan = uncompiled_gan(model="acgan")
    discriminator = gan.get_discriminator()
    ended = keras.Model(discriminator.inputs, layers.Dense(1, "sigmoid")(discriminator.layers[-1].input))
    gan.get_discriminator = lambda: ended
    gan.compile(optimizer="adam", loss=keras.losses.binary_crossentropy)
    assert gan.networks["classifier"].layers[-1].activation is keras.activations.linear


class AddsALoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean(inputs))
        return inputs


@pytest.mark.parametrize("owner", ["generator", "discriminator"])
@pytest.mark.parametrize(
    "kind", [lambda: layers.Dense(1, activity_regularizer="l2"), AddsALoss], ids=["activity", "add"]
)
def test_a_loss_that_a_layer_adds_is_refused(digits, owner, kind):
    gan = uncompiled_gan()
    network = getattr(gan, f"get_{owner}")()
    gan.set_network_factories({owner: lambda: keras.Model(network.inputs, kind()(network.outputs[0]))})
    gan.compile(optimizer="adam")
    fit = functools.partial(gan.fit, digits.images[:32], batch_size=16, steps=1, verbose=0)
    check_refusal(fit, NetworkError, "activity_regularizer", "add_loss")
