"""Layers of a generator that is controlled by styles: modulated convolutions, noise, and the average style.

Shapes: `B` images, `H W` map size, `C D` channels, `L` layers that take a style, `W` size of a style.
Source: arXiv 1912.04958, section 2.2.
"""

import functools
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from trainer.networks.layers.dropout import PER_SAMPLE_SEED
from trainer.networks.layers.equalized import ACTIVATION_GAIN, convolve
from trainer.networks.layers.leaky_relu import leaky_relu
from trainer.networks.layers.noise import draw_noise


@keras.saving.register_keras_serializable("trainer")
class ModulatedConv2D(layers.Layer):
    """A convolution whose input channels are scaled by a style: maps [B, H, W, C], styles [B, L, W] -> [B, H, W, D].

    Equivalent to one kernel per image. A 1×1 convolution is computed in this way, as a matrix product per image. For
    others, the inputs are scaled, convolved with the common kernel, and scaled again, so that the kernel of each image
    has unit norm. The scales are computed in float32.

    Args:
        filters: Number of output channels, D.
        kernel_size: Side of the kernel: 1 or 3.
        style_index: Index of the layer's style, from 0 to L-1.
        doubles: Whether to double and filter the maps. It needs a kernel of side 3.
        demodulates: Whether kernels have unit norm. If not, a bias is added.
        gain: Factor of the outputs.
        **kwargs: Arguments of Keras's `Layer`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        style_index: int,
        *,
        doubles: bool = False,
        demodulates: bool = True,
        gain: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**({"autocast": False} | kwargs))
        self.filters, self.kernel_size, self.style_index = filters, kernel_size, style_index
        self.doubles, self.demodulates, self.gain = doubles, demodulates, gain

    def build(self, input_shape: list[tuple[Any, ...]]) -> None:
        (*_, channels), (*_, style_size) = input_shape
        shapes = {
            "kernel": (self.kernel_size, self.kernel_size, channels, self.filters),
            "style_kernel": (style_size, channels),
        }
        for name, shape in shapes.items():
            initializer = keras.initializers.RandomNormal(stddev=1.0)
            setattr(self, name, self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False))
        self.style_bias = self.add_weight(shape=(channels,), initializer="ones", name="style_bias", autocast=False)
        if not self.demodulates:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias", autocast=False)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        dtype = self.compute_dtype
        maps, style, kernel = tf.cast(inputs[0], dtype), self._scales(inputs[1]), self._scaled_kernel()
        if self.kernel_size == 1:
            outputs = _transform_pixels(maps, tf.cast(style[..., tf.newaxis] * kernel[0, 0], dtype))
        else:
            modulated = maps * tf.cast(style, dtype)[:, tf.newaxis, tf.newaxis]
            outputs = convolve(modulated, tf.cast(kernel, dtype), up=self.doubles)
        if not self.demodulates:
            return tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(self.bias) * self.gain, dtype))
        squares = tf.matmul(tf.square(style), tf.reduce_sum(tf.square(kernel), axis=[0, 1]))
        return outputs * tf.cast(self.gain * tf.math.rsqrt(squares + 1e-8), dtype)[:, tf.newaxis, tf.newaxis]

    def _scaled_kernel(self) -> tf.Tensor:
        """Returns the kernel with an equalized learning rate, float32; with the gain, which demodulation would undo,
        only without demodulation.
        """
        kernel = tf.convert_to_tensor(self.kernel)
        return kernel * (math.prod(kernel.shape[:3]) ** -0.5 * (1.0 if self.demodulates else self.gain))

    def _scales(self, styles: tf.Tensor) -> tf.Tensor:
        """Returns the factors of the input channels, float32 [B, C]."""
        style, kernel = tf.cast(styles[:, self.style_index], tf.float32), tf.convert_to_tensor(self.style_kernel)
        return tf.matmul(style, kernel * kernel.shape[0] ** -0.5) + tf.convert_to_tensor(self.style_bias)

    def compute_output_shape(self, input_shape: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        batch, height, width, _ = input_shape[0]
        return (batch, *(size * 2 if self.doubles else size for size in (height, width)), self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "style_index", "doubles", "demodulates", "gain")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("trainer")
class NoisyActivation(layers.Layer):
    """Adds noise of a learned strength and a bias to maps [B, H, W, C], and applies a leaky ReLU of slope 0.2.

    Maps, noise and bias are multiplied by `ACTIVATION_GAIN`. If a preceding layer has already multiplied the maps, pass
    `scales_maps=False`, which saves a pass over them.

    In training, the noise N(0, 1) of an image is a function of the step and of its position in the global batch. In
    inference, it is the same for all images: a function of `noise_seed` and the size of the map.

    Args:
        noise_seed: Seed of the noise in inference.
        scales_maps: Whether to multiply the maps by `ACTIVATION_GAIN`. Pass False after a `ModulatedConv2D` with
            `gain=ACTIVATION_GAIN`.
        **kwargs: Arguments of Keras's `Layer`.
    """

    def __init__(self, noise_seed: int, *, scales_maps: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.noise_seed, self.scales_maps = noise_seed, scales_maps
        self.seed_generator = keras.random.SeedGenerator(seed=0, name=PER_SAMPLE_SEED)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.strength = self.add_weight(shape=(), initializer="zeros", name="strength", autocast=False)
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias", autocast=False)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        height, width = inputs.shape[1:3]
        if training:
            noise = draw_noise(self.seed_generator, tf.shape(inputs)[0], height * width)
        else:
            noise = tf.constant(_fixed_noise(self.noise_seed, height * width))
        added = self._scaled_noise_and_bias(tf.reshape(noise, [-1]), inputs.dtype)
        maps = inputs * tf.cast(ACTIVATION_GAIN, inputs.dtype) if self.scales_maps else inputs
        return leaky_relu(maps + tf.reshape(added, [-1, *inputs.shape[1:]]))

    def _scaled_noise_and_bias(self, noise: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Returns `ACTIVATION_GAIN * (strength * noise + bias)` for the noise of N pixels: [N, C].

        This is one matrix product, which takes less time than two additions.
        """
        strength, bias = (tf.convert_to_tensor(weight) * ACTIVATION_GAIN for weight in (self.strength, self.bias))
        factors = tf.stack([tf.repeat(strength, bias.shape[0]), bias])
        pixels = tf.stack([noise, tf.ones_like(noise)], axis=1)
        return tf.matmul(tf.cast(pixels, dtype), tf.cast(factors, dtype))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"noise_seed": self.noise_seed, "scales_maps": self.scales_maps}


