"""The fast layers have the same results as Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.networks.layers import BatchNormalization, Conv2D, Conv2DTranspose, Dropout
from trainer.networks.layers.cpu_kernels import convolutions
from trainer.networks.layers.dropout import MAX_DROPOUT_RATE
from trainer.training.optimizers import FusedAdam, apply_where, clone


def gradients(layer, inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True) if isinstance(layer, keras.layers.BatchNormalization) else layer(inputs)
    sources = [inputs, *(variable.value for variable in layer.trainable_variables)]
    return [outputs, *tape.gradient(outputs, sources, output_gradients=upstream)]


def rounded(values):
    """Returns the values as float32 numbers that bfloat16 has, too."""
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


def twins(ours, theirs, shape):
    """Returns the outputs, gradients and buffers of our layer and Keras's layer with the same weights."""
    rng = np.random.default_rng(0)
    inputs = rounded(rng.normal(size=shape))
    for layer in (ours, theirs):
        layer.build(shape)
    values = [rounded(rng.normal(1, 0.3, size=weight.shape)) for weight in theirs.weights]
    for layer in (ours, theirs):
        layer.set_weights(values)
    upstream = rounded(rng.normal(size=theirs(inputs).shape))
    results = []
    for layer in (ours, theirs):
        tensors = gradients(layer, *(tf.cast(values, layer.compute_dtype) for values in (inputs, upstream)))
        results.append(
            [tf.cast(tensor, tf.float32) for tensor in [*tensors, *(weight.value for weight in layer.weights)]]
        )
    return zip(*results, strict=True)


def assert_close_in_bfloat16(results):
    """Checks that our layer, in bfloat16, rounds a few times what Keras's layer computes in float32."""
    for our_values, their_values in results:
        scale = np.std(their_values) + 1e-6
        np.testing.assert_allclose(our_values, their_values, atol=0.04 * scale, rtol=0.02)


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


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("kernel_size", "use_bias"), [(4, True), ((2, 3), False), (1, True)])
def test_a_transposed_convolution_of_one_pixel_is_keras_own(kernel_size, use_bias, dtype):
    settings = {"filters": 6, "kernel_size": kernel_size, "use_bias": use_bias}
    ours, theirs = Conv2DTranspose(**settings, dtype=dtype), keras.layers.Conv2DTranspose(**settings)
    results = twins(ours, theirs, (3, 1, 1, 8))
    if dtype == "mixed_bfloat16":
        assert_close_in_bfloat16(results)
        return
    for our_values, their_values in results:
        np.testing.assert_allclose(our_values, their_values, atol=1e-5)


BFLOAT16_CASES = {
    "thin": (Conv2D, {"filters": 8, "kernel_size": 4, "strides": 2}, (2, 12, 8, 3), "thin_conv"),
    "thin transpose": (
        Conv2DTranspose,
        {"filters": 3, "kernel_size": 5, "strides": 2},
        (2, 6, 4, 8),
        "thin_conv_transpose",
    ),
    "fourier": (Conv2DTranspose, {"filters": 3, "kernel_size": 5}, (2, 7, 7, 4), "fourier_conv_transpose"),
    "wide": (Conv2D, {"filters": 7, "kernel_size": 4, "strides": 2}, (2, 8, 6, 5), "wide_conv"),
    "wide of stride 1": (Conv2D, {"filters": 7, "kernel_size": 3}, (2, 4, 3, 5), "wide_conv"),
    "wide transpose": (
        Conv2DTranspose,
        {"filters": 7, "kernel_size": 4, "strides": 2},
        (2, 4, 4, 5),
        "wide_conv_transpose",
    ),
    "wide transpose of odd kernel": (
        Conv2DTranspose,
        {"filters": 7, "kernel_size": 5, "strides": 2},
        (2, 3, 2, 5),
        "wide_conv_transpose",
    ),
}


@pytest.mark.parametrize("case", BFLOAT16_CASES)
def test_a_fast_convolution_in_bfloat16_is_keras_own(case, monkeypatch):
    layer, settings, shape, kernel = BFLOAT16_CASES[case]
    monkeypatch.setattr(convolutions, "_MIN_FOURIER_CHANNELS", 1)
    monkeypatch.setattr(convolutions, "_MIN_WIDE_CHANNELS", 5)
    used, fast = [], getattr(convolutions, kernel)
    monkeypatch.setattr(convolutions, kernel, lambda *arguments: used.append(kernel) or fast(*arguments))
    theirs = next(base for base in layer.__mro__ if base.__module__.startswith("keras."))
    settings |= {"padding": "same"}
    assert_close_in_bfloat16(twins(layer(**settings, dtype="mixed_bfloat16"), theirs(**settings), shape))
    assert used


