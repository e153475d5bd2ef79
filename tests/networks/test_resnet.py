"""The residual networks have the layers of the papers and fit images of any size."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import networks

SNGAN = {
    "generator_filters": [256, 256, 256],
    "discriminator_filters": [128, 128, 128, 128],
    "discriminator_downsamples": 2,
    "spectral_norm": True,
}


def kernels(network) -> list[tuple[object, ...]]:
    """Returns class, channels and kernel size of each layer with a kernel, sorted."""
    layers = [layer for layer in network.layers if hasattr(layer, "kernel")]
    return sorted((type(layer).__name__, layer.kernel.shape[-1], *layer.kernel.shape[:-2]) for layer in layers)


def test_the_pair_of_sngan_has_the_layers_of_the_paper():
    factories = networks.build("resnet", (32, 32, 3), 128, 0, "tanh", SNGAN)
    generator, discriminator = factories["generator"](), factories["discriminator"]()
    assert kernels(generator) == sorted(
        [
            ("Dense", 4 * 4 * 256),
            *[("UpsamplingConv2D", 256, 3, 3), ("Conv2D", 256, 3, 3), ("UpsamplingConv2D", 256, 1, 1)] * 3,
            ("Conv2D", 3, 3, 3),
        ]
    )
    assert [type(layer).__name__ for layer in generator.layers].count("BatchNormalization") == 7
    assert kernels(discriminator) == sorted(
        [
            *[("SpectralConv2D", 128, 3, 3), ("SpectralPoolingConv2D", 128, 3, 3)] * 2,
            *[("SpectralPoolingConv2D", 128, 1, 1)] * 2,
            *[("SpectralConv2D", 128, 3, 3)] * 4,
            ("SpectralDense", 1),
        ]
    )
    kinds = [type(layer).__name__ for layer in discriminator.layers]
    assert kinds[-3:] == ["ReLU", "GlobalSumPooling2D", "SpectralDense"]
    assert "BatchNormalization" not in kinds
    assert discriminator.layers[-1].input.shape == (None, 128)


@pytest.mark.parametrize("shape", [(28, 28, 1), (30, 21, 3), (5, 6, 1)])
@pytest.mark.parametrize("condition_size", [0, 2])
def test_networks_fit_any_shape(shape, condition_size):
    options = {"generator_filters": [8, 4], "discriminator_filters": [4, 8, 8]}
    factories = networks.build("resnet", shape, 8, condition_size, "tanh", options)
    assert factories["generator"]()(tf.zeros([2, 8 + condition_size])).shape == (2, *shape)
    planes = tf.zeros([2, *shape[:2], shape[2] + condition_size])
    assert factories["discriminator"]()(planes).shape == (2, 1)


def test_layers_of_one_shape_start_with_different_values():
    discriminator = networks.build("resnet", (8, 8, 1), 8, 0, "tanh", {"discriminator_filters": [8] * 4})
    values = [layer.kernel.numpy() for layer in discriminator["discriminator"]().layers if hasattr(layer, "kernel")]
    assert len({kernel.tobytes() for kernel in values}) == len(values)


def test_a_gradient_penalty_reaches_every_kernel_of_the_discriminator():
    options = {"discriminator_filters": [4, 4], "spectral_norm": True}
    discriminator = networks.build("resnet", (8, 8, 1), 8, 0, "tanh", options)["discriminator"]()
    images = tf.random.stateless_normal([2, 8, 8, 1], [0, 1])
    kernels = [layer.kernel.value for layer in discriminator.layers if hasattr(layer, "kernel")]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(images)
            logits = tf.reduce_sum(discriminator(images, training=True))
        penalty = tf.reduce_sum(tf.square(inner.gradient(logits, images)))
    for gradient in outer.gradient(penalty, kernels):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0
