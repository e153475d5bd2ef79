"""StyleGAN2's layers equal their definitions, and its networks have the published sizes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from refusals import check_refusal

from trainer import networks
from trainer.errors import NetworkError
from trainer.models.weight_limit import without_weights
from trainer.networks.layers import EqualizedConv2D, EqualizedDense, MinibatchStd, ModulatedConv2D, NoisyActivation
from trainer.networks.layers.modulation import _fixed_noise
from trainer.networks.layers.resampling import _filter_matrix, _resample, filter_maps
from trainer.networks.stylegan2 import VectorNormalization

PUBLISHED = {"channel_base": 16384, "max_filters": 512, "mapping_layers": 8, "mapping_units": 512}
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def normal(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 5])


def filtered(maps, up, padding):
    """Returns zero insertion, padding, and the filter, channel by channel, by NumPy."""
    batch, height, width, channels = maps.shape
    sparse = np.zeros((batch, height * up, width * up, channels))
    sparse[:, ::up, ::up] = maps
    sparse = np.pad(sparse, ((0, 0), padding, padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(sparse, (4, 4), axis=(1, 2))
    return np.einsum("bhwckl,kl->bhwc", windows, FILTER * up**2)


def naive_modulated(layer, maps, styles):
    """Returns the modulated convolution with a kernel for each image."""
    results = []
    for image, style in zip(maps, styles[:, layer.style_index], strict=True):
        scale = style @ layer.style_kernel.numpy() * styles.shape[2] ** -0.5 + layer.style_bias.numpy()
        kernel = layer.kernel.numpy() * np.prod(layer.kernel.shape[:3]) ** -0.5 * scale[:, np.newaxis]
        if layer.demodulates:
            kernel /= np.sqrt(np.sum(kernel**2, axis=(0, 1, 2)) + 1e-8)
        kernel *= layer.gain
        if layer.doubles:
            sparse = np.zeros((1, *(2 * size - 1 for size in image.shape[:2]), image.shape[2]), np.float32)
            sparse[:, ::2, ::2] = image
            padded = np.pad(sparse, ((0, 0), (2, 2), (2, 2), (0, 0)))
            wide = tf.nn.conv2d(padded, kernel[::-1, ::-1], 1, "VALID").numpy()
            results.append(filtered(wide, 1, (1, 1))[0] * 4)
        else:
            results.append(tf.nn.conv2d(image[np.newaxis], kernel, 1, "SAME").numpy()[0])
    return np.stack(results)


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (3, {}),
        (3, {"doubles": True, "gain": 2.0}),
        (1, {"gain": 2.0}),
        (1, {"demodulates": False, "gain": 2.0}),
        (3, {"demodulates": False}),
    ],
)
def test_a_modulated_convolution_equals_one_with_a_kernel_per_image(size, settings):
    keras.utils.set_random_seed(0)
    layer = ModulatedConv2D(5, size, 1, **settings)
    maps, styles = normal(3, 6, 4, 7).numpy(), normal(3, 2, 8, seed=1).numpy()
    np.testing.assert_allclose(layer([maps, styles]), naive_modulated(layer, maps, styles), rtol=1e-3, atol=1e-5)


def test_demodulation_gives_a_variance_of_one():
    keras.utils.set_random_seed(0)
    layer = ModulatedConv2D(16, 3, 0)
    outputs = layer([normal(64, 8, 8, 12), 5 * normal(64, 1, 8, seed=1)])[:, 1:-1, 1:-1]
    np.testing.assert_allclose(np.var(outputs, axis=(1, 2, 3)).mean(), 1, rtol=0.05)


@pytest.mark.parametrize(("up", "down", "padding"), [(2, 1, (2, 1)), (1, 2, (1, 1)), (1, 1, (2, 2))])
def test_maps_are_filtered_by_1_3_3_1(up, down, padding):
    maps = normal(2, 6, 4, 3)
    expected = filtered(maps.numpy(), up, padding)[:, ::down, ::down]
    np.testing.assert_allclose(filter_maps(maps, up, down, padding), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (0, 3)])
def test_the_derivatives_of_the_filter_are_those_of_its_matrices(padding):
    maps, upstream = normal(2, 6, 4, 3), normal(2, *(size + sum(padding) - 3 for size in (6, 4)), 3, seed=1)

    def derivatives(function):
        with tf.GradientTape() as outer:
            outer.watch([maps, upstream])
            with tf.GradientTape() as tape:
                tape.watch(maps)
                outputs = function(maps)
            gradient = tape.gradient(outputs, maps, upstream)
        return [outputs, gradient, outer.gradient(gradient, upstream, maps)]

    def matrices(maps):
        return _resample(maps, *(_filter_matrix(size, 1, 1, padding) for size in (6, 4)))

    for value, expected in zip(
        derivatives(lambda maps: filter_maps(maps, 1, 1, padding)), derivatives(matrices), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("settings", "gain"), [({}, 1), ({"scales_maps": False}, 2**0.5)])
def test_an_activation_equals_its_definition(settings, gain):
    keras.utils.set_random_seed(0)
    layer = NoisyActivation(3, **settings)
    layer.build((None, 4, 6, 2))
    layer.strength.assign(0.3)
    layer.bias.assign([0.1, -0.2])
    maps = normal(5, 4, 6, 2)
    noise = _fixed_noise(3, 24).reshape(1, 4, 6, 1)
    expected = 2**0.5 * tf.nn.leaky_relu(maps + 0.3 * noise + tf.constant([0.1, -0.2]), 0.2)
    np.testing.assert_allclose(layer(gain * maps), expected, rtol=1e-4, atol=1e-5)


def test_layers_start_with_a_variance_of_one_and_an_equalized_rate():
    keras.utils.set_random_seed(0)
    dense, conv = EqualizedDense(256, rate_multiplier=0.01), EqualizedConv2D(64, 3, activates=False)
    outputs = [dense(normal(64, 128)), conv(normal(8, 8, 8, 32))[:, 1:-1, 1:-1]]
    np.testing.assert_allclose([np.var(values) for values in outputs], 1, rtol=0.1)
    np.testing.assert_allclose([np.std(dense.kernel), np.std(conv.kernel)], [100, 1], rtol=0.05)
    np.testing.assert_allclose(np.mean(VectorNormalization()(7 * normal(4, 9)) ** 2, axis=1), 1, rtol=1e-4)


def test_the_minibatch_deviation_is_that_of_consecutive_images():
    maps = normal(6, 2, 2, 3).numpy()
    outputs = MinibatchStd(3)(maps).numpy()
    expected = [np.std(maps[:3], axis=0).mean()] * 3 + [np.std(maps[3:], axis=0).mean()] * 3
    np.testing.assert_array_equal(outputs[..., :3], maps)
    np.testing.assert_allclose(outputs[..., 3], np.broadcast_to(np.reshape(expected, (6, 1, 1)), (6, 2, 2)), rtol=1e-4)
    np.testing.assert_array_equal(outputs[3:], MinibatchStd(3)(maps[3:]))  # as on the second of two replicas


def test_a_batch_without_whole_groups_is_refused():
    check_refusal(lambda: MinibatchStd(4)(normal(6, 2, 2, 3)), NetworkError, "group_size")


def test_noise_is_random_in_training_and_fixed_in_inference():
    layer = NoisyActivation(3)
    layer.build((None, 8, 8, 2))
    layer.strength.assign(1.0)
    maps = tf.ones([2, 8, 8, 2])
    fixed, random = layer(maps), layer(maps, training=True)
    np.testing.assert_array_equal(fixed[0], fixed[1])
    np.testing.assert_array_equal(fixed, layer(maps))
    assert np.std(random[0] - random[1]) > 0.5
    np.testing.assert_array_equal(random[..., 0], random[..., 1])


def test_networks_have_the_published_numbers_of_weights():
    """The published networks for 256×256 have 24.77 and 24.00 million weights."""
    with without_weights():
        factories = networks.build("stylegan2", (256, 256, 3), 512, 0, "tanh", PUBLISHED)
        sizes = {
            name: sum(int(np.prod(weight.shape)) for weight in factory().trainable_weights)
            for name, factory in factories.items()
        }
    assert sizes == {"generator": pytest.approx(24.77e6, rel=0.01), "discriminator": pytest.approx(24.0e6, rel=0.01)}