@pytest.mark.parametrize(
    ("layer", "settings", "shape", "is_supported"),
    [
        (Conv2D, {"filters": 256, "kernel_size": 4, "strides": 2}, (1, 8, 8, 256), True),
        (Conv2D, {"filters": 256, "kernel_size": 3}, (1, 4, 4, 300), True),
        (Conv2DTranspose, {"filters": 256, "kernel_size": 4, "strides": 2}, (1, 4, 4, 512), True),
        (Conv2D, {"filters": 256, "kernel_size": 4, "strides": 2}, (1, 7, 7, 256), False),  # 7 is not a multiple of 2
        (Conv2D, {"filters": 256, "kernel_size": 4, "strides": 2}, (1, 16, 16, 256), False),
        (Conv2D, {"filters": 256, "kernel_size": 4, "strides": 2}, (1, 8, 8, 128), False),
        (Conv2D, {"filters": 256, "kernel_size": 4, "strides": 2, "padding": "valid"}, (1, 8, 8, 256), False),
        (Conv2D, {"filters": 256, "kernel_size": 4, "strides": 2, "dtype": "float32"}, (1, 8, 8, 256), False),
        (Conv2D, {"filters": 256, "kernel_size": 3, "groups": 2}, (1, 4, 4, 512), False),
        (Conv2D, {"filters": 256, "kernel_size": 3}, (1, None, None, 512), False),
        (Conv2DTranspose, {"filters": 128, "kernel_size": 4, "strides": 2}, (1, 4, 4, 256), False),
        (Conv2DTranspose, {"filters": 256, "kernel_size": 4, "strides": 2}, (1, 8, 8, 512), False),
    ],
)
def test_wide_kernels_are_for_small_maps_of_many_channels(layer, settings, shape, is_supported):
    layer = layer(**{"padding": "same", "dtype": "mixed_bfloat16"} | settings)
    layer.build(shape)
    assert convolutions.supports_wide_kernel(layer, keras.KerasTensor(shape, layer.compute_dtype)) == is_supported


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 5)])
def test_batch_normalization_in_bfloat16_has_float32_moments(shape):
    ours, theirs = (
        BatchNormalization(momentum=0.8, dtype="mixed_bfloat16"),
        keras.layers.BatchNormalization(momentum=0.8),
    )
    results = [*twins(ours, theirs, shape)]
    assert_close_in_bfloat16(results)
    for our_moment, their_moment in results[-2:]:
        np.testing.assert_allclose(our_moment, their_moment, atol=2e-5)


def test_batch_normalization_in_bfloat16_has_second_derivatives():
    layer = BatchNormalization(dtype="mixed_bfloat16")
    images = tf.random.stateless_normal([4, 3, 3, 5], [0, 1])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(images)
            outputs = tf.reduce_sum(tf.cast(layer(images, training=True), tf.float32) ** 3)
        penalty = tf.reduce_sum(tf.square(inner.gradient(outputs, images)))
    gradient = outer.gradient(penalty, layer.gamma.value)
    assert gradient.dtype == tf.float32 and np.isfinite(gradient).all() and np.any(gradient)


@pytest.mark.parametrize("kind", ["thin", "wide"])
def test_fast_convolutions_have_second_derivatives(kind):
    convolve_fast = {"thin": convolutions.thin_conv, "wide": convolutions.wide_conv}[kind]
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

    ours = penalty(lambda images: convolve_fast(images, kernel, 2))
    theirs = penalty(lambda images: tf.nn.conv2d(images, kernel, 2, "SAME"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


def test_dropout_drops_its_share_and_scales_the_rest():
    outputs = Dropout(0.3)(tf.ones([200, 50]), training=True).numpy()
    assert abs((outputs == 0).mean() - 0.3) < 0.02
    np.testing.assert_allclose(outputs[outputs != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(Dropout(0.3)(tf.ones([4, 5]), training=False), np.ones([4, 5]))


def test_the_largest_dropout_rate_drops_almost_everything():
    outputs = Dropout(MAX_DROPOUT_RATE)(tf.ones([200, 50]), training=True).numpy()
    assert (outputs == 0).mean() > 0.999


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


def test_a_failed_conditional_update_leaves_no_condition_behind():
    weights = [keras.Variable(np.ones(3, np.float32))]
    optimizer = clone(keras.optimizers.Adam(0.01))
    optimizer.build(weights)
    with pytest.raises(tf.errors.InvalidArgumentError):
        apply_where(tf.constant(True), optimizer, [tf.ones(2)], weights)
    assert optimizer.condition is None


def test_other_optimizers_are_cloned_as_they_are():
    optimizer = keras.optimizers.RMSprop(0.1, rho=0.8)
    assert type(clone(optimizer)) is keras.optimizers.RMSprop
    assert clone(optimizer).get_config() == optimizer.get_config()
