"""R3GAN's networks: shapes, initial state, and derivatives of every order that a penalty needs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import networks
from trainer.networks.layers import Downsample, GroupedConv2D, PointwiseConv2D, Upsample
from trainer.networks.layers.label_projection import LabelProjection
from trainer.networks.r3gan import BiasedLeakyReLU, LearnedMap, MapReadout

TINY = {"generator_filters": [8, 4], "discriminator_filters": [4, 8], "blocks_per_stage": 1, "group_size": 4}


def build(image_shape, condition_size=0, **options):
    """Returns generator and discriminator for a latent size of 8."""
    factories = networks.build("r3gan", image_shape, 8, condition_size, "tanh", options)
    return factories["generator"](), factories["discriminator"]()


def normal(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 7])


def derivatives(function, inputs, kernel):
    """Returns the values, the gradients, and the gradients of the sum of squared gradients."""
    with tf.GradientTape(persistent=True) as outer:
        outer.watch([inputs, kernel])
        with tf.GradientTape() as inner:
            inner.watch([inputs, kernel])
            outputs = function(inputs, kernel)
            total = tf.reduce_sum(tf.sin(outputs))
        first = inner.gradient(total, [inputs, kernel])
        penalty = tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in first])
    return [outputs, *first, *outer.gradient(penalty, [inputs, kernel])]


def layer_function(layer, shape):
    """Returns a function of (inputs, weight) that runs a layer with the weight."""
    layer.build(shape)

    def function(inputs, value):
        with keras.StatelessScope([(layer.trainable_variables[0], value)]):
            return layer(inputs)

    return function


@pytest.mark.parametrize(
    ("image_shape", "base"), [((28, 28, 1), (7, 7)), ((32, 32, 3), (4, 4)), ((20, 12, 3), (10, 6)), ((4, 8, 1), (4, 8))]
)
def test_images_are_halved_down_to_at_least_four_pixels(image_shape, base):
    generator, discriminator = build(image_shape, blocks_per_stage=1)
    maps = next(layer for layer in generator.layers if isinstance(layer, LearnedMap))
    readout = next(layer for layer in discriminator.layers if isinstance(layer, MapReadout))
    assert maps.map.shape[:2] == base
    assert readout.kernel.shape[:2] == base
    assert generator(normal(3, 8)).shape == (3, *image_shape)
    assert discriminator(normal(3, *image_shape)).shape == (3, 1)


def test_the_number_of_filters_sets_the_stages():
    generator, discriminator = build((16, 12, 1), generator_filters=[16], discriminator_filters=[8, 8, 16])
    assert not any(isinstance(layer, Upsample) for layer in generator.layers)
    assert sum(isinstance(layer, Downsample) for layer in discriminator.layers) == 2
    assert generator(normal(2, 8)).shape == (2, 16, 12, 1)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_grouped_convolution_is_one_with_a_block_diagonal_kernel(groups):
    size, outputs = 4, 2
    layer = GroupedConv2D(groups * outputs, 3, padding="same", groups=groups, use_bias=False)
    inputs, kernel = normal(2, 5, 4, groups * size), normal(3, 3, size, groups * outputs, seed=1) * 0.2

    def reference(inputs, kernel):
        blocks = tf.reshape(kernel, [3, 3, 1, size, groups, outputs]) * tf.eye(groups)[:, None, :, None]
        return tf.nn.conv2d(inputs, tf.reshape(blocks, [3, 3, groups * size, groups * outputs]), 1, "SAME")

    ours = derivatives(layer_function(layer, inputs.shape), inputs, kernel)
    for value, expected in zip(ours, derivatives(reference, inputs, kernel), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)


def test_a_grouped_convolution_applies_stride_bias_and_activation():
    settings = {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "valid", "activation": "tanh"}
    inputs = normal(2, 7, 7, 4)
    layer, dense = GroupedConv2D(groups=2, **settings), keras.layers.Conv2D(**settings)
    kernel, bias = normal(3, 3, 2, 4, seed=1), normal(4, seed=2)
    layer.build(inputs.shape)
    dense.build(inputs.shape)
    layer.set_weights([kernel, bias])
    zeros = tf.zeros([3, 3, 2, 2])
    dense.set_weights(
        [tf.concat([tf.concat([kernel[..., :2], zeros], 2), tf.concat([zeros, kernel[..., 2:]], 2)], 3), bias]
    )
    np.testing.assert_allclose(layer(inputs), dense(inputs), rtol=1e-4, atol=1e-5)


def test_a_pointwise_convolution_is_a_convolution():
    layer = PointwiseConv2D(3, use_bias=False)
    inputs, kernel = normal(2, 4, 3, 5), normal(5, 3, seed=1)
    ours = derivatives(layer_function(layer, inputs.shape), inputs, kernel)
    theirs = derivatives(lambda inputs, kernel: tf.nn.conv2d(inputs, kernel[None, None], 1, "SAME"), inputs, kernel)
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)


def test_the_activation_has_the_derivatives_of_a_leaky_relu():
    inputs, bias = normal(2, 4, 3, 5), normal(5, seed=1)
    ours = derivatives(layer_function(BiasedLeakyReLU(), inputs.shape), inputs, bias)
    theirs = derivatives(lambda inputs, bias: tf.nn.leaky_relu(inputs + bias, 0.2), inputs, bias)
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_resampling_filters_by_1_2_1_and_repeats_the_edges():
    row = tf.reshape(tf.constant([2.0, 4.0, 8.0, 0.0]), [1, 1, 4, 1])
    up, down = Upsample()(row), Downsample()(tf.repeat(row, 2, axis=1))
    np.testing.assert_allclose(up[0, :, :, 0], [[2, 3, 4, 6, 8, 4, 0, 0]] * 2)
    np.testing.assert_allclose(down[0, :, :, 0], [[2.5, 5]])
    column = tf.transpose(row, [0, 2, 1, 3])
    np.testing.assert_allclose(Upsample()(column)[0, :, 0, 0], up[0, 0, :, 0])


def test_a_block_is_the_identity_at_first():
    generator, discriminator = build((8, 8, 3), **TINY)
    for network in (generator, discriminator):
        for layer in network.layers:
            if isinstance(layer, keras.layers.Add):
                block = keras.Model(layer.input[0], layer.output)
                maps = normal(2, *layer.output.shape[1:])
                np.testing.assert_array_equal(block(maps), maps)


def test_activations_start_with_a_variance_of_about_one_at_every_depth():
    keras.utils.set_random_seed(0)
    generator, discriminator = build((16, 16, 3), blocks_per_stage=1)
    # Neighboring pixels are equal, because interpolation between independent ones would lower the variance.
    maps = next(layer for layer in generator.layers if isinstance(layer, LearnedMap)).map
    maps.assign(tf.broadcast_to(normal(1, 1, 64), maps.shape))
    images = tf.broadcast_to(normal(512, 1, 1, 3), [512, 16, 16, 3])
    for network, inputs in ((generator, normal(512, 8)), (discriminator, images)):
        stages = [layer.output for layer in network.layers if isinstance(layer, keras.layers.Add)]
        for activations in keras.Model(network.input, stages)(inputs):
            assert 0.5 < np.var(activations) < 1.6


def test_the_branches_of_all_blocks_add_a_variance_of_one():
    keras.utils.set_random_seed(0)
    _, discriminator = build((8, 8, 3), discriminator_filters=[64], blocks_per_stage=4)
    inner = [layer for layer in discriminator.layers if isinstance(layer, BiasedLeakyReLU)][1::2]
    branches = keras.Model(discriminator.input, [layer.output for layer in inner])(normal(64, 8, 8, 3))
    center = [np.mean(np.square(branch[:, 1:-1, 1:-1])) for branch in branches]
    np.testing.assert_allclose(center, 1 / 4, rtol=0.3)


def test_no_two_layers_start_alike():
    for network in build((8, 8, 3), **(TINY | {"blocks_per_stage": 2})):
        kernels = [variable.numpy().tobytes() for variable in network.trainable_variables if np.any(variable.numpy())]
        assert len(set(kernels)) == len(kernels)


def test_only_activations_have_biases():
    for network in build((8, 8, 3), **TINY):
        biases = sum("bias" in variable.path.rsplit("/", 1)[-1] for variable in network.trainable_variables)
        assert biases == sum(isinstance(layer, BiasedLeakyReLU) for layer in network.layers)


def test_an_unconditional_discriminator_ends_in_its_dense_layer():
    _, discriminator = build((8, 8, 3), **TINY)
    assert type(discriminator.layers[-1]) is keras.layers.Dense
    assert discriminator.layers[-1].input.shape == (None, 8)


def test_labels_change_images_and_logits():
    generator, discriminator = build((8, 8, 1), 3, **TINY)
    labels = tf.one_hot([0, 1, 2], 3)
    images = generator(tf.concat([tf.broadcast_to(normal(1, 8), [3, 8]), labels], 1))
    logits = discriminator([tf.broadcast_to(normal(1, 8, 8, 1), [3, 8, 8, 1]), labels])
    assert logits.shape == (3, 1)
    for outputs in (images, logits):
        assert np.ptp(np.reshape(outputs, [3, -1]), axis=0).min() > 1e-3


def test_the_projection_is_a_product_of_embedding_and_features():
    layer = LabelProjection()
    logits, features, labels = normal(2, 1), normal(2, 4, seed=1), tf.one_hot([2, 0], 3)
    outputs = layer([logits, features, labels])
    products = np.sum(layer.embeddings.numpy()[[2, 0]] * features, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs, logits + products / 2, rtol=1e-5)


@pytest.mark.parametrize("condition_size", [0, 3])
def test_under_bfloat16_blocks_are_bfloat16_and_outputs_float32(condition_size):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        generator, discriminator = build((8, 8, 1), condition_size, **TINY)
    finally:
        keras.config.set_dtype_policy("float32")
    labels = [tf.one_hot([0, 1], 3)] if condition_size else []
    images = generator(tf.concat([normal(2, 8), *labels], 1))
    assert images.dtype == tf.float32
    assert discriminator([images, *labels] if labels else images).dtype == tf.float32
    for network in (generator, discriminator):
        assert all(layer.output.dtype == "bfloat16" for layer in network.layers if isinstance(layer, keras.layers.Add))


def test_a_penalty_reaches_every_weight_that_it_depends_on():
    _, discriminator = build((8, 8, 3), **TINY)
    for variable in discriminator.trainable_variables:
        variable.assign(normal(*variable.shape, seed=len(variable.path)) * 0.3)

    @tf.function(autograph=False)
    def gradients(images):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(images)
                logits = tf.reduce_sum(discriminator(images))
            penalty = tf.reduce_sum(tf.square(inner.gradient(logits, images)))
        kernels = [variable.value for variable in discriminator.trainable_variables if "bias" not in variable.path]
        return outer.gradient(penalty, kernels)

    for gradient in gradients(normal(2, 8, 8, 3)):
        assert np.isfinite(gradient).all()
        assert np.any(gradient != 0)
