"""The fast layers have the same results as Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.networks.layers import BatchNormalization, Conv2D, Conv2DTranspose, Dropout
from trainer.networks.layers.cpu_kernels import convolutions
from trainer.training.optimizers import FusedAdam, clone


def gradients(layer, inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True) if isinstance(layer, keras.layers.BatchNormalization) else layer(inputs)
    sources = [inputs, *(variable.value for variable in layer.trainable_variables)]
    return [outputs, *tape.gradient(outputs, sources, output_gradients=upstream)]


def twins(ours, theirs, shape):
    """Returns the outputs, gradients and buffers of our layer and Keras's layer with the same weights."""
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=shape), tf.float32)
    for layer in (ours, theirs):
        layer.build(shape)
    values = [rng.normal(1, 0.3, size=weight.shape) for weight in theirs.weights]
    for layer in (ours, theirs):
        layer.set_weights(values)
    upstream = tf.constant(rng.normal(size=theirs(inputs).shape), tf.float32)
    results = [gradients(layer, inputs, upstream) + [w.numpy() for w in layer.weights] for layer in (ours, theirs)]
    return zip(*results, strict=True)


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 5)])
def test_batch_normalization_trains_as_keras_does(shape):
    for ours, theirs in twins(BatchNormalization(momentum=0.8), keras.layers.BatchNormalization(momentum=0.8), shape):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize(("kernel_size", "channels"), [(4, 1), (5, 1), (5, 3), (3, 1)])
def test_a_convolution_of_thin_images_is_keras_own(kernel_size, channels):
    settings = {"filters": 8, "kernel_size": kernel_size, "strides": 2, "padding": "same"}
    for ours, theirs in twins(Conv2D(**settings), keras.layers.Conv2D(**settings), (2, 12, 8, channels)):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("kernel_size", "channels"), [(4, 1), (5, 1), (5, 3), (3, 2), (2, 1)])
def test_a_transposed_convolution_to_thin_images_is_keras_own(kernel_size, channels):
    settings = {"filters": channels, "kernel_size": kernel_size, "strides": 2, "padding": "same", "activation": "tanh"}
    for ours, theirs in twins(Conv2DTranspose(**settings), keras.layers.Conv2DTranspose(**settings), (2, 6, 4, 8)):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("size", [(7, 7), (6, 8)])
def test_a_fourier_convolution_is_keras_own(size, monkeypatch):
    monkeypatch.setattr(convolutions, "_MIN_FOURIER_CHANNELS", 1)
    settings = {"filters": 3, "kernel_size": 5, "strides": 1, "padding": "same"}
    layer, inputs = Conv2DTranspose(**settings), tf.zeros((2, *size, 4))
    layer.build(inputs.shape)
    assert convolutions.supports_fourier_kernel(layer, inputs)
    for ours, theirs in twins(Conv2DTranspose(**settings), keras.layers.Conv2DTranspose(**settings), (2, *size, 4)):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_thin_convolutions_have_second_derivatives():
    kernel = tf.random.stateless_normal([4, 4, 1, 8], [0, 1])

    def penalty(convolve):
        images = tf.random.stateless_normal([2, 8, 8, 1], [0, 2])
        with tf.GradientTape() as outer:
            outer.watch(kernel)
            with tf.GradientTape() as inner:
                inner.watch(images)
                outputs = tf.reduce_sum(tf.square(convolve(images)))
            penalty_value = tf.reduce_sum(tf.square(inner.gradient(outputs, images)))
        return outer.gradient(penalty_value, kernel)

    ours = penalty(lambda images: convolutions.thin_conv(images, kernel, 2))
    theirs = penalty(lambda images: tf.nn.conv2d(images, kernel, 2, "SAME"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


def test_dropout_drops_its_share_and_scales_the_rest():
    outputs = Dropout(0.3)(tf.ones([200, 50]), training=True).numpy()
    assert abs((outputs == 0).mean() - 0.3) < 0.02
    np.testing.assert_allclose(outputs[outputs != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(Dropout(0.3)(tf.ones([4, 5]), training=False), np.ones([4, 5]))


def test_dropout_masks_differ_from_call_to_call_and_sample_to_sample():
    layer = Dropout(0.5)
    first, second = (layer(tf.ones([8, 64]), training=True).numpy() for _ in range(2))
    assert (first != second).any()
    assert len({row.tobytes() for row in first}) == 8


def test_fused_adam_is_keras_adam_with_the_same_slots():
    variables = [[keras.Variable(np.ones((3, 2), np.float32))] for _ in range(2)]
    plain = keras.optimizers.Adam(0.01, beta_1=0.5, beta_2=0.9)
    fused = clone(plain)
    assert isinstance(fused, FusedAdam)
    for optimizer, weights in zip((plain, fused), variables, strict=True):
        optimizer.build(weights)
        for step in range(5):
            optimizer.apply([tf.fill([3, 2], 0.3 * step - 0.5)], weights)
    for ours, theirs in zip([*fused.variables, *variables[1]], [*plain.variables, *variables[0]], strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


def test_other_optimizers_are_cloned_as_they_are():
    optimizer = keras.optimizers.RMSprop(0.1, rho=0.8)
    assert type(clone(optimizer)) is keras.optimizers.RMSprop
    assert clone(optimizer).get_config() == optimizer.get_config()
