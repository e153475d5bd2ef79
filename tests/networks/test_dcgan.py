"""The convolutional networks have the layers of the systems that they reproduce."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import networks

PAPER = {
    "generator_filters": [512, 256, 128, 64],
    "generator_strides": [2, 2, 2, 2],
    "generator_stem": "transposed_convolution",
    "discriminator_filters": [64, 128, 256, 512],
    "discriminator_head": "convolution",
}


def build(network: str, options: dict[str, object], shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    return networks.build("dcgan", shape, 100, 0, "tanh", options)[network]()


def stack(network: keras.Model) -> list[tuple[object, ...]]:
    """Returns a description of each layer in order, without inputs and changes of shape."""
    described: list[tuple[object, ...]] = []
    for layer in network.layers:
        match type(layer).__name__:
            case "Dense":
                described.append(("dense", layer.units))
            case "Conv2D" | "Conv2DTranspose" | "WholeMapConv2D" | "SpectralConv2D" | "SpectralWholeMapConv2D" as kind:
                settings = layer.filters, layer.kernel_size[0], layer.strides[0], layer.activation.__name__
                described.append((kind, *settings))
            case "BatchNormalization":
                described.append(("batch_norm", layer.momentum))
            case "LeakyReLU":
                described.append(("leaky_relu", layer.negative_slope))
            case "ReLU":
                described.append(("relu",))
            case "Dropout":
                described.append(("dropout", layer.rate))
    return described


def test_cgan_has_its_convolutional_layers():
    options = {
        "discriminator_batch_norm": "none",
        "leaky_slope": 0.1,
        "batch_norm_momentum": 0.9,
        "dropout": 0.4,
        "initializer": "he_normal",
    }
    generator, discriminator = build("generator", options), build("discriminator", options)
    assert stack(generator) == [
        *(("dense", 7 * 7 * 128), ("batch_norm", 0.9), ("relu",)),
        *(("Conv2DTranspose", 64, 4, 2, "linear"), ("batch_norm", 0.9), ("relu",)),
        ("Conv2DTranspose", 1, 4, 2, "tanh"),
    ]
    assert stack(discriminator) == [
        *(("Conv2D", 64, 4, 2, "linear"), ("leaky_relu", 0.1), ("dropout", 0.4)),
        *(("Conv2D", 128, 4, 2, "linear"), ("leaky_relu", 0.1), ("dropout", 0.4)),
        ("dense", 1),
    ]
    kernels = [layer for network in (generator, discriminator) for layer in network.layers if hasattr(layer, "kernel")]
    assert all(isinstance(layer.kernel_initializer, keras.initializers.HeNormal) for layer in kernels)


def test_dcgan_dropout_has_its_layers():
    options = {
        "generator_filters": [256, 128, 64],
        "generator_strides": [1, 2, 2],
        "generator_activation": "leaky_relu",
        "kernel_size": 5,
        "discriminator_filters": [32, 64, 128, 256],
        "discriminator_strides": [2, 2, 2, 1],
        "discriminator_kernel_size": 3,
        "batch_norm_momentum": 0.8,
        "dropout": 0.25,
    }
    assert stack(build("generator", options)) == [
        *(("dense", 7 * 7 * 256), ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        *(("Conv2DTranspose", 128, 5, 1, "linear"), ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        *(("Conv2DTranspose", 64, 5, 2, "linear"), ("batch_norm", 0.8), ("leaky_relu", 0.2)),
        ("Conv2DTranspose", 1, 5, 2, "tanh"),
    ]
    normalized = ("batch_norm", 0.8), ("leaky_relu", 0.2), ("dropout", 0.25)
    assert stack(build("discriminator", options)) == [
        *(("Conv2D", 32, 3, 2, "linear"), ("leaky_relu", 0.2), ("dropout", 0.25)),
        *(("Conv2D", 64, 3, 2, "linear"), *normalized),
        *(("Conv2D", 128, 3, 2, "linear"), *normalized),
        *(("Conv2D", 256, 3, 1, "linear"), *normalized),
        ("dense", 1),
    ]


@pytest.mark.parametrize("kernel_size", [4, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_paper_has_the_layers_of_the_paper(kernel_size, channels):
    options = PAPER | {"kernel_size": kernel_size}
    normalized = ("batch_norm", 0.9), ("relu",)
    assert stack(build("generator", options, (64, 64, channels))) == [
        *(("Conv2DTranspose", 512, 4, 1, "linear"), *normalized),
        *(("Conv2DTranspose", 256, kernel_size, 2, "linear"), *normalized),
        *(("Conv2DTranspose", 128, kernel_size, 2, "linear"), *normalized),
        *(("Conv2DTranspose", 64, kernel_size, 2, "linear"), *normalized),
        ("Conv2DTranspose", channels, kernel_size, 2, "tanh"),
    ]
    normalized = ("batch_norm", 0.9), ("leaky_relu", 0.2)
    assert stack(build("discriminator", options, (64, 64, channels))) == [
        *(("Conv2D", 64, kernel_size, 2, "linear"), ("leaky_relu", 0.2)),
        *(("Conv2D", 128, kernel_size, 2, "linear"), *normalized),
        *(("Conv2D", 256, kernel_size, 2, "linear"), *normalized),
        *(("Conv2D", 512, kernel_size, 2, "linear"), *normalized),
        ("WholeMapConv2D", 1, 4, 1, "linear"),
    ]


def test_dcgan_paper_has_no_dense_layers_and_narrow_normal_kernels():
    for name in ("generator", "discriminator"):
        network = build(name, PAPER, (64, 64, 1))
        kinds = {type(layer).__name__ for layer in network.layers}
        assert kinds <= {
            *("InputLayer", "Reshape", "Conv2D", "Conv2DTranspose", "WholeMapConv2D"),
            *("BatchNormalization", "ReLU", "LeakyReLU"),
        }
        for layer in network.layers:
            if hasattr(layer, "kernel"):
                assert isinstance(layer.kernel_initializer, keras.initializers.RandomNormal)
                assert layer.kernel_initializer.stddev == 0.02
            if isinstance(layer, keras.layers.BatchNormalization):
                assert (layer.gamma.numpy() == 1).all()


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("shape", [(28, 28, 1), (30, 21, 3)])
def test_networks_without_dense_layers_fit_any_shape(shape, spectral_norm):
    options = PAPER | {
        "generator_filters": [8, 4],
        "generator_strides": [2, 2],
        "discriminator_filters": [4, 8],
        "spectral_norm": spectral_norm,
    }
    images = build("generator", options, shape)(tf.zeros([2, 100]))
    assert images.shape == (2, *shape)
    discriminator = build("discriminator", options, shape)
    assert discriminator(images).shape == (2, 1)
    assert discriminator.layers[-1].output.shape == (None, 1)


def test_dense_layers_follow_the_latents_and_precede_the_logit():
    options = {"generator_dense": [30, 20], "discriminator_dense": [10], "discriminator_batch_norm": "hidden"}
    assert stack(build("generator", options))[:6] == [
        *(("dense", 30), ("batch_norm", 0.9), ("relu",), ("dense", 20), ("batch_norm", 0.9), ("relu",)),
    ]
    end = [*(("dense", 10), ("batch_norm", 0.9), ("leaky_relu", 0.2)), ("dense", 1)]
    assert stack(build("discriminator", options))[-4:] == end
    plain = stack(build("discriminator", options | {"discriminator_batch_norm": "none"}))
    assert plain[-3:] == [end[0], *end[2:]]


def test_spectral_norm_applies_to_all_kernels_of_the_discriminator():
    options = {"spectral_norm": True, "discriminator_batch_norm": "none"}
    kinds = [type(layer).__name__ for layer in build("discriminator", options).layers if hasattr(layer, "kernel")]
    assert kinds == ["SpectralConv2D", "SpectralConv2D", "SpectralDense"]
    assert not [layer for layer in build("generator", options).layers if "Spectral" in type(layer).__name__]
    without_dense = build("discriminator", options | {"discriminator_head": "convolution"}).layers
    assert type(without_dense[-1]).__name__ == "SpectralWholeMapConv2D"


def test_a_whole_map_convolution_is_a_dense_layer_on_the_map():
    options = PAPER | {"discriminator_filters": [4], "discriminator_batch_norm": "none"}
    discriminator = build("discriminator", options, (8, 6, 1))
    images = tf.random.stateless_normal([3, 8, 6, 1], [0, 1])
    maps = keras.Model(discriminator.inputs, discriminator.layers[-1].input)(images)
    kernel, bias = discriminator.layers[-1].get_weights()
    expected = np.reshape(maps, [3, -1]) @ kernel.reshape(-1, 1) + bias
    np.testing.assert_allclose(discriminator(images), expected, atol=1e-6)
