"""The image-to-image networks are those of their papers, and work on small images too."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import networks
from trainer.networks.layers import InstanceNormalization, ReflectionPadding2D
from trainer.training.rng import seeded_initialization

TINY = {"generator_filters": 4, "discriminator_filters": 4}
RESNET = ("resnet_translator", TINY | {"residual_blocks": 1})
UNET = ("unet_translator", TINY | {"depth": 3})


def build(name, options, shape=(32, 32, 1), condition_size=0):
    factories = networks.build(name, shape, 0, condition_size, "tanh", options)
    return factories["generator"](), factories["discriminator"]()


def layers_of(network, *kinds):
    return [layer for layer in network.layers if isinstance(layer, kinds)]


def settings_of(network):
    """(filters, kernel size, stride) of every convolution, in order."""
    convolutions = layers_of(network, keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return [(layer.filters, layer.kernel_size[0], layer.strides[0]) for layer in convolutions]


@pytest.mark.parametrize(
    ("name", "options", "shape", "condition_size"),
    [
        (*RESNET, (28, 28, 1), 0),
        (*RESNET, (24, 12, 3), 2),
        ("unet_translator", TINY | {"depth": 2, "dropout": 0.5}, (28, 28, 1), 0),
        ("unet_translator", TINY | {"depth": 5}, (32, 64, 3), 2),
    ],
)
def test_images_keep_their_shape_and_have_a_grid_of_logits(name, options, shape, condition_size):
    generator, discriminator = build(name, options, shape, condition_size)
    inputs = tf.random.stateless_normal([2, *shape[:2], shape[2] + condition_size], [0, 1])
    images = generator(inputs, training=True)
    assert images.shape == (2, *shape)
    assert np.abs(images).max() <= 1
    assert discriminator(inputs).shape == (2, -(-shape[0] // 8), -(-shape[1] // 8), 1)
    assert generator.output_shape == (None, *shape)


def test_architectures_state_the_input_of_their_generators():
    assert {networks.generator_input(name) for name in ("resnet_translator", "unet_translator")} == {"images"}
    assert {networks.generator_input(name) for name in ("mlp", "dcgan")} == {"latents"}


def test_cyclegan_resnet_of_128_pixels_is_that_of_the_paper():
    generator, _ = build("resnet_translator", {"residual_blocks": 6}, (128, 128, 3))
    down, up = [(64, 7, 1), (128, 3, 2), (256, 3, 2)], [(128, 3, 2), (64, 3, 2)]
    assert settings_of(generator) == [*down, *[(256, 3, 1)] * 12, *up, (3, 7, 1)]
    assert [layer.filters for layer in layers_of(generator, keras.layers.Conv2DTranspose)] == [128, 64]
    assert [layer.padding for layer in layers_of(generator, ReflectionPadding2D)] == [3, *[1] * 12, 3]
    assert len(layers_of(generator, InstanceNormalization)) == 17
    assert len(layers_of(generator, keras.layers.ReLU)) == 11
    assert len(layers_of(generator, keras.layers.Add)) == 6
    assert generator.layers[-1].activation is keras.activations.tanh
    for layer in layers_of(generator, keras.layers.Conv2D, keras.layers.Conv2DTranspose):
        assert layer.kernel.numpy().std() == pytest.approx(0.02, rel=0.05)


def test_cyclegan_unet_of_128_pixels_is_that_of_the_paper():
    generator, _ = build("unet_translator", {"generator_filters": 8}, (128, 128, 3))
    down, up = [8, 16, 32, 64, 64, 64, 64], [64, 64, 64, 32, 16, 8, 3]
    assert settings_of(generator) == [(filters, 4, 2) for filters in down + up]
    joined = [layer.output.shape[1:] for layer in layers_of(generator, keras.layers.Concatenate)]
    assert joined == [(2**level, 2**level, 2 * up[level - 1]) for level in range(1, 7)]
    assert len(layers_of(generator, InstanceNormalization)) == 5 + 6


def test_cyclegan_discriminator_judges_patches_of_70_pixels():
    _, discriminator = build("resnet_translator", {"residual_blocks": 1}, (128, 128, 3))
    settings = settings_of(discriminator)
    assert settings == [(64, 4, 2), (128, 4, 2), (256, 4, 2), (512, 4, 1), (1, 4, 1)]
    field, jump = 1, 1
    for _, kernel_size, stride in settings:
        field, jump = field + (kernel_size - 1) * jump, jump * stride
    assert field == 70
    assert len(layers_of(discriminator, InstanceNormalization)) == 3
    negative_slopes = [layer.negative_slope for layer in layers_of(discriminator, keras.layers.LeakyReLU)]
    assert negative_slopes == pytest.approx([0.2] * 4)


@pytest.mark.parametrize(("num_layers", "field"), [(1, 16), (2, 34)])
def test_fewer_layers_judge_smaller_patches(num_layers, field):
    _, discriminator = build("resnet_translator", RESNET[1] | {"discriminator_layers": num_layers})
    patch, jump = 1, 1
    for _, kernel_size, stride in settings_of(discriminator):
        patch, jump = patch + (kernel_size - 1) * jump, jump * stride
    assert patch == field


@pytest.mark.parametrize(("name", "options"), [RESNET, UNET])
def test_layers_and_networks_of_equal_shape_start_with_own_weights(name, options):
    factory = networks.build(name, (32, 32, 1), 0, 0, "tanh", options)["generator"]
    kernels = [weight.numpy() for _ in range(2) for weight in factory().weights if weight.name == "kernel"]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("name", "options"), [RESNET, ("unet_translator", TINY | {"depth": 4})])
def test_every_weight_learns_under_a_gradient_penalty_too(name, options, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        with seeded_initialization(0):
            generator, discriminator = build(name, options | {"initializer": "glorot_uniform"}, (16, 16, 1))
    finally:
        keras.config.set_dtype_policy(before)

    @tf.function
    def gradients(images):
        with tf.GradientTape(persistent=True) as outer:
            fake_images = tf.cast(generator(images, training=True), tf.float32)
            with tf.GradientTape() as inner:
                inner.watch(fake_images)
                logits = tf.cast(discriminator(fake_images, training=True), tf.float32)
                total = tf.reduce_sum(tf.square(logits))
            penalty = tf.reduce_sum(tf.square(inner.gradient(total, fake_images)))
        generator_gradients = outer.gradient(total, [variable.value for variable in generator.trainable_variables])
        penalty_gradients = outer.gradient(penalty, [variable.value for variable in discriminator.trainable_variables])
        return generator_gradients, penalty_gradients

    images = tf.random.stateless_normal([1, 16, 16, 1], [0, 1])
    first, second = gradients(images), gradients(images)
    for first_value, second_value in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        assert np.isfinite(first_value).all()
        assert np.abs(first_value).max() > 0
        np.testing.assert_array_equal(first_value, second_value)


def test_reflection_padding_and_its_derivatives_mirror_the_border():
    images = tf.random.stateless_normal([2, 5, 4, 3], [0, 1])
    expected = np.pad(images.numpy(), [(0, 0), (3, 3), (3, 3), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(ReflectionPadding2D(3)(images), expected)
    with tf.GradientTape() as outer:
        outer.watch(images)
        with tf.GradientTape() as inner:
            inner.watch(images)
            total = tf.reduce_sum(ReflectionPadding2D(3)(images) ** 3)
        gradient = inner.gradient(total, images)
    # Padding only repeats pixels: with n copies of a pixel x, the derivatives are n·3x² and n·6x.
    copies = gradient / (3 * images**2)
    np.testing.assert_allclose(outer.gradient(gradient, images), copies * 6 * images, rtol=1e-4)
    assert copies.numpy().round(3).max() > 1
