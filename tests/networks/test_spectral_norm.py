"""Layers with spectral normalization use kernels with a largest singular value of 1, and have the matching gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan

from trainer.networks.layers import (
    Conv2D,
    PoolingConv2D,
    SpectralConv2D,
    SpectralDense,
    SpectralPoolingConv2D,
    SpectralWholeMapConv2D,
    WholeMapConv2D,
    layer_class,
)

CASES = {
    "dense": (SpectralDense, {"units": 7}, (4, 9)),
    "convolution": (SpectralConv2D, {"filters": 7, "kernel_size": 3, "padding": "same"}, (4, 6, 6, 5)),
    "thin": (SpectralConv2D, {"filters": 7, "kernel_size": 4, "strides": 2, "padding": "same"}, (4, 6, 6, 1)),
    "pooling": (SpectralPoolingConv2D, {"filters": 7, "kernel_size": 3}, (4, 6, 6, 5)),
    "whole_map": (SpectralWholeMapConv2D, {"filters": 7, "kernel_size": 3}, (4, 3, 3, 5)),
}


def layer_and_inputs(case: str) -> tuple[keras.layers.Layer, tf.Tensor]:
    """Returns a layer with random weights, and inputs for it."""
    cls, settings, shape = CASES[case]
    layer, rng = cls(**settings), np.random.default_rng(0)
    layer.build(shape)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer, tf.constant(rng.normal(size=shape), tf.float32)


def converge(layer: keras.layers.Layer) -> None:
    """Sets the vector to the limit of the power iteration."""
    layer.singular_vector.assign(np.linalg.svd(matrix(layer.kernel))[2][0])


def matrix(kernel: np.ndarray) -> np.ndarray:
    kernel = np.asarray(kernel, np.float64)
    return kernel.reshape(-1, kernel.shape[-1])


def largest(kernel: np.ndarray) -> float:
    return np.linalg.svd(matrix(kernel), compute_uv=False)[0]


@pytest.mark.parametrize("case", CASES)
def test_the_largest_singular_value_of_the_kernel_in_use_becomes_one(case):
    layer, _ = layer_and_inputs(case)
    assert largest(layer.kernel) > 1.5
    for _ in range(40):
        layer.normalized_kernel(training=True)
    assert largest(layer.normalized_kernel()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_a_layer_with_the_normalized_kernel(case):
    layer, inputs = layer_and_inputs(case)
    converge(layer)
    plain_classes = {SpectralDense: keras.layers.Dense, SpectralConv2D: Conv2D, SpectralPoolingConv2D: PoolingConv2D}
    plain = plain_classes.get(type(layer), WholeMapConv2D)(**CASES[case][1])
    assert layer_class(type(plain), True) is type(layer)
    plain.build(inputs.shape)
    kernel, bias, _ = layer.get_weights()
    plain.set_weights([kernel / largest(kernel), bias])
    np.testing.assert_allclose(layer(inputs), plain(inputs), rtol=1e-3, atol=1e-3)
    assert layer.compute_output_shape(inputs.shape) == layer(inputs).shape


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_normalized_kernel(case):
    layer, inputs = layer_and_inputs(case)
    converge(layer)
    with tf.GradientTape() as tape:
        outputs = layer(inputs)
        weights = tf.constant(np.random.default_rng(1).normal(size=outputs.shape), tf.float32)
        loss = tf.reduce_sum(outputs * weights)
    gradient = tape.gradient(loss, layer.kernel.value).numpy()
    kernel = layer.kernel.numpy()
    direction = np.random.default_rng(2).normal(size=kernel.shape).astype(np.float32)

    def loss_at(step: float) -> float:
        layer.kernel.assign(kernel + step * direction)
        converge(layer)
        return float(tf.reduce_sum(layer(inputs) * weights))

    expected = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2
    assert np.sum(gradient * direction) == pytest.approx(expected, rel=2e-2, abs=2e-2)
    assert np.sum(gradient * kernel) == pytest.approx(
        0, abs=1e-3
    )  # The norm of the kernel does not affect the outputs.


def test_training_updates_the_vector_and_not_the_kernel():
    layer = SpectralDense(5)
    layer.build((2, 4))
    kernel, _, vector = (weight.numpy().copy() for weight in layer.weights)
    layer(tf.ones([2, 4]), training=False)
    np.testing.assert_array_equal(layer.singular_vector.numpy(), vector)
    layer(tf.ones([2, 4]), training=True)
    assert (layer.singular_vector.numpy() != vector).any()
    np.testing.assert_array_equal(layer.kernel.numpy(), kernel)


def test_normalization_is_in_float32_under_mixed_precision():
    layer, rng = SpectralConv2D(6, 3, dtype="mixed_bfloat16"), np.random.default_rng(0)
    layer.build((2, 8, 8, 4))
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    converge(layer)
    assert layer(tf.ones([2, 8, 8, 4]), training=True).dtype == tf.bfloat16
    assert layer.singular_vector.dtype == "float32"
    np.testing.assert_allclose(layer.singular_vector.numpy(), np.linalg.svd(matrix(layer.kernel))[2][0], atol=1e-3)
    assert largest(tf.cast(layer.normalized_kernel(), tf.float32)) == pytest.approx(1, abs=1e-3)


def test_replicas_have_equal_vectors_after_training(digits, two_replicas):
    options = {
        "generator_filters": [4],
        "generator_strides": [4],
        "discriminator_filters": [4, 4],
        "discriminator_batch_norm": "none",
        "spectral_norm": True,
    }
    gan = tiny_gan("dcgan", two_replicas, architecture_options=options, update_order="simultaneous")
    before = [layer.singular_vector.numpy() for layer in gan.discriminator.layers if hasattr(layer, "singular_vector")]
    gan.fit(digits.images[:64], steps=1, batch_size=16, verbose=0)
    layers = [layer for layer in gan.discriminator.layers if hasattr(layer, "singular_vector")]
    assert len(layers) == 3
    for layer, old in zip(layers, before, strict=True):
        first, second = (
            value.numpy() for value in two_replicas.experimental_local_results(layer.singular_vector.value)
        )
        np.testing.assert_array_equal(first, second)
        assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
        assert np.abs(first - old).max() > 0