@keras.saving.register_keras_serializable("trainer")
class StyleAverage(layers.Layer):
    """Repeats a style w for each layer that takes one, [B, W] -> [B, L, W], and tracks the average of w.

    Attributes:
        average: Exponential moving average of the mean w of a batch, float32 [W]. Calls with `training=True` move it.
        path_length_mean: Moving average of path lengths, float32 []. The model `stylegan2` moves it.

    Args:
        num_styles: Number of layers, L.
        decay: Decay of the average per batch.
        **kwargs: Arguments of Keras's `Layer`.
    """

    couples_samples = True

    def __init__(self, num_styles: int, decay: float = 0.998, **kwargs: Any):
        super().__init__(**({"dtype": "float32"} | kwargs))
        self.num_styles, self.decay = num_styles, decay

    def build(self, input_shape: tuple[Any, ...]) -> None:
        settings = {"initializer": "zeros", "trainable": False, "autocast": False}
        self.average = self.add_weight(shape=(input_shape[-1],), name="average", **settings)
        self.path_length_mean = self.add_weight(shape=(), name="path_length_mean", **settings)

    def call(self, inputs: tf.Tensor, psi: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Returns styles float32 [B, L, W].

        Args:
            inputs: Styles w, float32 [B, W].
            psi: Truncation, float32 [B, 1]: 1 for w itself, 0 for the average. It gets no gradient.
            training: Whether to move the average.
        """
        if training:
            self._move_average(inputs)
        if psi is not None:
            average = tf.convert_to_tensor(self.average)
            inputs = average + tf.stop_gradient(psi) * (inputs - average)
        return tf.repeat(inputs[:, tf.newaxis], self.num_styles, axis=1)

    def _move_average(self, inputs: tf.Tensor) -> None:
        average = tf.convert_to_tensor(self.average)
        mean = tf.reduce_mean(tf.stop_gradient(inputs), axis=0)
        self.average.assign(average + (1.0 - self.decay) * (mean - average))

    def compute_output_shape(
        self, inputs_shape: tuple[Any, ...], psi_shape: tuple[Any, ...] | None = None
    ) -> tuple[Any, ...]:
        return (inputs_shape[0], self.num_styles, inputs_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_styles": self.num_styles, "decay": self.decay}


def _transform_pixels(maps: tf.Tensor, kernels: tf.Tensor) -> tf.Tensor:
    """Applies the kernel of each image, [B, C, D], to the pixels of its map [B, H, W, C]: [B, H, W, D]."""
    height, width, channels = maps.shape[1:]
    pixels = tf.matmul(tf.reshape(maps, [-1, height * width, channels]), kernels)
    return tf.reshape(pixels, [-1, height, width, kernels.shape[2]])


@functools.cache
def _fixed_noise(seed: int, size: int) -> np.ndarray:
    """Returns noise float32 [size]."""
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(size, np.float32)
