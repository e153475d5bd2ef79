"""The upsampling networks have the documented layers, and their joined layers equal Keras's layers in sequence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import networks
from trainer.networks.layers import PoolingConv2D, UpsamplingConv2D


def stack(network: keras.Model) -> list[tuple[object, ...]]:
    """Returns a description of each layer of a network in order, without inputs."""
    described: list[tuple[object, ...]] = []
    for layer in network.layers:
        match type(layer).__name__:
            case "Dense":
                described.append(("dense", layer.units))
            case "UpsamplingConv2D" | "Conv2D" | "Conv2DTranspose" as kind:
                settings = layer.filters, layer.kernel_size[0], layer.strides[0], layer.activation.__name__
                described.append((kind, *settings))
            case "Dropout":
                described.append(("dropout", layer.rate))
            case "Reshape":
                described.append(("map", *layer.target_shape))
            case kind:
                described.append((kind,))
    return described


def test_dcgan_upsampling_has_its_layers():
    factories = networks.build("upsampling", (32, 32, 1), 100, 0, "sigmoid", {})
    normalized = ("BatchNormalization",), ("ReLU",)
    assert stack(factories["generator"]()) == [
        *(("dense", 4 * 4 * 256), *normalized, ("map", 4, 4, 256)),
        *(("UpsamplingConv2D", 128, 3, 1, "linear"), *normalized),
        *(("UpsamplingConv2D", 64, 3, 1, "linear"), *normalized),
        *(("Conv2DTranspose", 32, 4, 2, "linear"), ("ReLU",)),
        ("Conv2DTranspose", 1, 4, 1, "sigmoid"),
    ]
    assert stack(factories["discriminator"]()) == [
        *(("Conv2D", 32, 4, 2, "linear"), ("ReLU",), ("dropout", 0.3)),
        *(("Conv2D", 64, 4, 2, "linear"), ("ReLU",), ("dropout", 0.3)),
        *(("Flatten",), ("dense", 1)),
    ]


@pytest.mark.parametrize("shape", [(28, 28, 1), (30, 21, 3), (8, 8, 1)])
def test_networks_fit_any_shape(shape):
    options = {"generator_filters": [8, 4, 4, 4], "discriminator_filters": [4]}
    factories = networks.build("upsampling", shape, 8, 2, "tanh", options)
    assert factories["generator"]()(tf.zeros([2, 10])).shape == (2, *shape)
    assert factories["discriminator"]()(tf.zeros([2, *shape[:2], shape[2] + 2])).shape == (2, 1)


def results(layers: list[keras.layers.Layer], inputs: tf.Tensor, values: list[np.ndarray]) -> list[tf.Tensor]:
    """Returns the outputs of a stack with the weights, its first derivatives and a second one."""
    network = keras.Sequential([keras.Input(inputs.shape[1:]), *layers])
    network.set_weights(values)
    kernel = network.trainable_variables[0].value
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = network(inputs)
            loss = tf.reduce_sum(tf.sin(outputs))
        input_gradient, kernel_gradient = tape.gradient(loss, [inputs, kernel])
    return [outputs, input_gradient, kernel_gradient, outer.gradient([input_gradient, kernel_gradient], kernel)]


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("kind", ["up", "down"])
def test_a_joined_resampling_convolution_is_keras_own_two_layers(kind, kernel_size):
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(2, 6, 4, 3)), tf.float32)
    values = [rng.normal(size=(kernel_size, kernel_size, 3, 5)), rng.normal(size=5)]
    plain = keras.layers.Conv2D(5, kernel_size, padding="same", activation="tanh" if kind == "up" else None)
    if kind == "up":
        ours = [UpsamplingConv2D(5, kernel_size, activation="tanh")]
        theirs = [keras.layers.UpSampling2D(2), plain]
    else:
        ours, theirs = [PoolingConv2D(5, kernel_size)], [plain, keras.layers.AveragePooling2D(2)]
    for mine, expected in zip(results(ours, inputs, values), results(theirs, inputs, values), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-3)


def test_a_resampling_convolution_is_made_again_from_its_config():
    for layer in (UpsamplingConv2D(5, 3, use_bias=False), PoolingConv2D(5, (3, 1))):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
