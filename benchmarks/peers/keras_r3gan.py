"""The networks of R3GAN from plain `keras.layers` and TensorFlow operations.

TensorFlow has no gradients of grouped convolutions on CPUs, so that a group is a convolution of its own here.

Legend: `B` images, `H W C` map size and channels, `Z` latent size.
"""

import keras
import tensorflow as tf
from keras import layers

from benchmarks.architecture_options import R3ganOptions

_SLOPE = 0.2


def build(latent_dim: int, image_shape: tuple[int, int, int], options: R3ganOptions) -> tuple[keras.Model, keras.Model]:
    """Returns generator [B, Z] -> [B, H, W, C] and discriminator [B, H, W, C] -> logits [B, 1]."""
    return _generator(latent_dim, image_shape, options), _discriminator(image_shape, options)


def _generator(latent_dim: int, image_shape: tuple[int, int, int], options: R3ganOptions) -> keras.Model:
    stages = options.generator_filters
    inputs = keras.Input((latent_dim,))
    maps = layers.Dense(stages[0], use_bias=False)(inputs)
    maps = _LearnedMap(*options.base_size(image_shape, len(stages)))(maps)
    for stage, filters in enumerate(stages):
        if stage:
            maps = _Upsample()(_change_filters(maps, filters))
        maps = _blocks(maps, options)
    return keras.Model(inputs, layers.Conv2D(image_shape[2], 1, use_bias=False, dtype="float32")(maps))


def _discriminator(image_shape: tuple[int, int, int], options: R3ganOptions) -> keras.Model:
    images = keras.Input(image_shape)
    maps = layers.Conv2D(options.discriminator_filters[0], 1, use_bias=False)(images)
    for stage, filters in enumerate(options.discriminator_filters):
        if stage:
            maps = _change_filters(_Downsample()(maps), filters)
        maps = _blocks(maps, options)
    maps = layers.DepthwiseConv2D(maps.shape[1:3], use_bias=False)(maps)
    return keras.Model(images, layers.Dense(1, use_bias=False, dtype="float32")(layers.Flatten()(maps)))


def _blocks(maps: keras.KerasTensor, options: R3ganOptions) -> keras.KerasTensor:
    filters = maps.shape[-1]
    hidden, groups = options.hidden(filters)
    for _ in range(options.blocks_per_stage):
        residual = layers.LeakyReLU(negative_slope=_SLOPE)(layers.Conv2D(hidden, 1)(maps))
        residual = layers.LeakyReLU(negative_slope=_SLOPE)(_GroupedConv2D(groups)(residual))
        residual = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="zeros")(residual)
        maps = layers.Add()([maps, residual])
    return maps


def _change_filters(maps: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    return maps if maps.shape[-1] == filters else layers.Conv2D(filters, 1, use_bias=False)(maps)


class _LearnedMap(layers.Layer):
    def __init__(self, height: int, width: int):
        super().__init__()
        self._size = (height, width)

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.map = self.add_weight(shape=(*self._size, input_shape[-1]), initializer="random_normal")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs[:, tf.newaxis, tf.newaxis] * self.map


class _GroupedConv2D(layers.Layer):
    """A 3×3 convolution with a bias and as many inputs as outputs."""

    def __init__(self, groups: int):
        super().__init__()
        self._groups = groups

    def build(self, input_shape: tuple[int, ...]) -> None:
        filters = input_shape[-1]
        self.kernel = self.add_weight(shape=(3, 3, filters // self._groups, filters), initializer="he_normal")
        self.bias = self.add_weight(shape=(filters,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        if self._groups == 1 or tf.config.list_physical_devices("GPU"):
            outputs = tf.nn.conv2d(inputs, kernel, 1, "SAME")
        else:
            parts = zip(tf.split(inputs, self._groups, axis=-1), tf.split(kernel, self._groups, axis=-1), strict=True)
            outputs = tf.concat([tf.nn.conv2d(maps, part, 1, "SAME") for maps, part in parts], axis=-1)
        return outputs + self.bias


class _Upsample(layers.Layer):
    """Doubles maps: even pixels are the inputs, odd ones the mean of both neighbors."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        size = [2 * inputs.shape[1], 2 * inputs.shape[2]]
        resized = tf.raw_ops.ResizeBilinear(images=inputs, size=size, half_pixel_centers=False)
        return tf.cast(resized, inputs.dtype)


class _Downsample(layers.Layer):
    """Halves maps with the filter [1, 2, 1]/4 at even pixels."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(inputs, [[0, 0], [1, 0], [1, 0], [0, 0]], "SYMMETRIC")
        taps = tf.constant([0.25, 0.5, 0.25], inputs.dtype)
        kernel = tf.tile((taps[:, tf.newaxis] * taps)[..., tf.newaxis, tf.newaxis], [1, 1, inputs.shape[-1], 1])
        return tf.nn.depthwise_conv2d(padded, kernel, [1, 2, 2, 1], "VALID")
