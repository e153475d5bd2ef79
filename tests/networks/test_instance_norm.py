"""Instance normalization and its derivatives follow the formula, with the fused kernel and with plain operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.networks.layers import instance_norm
from trainer.networks.layers.instance_norm import InstanceNormalization

SHAPES = [(1, 6, 5, 3), (2, 64, 32, 32), (3, 6, 5, 4), (9, 64, 32, 32)]
FUSED = [True, True, False, False]


def layer_and_inputs(shape):
    rng = np.random.default_rng(0)
    layer = InstanceNormalization()
    layer.build(shape)
    layer.set_weights([rng.normal(1, 0.3, shape[-1]), rng.normal(0, 0.3, shape[-1])])
    return layer, tf.constant(rng.normal(3, 2, shape), tf.float32)


def keras_layer(layer, shape):
    """Returns the equivalent Keras layer: group normalization with one channel per group."""
    twin = keras.layers.GroupNormalization(groups=-1, epsilon=layer.epsilon)
    twin.build(shape)
    twin.set_weights(layer.get_weights())
    return twin


@pytest.mark.parametrize(("shape", "is_fused"), list(zip(SHAPES, FUSED, strict=True)))
def test_instance_norm_is_group_norm_with_one_channel_per_group(shape, is_fused):
    assert instance_norm._uses_fused_kernel(tf.TensorShape(shape)) is is_fused
    layer, inputs = layer_and_inputs(shape)
    upstream = tf.random.stateless_normal(shape, [0, 1])
    results = []
    for each in (layer, keras_layer(layer, shape)):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = each(inputs)
        sources = [inputs, *(variable.value for variable in each.trainable_variables)]
        results.append([outputs, *tape.gradient(outputs, sources, output_gradients=upstream)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_the_gradient_of_a_gradient_penalty_is_keras_layer(shape):
    layer, inputs = layer_and_inputs(shape)
    penalty_gradients = []
    for each in (layer, keras_layer(layer, shape)):
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                outputs = tf.reduce_sum(tf.math.sin(each(inputs)))
            penalty = tf.reduce_sum(tf.square(inner.gradient(outputs, inputs)))
        penalty_gradients.append(outer.gradient(penalty, [inputs, each.trainable_variables[0].value]))
    for ours, theirs in zip(*penalty_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_a_new_layer_gives_every_channel_mean_0_and_variance_1():
    outputs = InstanceNormalization()(tf.random.stateless_normal([3, 8, 8, 2], [0, 1], mean=5.0, stddev=3.0)).numpy()
    np.testing.assert_allclose(outputs.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.var(axis=(1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (3, 8, 8, 2)])
def test_mixed_precision_computes_in_float32_and_returns_bfloat16(shape):
    inputs = tf.cast(tf.random.stateless_normal(shape, [0, 1], mean=50.0), tf.bfloat16)
    mixed = InstanceNormalization(dtype="mixed_bfloat16")
    outputs = mixed(inputs)
    assert outputs.dtype == tf.bfloat16
    assert {variable.dtype for variable in mixed.variables} == {"float32"}
    expected = tf.cast(InstanceNormalization()(tf.cast(inputs, tf.float32)), tf.bfloat16)
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32))


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    layer, images = layer_and_inputs((3, 6, 5, 4))
    np.testing.assert_allclose(layer(images)[:1], layer(images[:1]), rtol=1e-5, atol=1e-5)


def test_a_batch_of_unknown_size_works():
    layer, images = layer_and_inputs((3, 6, 5, 4))
    dynamic = tf.function(layer.__call__, input_signature=[tf.TensorSpec([None, 6, 5, 4])])
    np.testing.assert_allclose(dynamic(images), layer(images), rtol=1e-5, atol=1e-6)
