"""Promises of every registered architecture. A new architecture is tested without changes here.

Legend: `B` images, `H W C` image shape, `h w` patches, `Z` latent size, `K` classes.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_ARCHITECTURES, tiny_config, tiny_data, tiny_model, values_of
from refusals import check_refusal

from trainer import networks
from trainer.errors import ConfigError
from trainer.networks import NetworkPart
from trainer.networks.fastgan import PART_FEATURES, WHOLE_FEATURES
from trainer.networks.stylegan2 import MAPPING, STYLES, SYNTHESIS
from trainer.training.rng import seeded_initialization

SHAPES = [(28, 28, 1), (32, 32, 3), (20, 12, 3)]
B, Z, K = 2, 8, 3
SLOW = {"resnet_translator", "unet_translator"}
"""Architectures whose training step takes more than about three seconds to trace."""


def build(name, shape, condition_size, activation="tanh"):
    """Returns generator and discriminator in their tiny forms."""
    with seeded_initialization(0):
        factories = networks.build(name, shape, Z, condition_size, activation, TINY_ARCHITECTURES[name])
        return factories["generator"](), factories["discriminator"]()


def draw(*shape):
    return tf.random.stateless_uniform(shape, [0, 1], -1.0, 1.0)


def test_every_architecture_has_tiny_options_and_no_other():
    assert set(TINY_ARCHITECTURES) == set(networks.names()), "add the tiny options to tests/conftest.py"


@pytest.mark.parametrize("name", networks.names())
def test_networks_have_the_stated_parts_and_no_other(name):
    generator, discriminator = build(name, SHAPES[0], 0)
    layers, other_layers = ({layer.name for layer in network.layers} for network in (generator, discriminator))
    has_part = {
        NetworkPart.DENSE_OUTPUT: isinstance(discriminator.layers[-1], keras.layers.Dense),
        NetworkPart.FEATURE_MAPS: {PART_FEATURES, WHOLE_FEATURES} <= other_layers,
        NetworkPart.STYLES: {MAPPING, STYLES, SYNTHESIS} <= layers,
    }
    assert {part: not networks.lacks(name, part) for part in NetworkPart} == has_part


@pytest.mark.parametrize("condition_size", [0, K])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", networks.names())
def test_networks_have_the_promised_input_and_output_shapes(name, shape, condition_size):
    height, width, channels = shape
    generator, discriminator = build(name, shape, condition_size)
    if networks.generator_input(name) == "latents":
        inputs = draw(B, Z + condition_size)
    else:
        inputs = draw(B, height, width, channels + condition_size)
    images = generator(inputs, training=True)
    assert images.shape == (B, *shape)
    assert generator.output_shape == (None, *shape)
    if len(discriminator.inputs) == 1:
        logits = discriminator(draw(B, height, width, channels + condition_size), training=True)
    else:
        logits = discriminator([images, tf.one_hot([0, 1], K)], training=True)
    assert len(logits.shape) in (2, 4)
    assert (logits.shape[0], logits.shape[-1]) == (B, 1)
    assert np.isfinite(images).all() and np.isfinite(logits).all()


@pytest.mark.parametrize("name", networks.names())
def test_every_kernel_has_different_random_values(name):
    for network in build(name, (28, 28, 1), 0):
        starts = [variable.numpy().ravel()[:6] for variable in network.trainable_variables if variable.ndim > 1]
        directions = [start / np.linalg.norm(start) for start in starts if start.any()]
        for index, direction in enumerate(directions):
            similarities = [float(direction @ other) for other in directions[:index] if len(other) == len(direction)]
            assert max(similarities, default=0.0) < 0.999, (
                f"kernel {index} of the {network.name} has the initial values of another kernel"
            )


@pytest.mark.parametrize("name", [name for name in networks.names() if networks.generator_input(name) == "latents"])
def test_labels_reach_images_and_logits(name):
    generator, discriminator = build(name, (28, 28, 1), K)
    labels = tf.one_hot([0, 1], K)
    images = generator(tf.concat([tf.repeat(draw(1, Z), 2, axis=0), labels], axis=-1))
    assert (images[0] != images[1]).numpy().any()
    same = tf.repeat(draw(1, 28, 28, 1), 2, axis=0)
    if len(discriminator.inputs) == 1:
        planes = tf.broadcast_to(labels[:, tf.newaxis, tf.newaxis], (2, 28, 28, K))
        logits = discriminator(tf.concat([same, planes], axis=-1))
    else:
        logits = discriminator([same, labels])
    assert (logits[0] != logits[1]).numpy().any()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in networks.names()],
)
def test_a_step_is_finite_and_moves_every_weight(digits, name):
    model = "conditional" if networks.generator_input(name) == "latents" else "cyclegan"
    gan = tiny_model(model, architecture=name, architecture_options=TINY_ARCHITECTURES[name], beta_1=0.0)
    before = values_of(gan)
    gan.fit(*tiny_data(gan, digits), batch_size=16, steps=2, verbose=0)
    after = values_of(gan)
    assert all(np.isfinite(value).all() for value in after.values())
    for factories in gan.optimizer_groups.values():
        for network in factories:
            for index, variable in enumerate(gan.networks[network].weights):
                state = f"{network}/{index:03d}/{variable.name}"
                assert not variable.trainable or (before[state] != after[state]).any(), state


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (name, more)
        for name in networks.names()
        for more in ({}, {"spectral_norm": True})
        if more.keys() <= networks.default_options(name).keys()
    ],
)
def test_keras_saves_loads_and_clones_networks(name, more, tmp_path):
    with seeded_initialization(0):
        factories = networks.build(name, (12, 12, 1), Z, K, "tanh", TINY_ARCHITECTURES[name] | more)
    for network in (factories["generator"](), factories["discriminator"]()):
        inputs = [draw(B, *tensor.shape[1:]) for tensor in network.inputs]
        inputs = inputs if len(inputs) > 1 else inputs[0]
        network.save(tmp_path / "network.keras")
        loaded, cloned = keras.models.load_model(tmp_path / "network.keras"), keras.models.clone_model(network)
        cloned.set_weights(network.get_weights())
        for other in (loaded, cloned):
            np.testing.assert_array_equal(other(inputs), network(inputs))


def test_a_tiny_config_is_complete_for_every_architecture():
    for name in networks.names():
        assert tiny_config(name).architecture_options == TINY_ARCHITECTURES[name]


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name in networks.names() for option in networks.default_options(name)],
)
def test_an_option_of_a_wrong_type_is_refused(name, option):
    shape, options = (32, 32, 3), TINY_ARCHITECTURES[name] | {option: {"a": 1}}

    def build_both():
        for factory in networks.build(name, shape, Z, 0, "tanh", options).values():
            factory()

    check_refusal(build_both, ConfigError, option)
