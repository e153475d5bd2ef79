"""The networks of R3GAN: residual blocks without normalization around grouped convolutions.

Legend: `B` images, `H W C` an image, `h w` the base map, `F` channels of a map, `Z` latent size, `K` classes.

Source: arXiv 2501.05441, section 4 and appendix.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.errors import ConfigError
from trainer.networks import Networks, register_architecture
from trainer.networks.layers.grouped_conv import GroupedConv2D, PointwiseConv2D
from trainer.networks.layers.resampling import Downsample, Upsample
from trainer.networks.options import check_counts, check_sizes

_SLOPE = 0.2
_ACTIVATION_GAIN = (2 / (1 + _SLOPE**2)) ** 0.5
_MIN_BASE = 4
_DEFAULT_FILTERS = (8, 16, 64)


@register_architecture
def r3gan(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] | None = None,
    discriminator_filters: Sequence[int] | None = None,
    blocks_per_stage: int = 2,
    expansion: int = 2,
    group_size: int = 16,
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C] -> logits [B, 1].

    With labels (K > 0) the discriminator has two inputs, images [B, H, W, C] and one-hot labels [B, K], and ends in a
    projection (arXiv 1802.05637, equation 3): linear(h) + <embedding(label), h>/sqrt(F).

    A block is x + conv1(act(grouped3(act(conv1(x))))), where act adds a learned bias and is a leaky ReLU of slope .2;
    no other layer has a bias. Where the number of channels changes between stages, a 1×1 convolution comes before the
    generator's [1, 2, 1] resampling and after the discriminator's. The generator begins with a learned map times
    linear([z, label]), one factor a channel, and ends in a 1×1 convolution; the discriminator begins with one and ends
    in a depthwise convolution of the base map's size and a linear layer. Images and logits are float32 under every
    policy.

    The base map is the image halved as often as both sides stay even and the smaller one stays at least 4 (7×7 for
    28×28, 4×4 for 32×32), or once less than there are filters, where they are given. What the paper leaves open: edges
    repeat when they are resampled; layers outside the blocks are initialized to keep the variance (gain 1), the map
    and the labels' projection with N(0, 1); a label shares the linear layer of z, where an embedding of its own,
    without an activation between, would be the same function.

    Args:
        image_shape: (H, W, C), H and W divisible by 4.
        latent_dim: Z, 64 in the paper.
        condition_size: K, 0 for an unconditional pair.
        output_activation: Ignored: the output is linear, and learns the range of the images.
        generator_filters: Channels of each stage, from the base map to the image; the paper has (768, 768, 768, 768)
            for CIFAR-10. None: 8 at the image, 16 at half its size, 64 in all other stages, for two CPU cores.
        discriminator_filters: Channels of each stage, from the image to the base map. None: as above, mirrored.
        blocks_per_stage: Residual blocks in each stage.
        expansion: Width inside a block over the width outside.
        group_size: Channels in a group of the 3×3 convolutions.

    Raises:
        ConfigError: H or W is not divisible by 4; the filters do not fit the image; a count is no whole number; or
            groups do not fill a block.
    """
    check_counts(blocks_per_stage=blocks_per_stage, expansion=expansion, group_size=group_size)
    of_discriminator = _filters("discriminator_filters", discriminator_filters, image_shape)
    of_generator = _filters("generator_filters", generator_filters, image_shape, mirrored=True)
    for width in (*of_generator, *of_discriminator):
        if width * expansion % group_size:
            raise ConfigError(
                f"{width} filters times expansion={expansion} are no multiple of group_size={group_size}; "
                "change one of the three."
            )
    block = {"expansion": expansion, "group_size": group_size}

    def generator() -> keras.Model:
        gain = _block_gain(len(of_generator) * blocks_per_stage)
        inputs = keras.Input((latent_dim + condition_size,))
        maps = keras_layers.Dense(of_generator[0], use_bias=False, kernel_initializer=_normal())(inputs)
        maps = LearnedMap(*_base(image_shape, len(of_generator)))(maps)
        for stage, filters in enumerate(of_generator):
            if stage:
                maps = Upsample()(_widened(maps, filters))
            for _ in range(blocks_per_stage):
                maps = _block(maps, gain=gain, **block)
        outputs = PointwiseConv2D(image_shape[2], use_bias=False, kernel_initializer=_normal(), dtype="float32")(maps)
        return keras.Model(inputs, outputs, name="generator")

    def discriminator() -> keras.Model:
        gain = _block_gain(len(of_discriminator) * blocks_per_stage)
        images = keras.Input(image_shape)
        maps = PointwiseConv2D(of_discriminator[0], use_bias=False, kernel_initializer=_normal())(images)
        for stage, filters in enumerate(of_discriminator):
            if stage:
                maps = _widened(Downsample()(maps), filters)
            for _ in range(blocks_per_stage):
                maps = _block(maps, gain=gain, **block)
        features = MapReadout()(maps)
        logits = keras_layers.Dense(1, use_bias=False, kernel_initializer=_normal(), dtype="float32")(features)
        if not condition_size:
            return keras.Model(images, logits, name="discriminator")
        labels = keras.Input((condition_size,))
        logits = LabelProjection(dtype="float32")([logits, features, labels])
        return keras.Model([images, labels], logits, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}


@keras.saving.register_keras_serializable("trainer")
class BiasedLeakyReLU(keras_layers.Layer):
    """Adds a learned bias a channel, then a leaky ReLU."""

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _leaky_relu(tf.nn.bias_add(inputs, tf.convert_to_tensor(self.bias)))


@keras.saving.register_keras_serializable("trainer")
class LearnedMap(keras_layers.Layer):
    """A learned map [h, w, F] times its inputs [B, F]: [B, h, w, F]."""

    def __init__(self, height: int, width: int, **kwargs: object):
        super().__init__(**kwargs)
        self.height, self.width = height, width

    def build(self, input_shape: tuple[Any, ...]) -> None:
        shape = (self.height, self.width, input_shape[-1])
        self.map = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0), name="map")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs[:, tf.newaxis, tf.newaxis] * tf.convert_to_tensor(self.map)

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"height": self.height, "width": self.width}


@keras.saving.register_keras_serializable("trainer")
class MapReadout(keras_layers.Layer):
    """A depthwise convolution as large as its map: [B, h, w, F] to [B, F]."""

    def build(self, input_shape: tuple[Any, ...]) -> None:
        _, height, width, _ = input_shape
        initializer = keras.initializers.RandomNormal(stddev=(height * width) ** -0.5)
        self.kernel = self.add_weight(shape=input_shape[1:], initializer=initializer, name="kernel")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(inputs * tf.convert_to_tensor(self.kernel), axis=[1, 2])


@keras.saving.register_keras_serializable("trainer")
class LabelProjection(keras_layers.Layer):
    """Adds to logits [B, 1] how far features [B, F] lie along their label's embedding; labels are one-hot [B, K]."""

    def build(self, input_shape: list[tuple[Any, ...]]) -> None:
        _, (_, size), (_, num_classes) = input_shape
        initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.embeddings = self.add_weight(shape=(num_classes, size), initializer=initializer, name="embeddings")

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        logits, features, labels = inputs
        embedded = tf.matmul(labels, tf.convert_to_tensor(self.embeddings))
        return logits + tf.reduce_sum(embedded * features, axis=1, keepdims=True) * features.shape[1] ** -0.5


def _block(maps: keras.KerasTensor, gain: float, expansion: int, group_size: int) -> keras.KerasTensor:
    """The identity at first, for the last convolution starts at zero."""
    filters = maps.shape[-1]
    hidden = filters * expansion
    inner = PointwiseConv2D(hidden, use_bias=False, kernel_initializer=_normal(gain))(maps)
    inner = BiasedLeakyReLU()(inner)
    inner = GroupedConv2D(
        hidden, 3, padding="same", groups=hidden // group_size, use_bias=False, kernel_initializer=_normal(gain)
    )(inner)
    inner = BiasedLeakyReLU()(inner)
    inner = PointwiseConv2D(filters, use_bias=False, kernel_initializer="zeros")(inner)
    return keras_layers.Add()([maps, inner])


def _widened(maps: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    if maps.shape[-1] == filters:
        return maps
    return PointwiseConv2D(filters, use_bias=False, kernel_initializer=_normal())(maps)


def _block_gain(num_blocks: int) -> float:
    """Of each of the two convolutions that scale a block's branch: together they give it variance 1/num_blocks."""
    return _ACTIVATION_GAIN * num_blocks**-0.25


def _normal(gain: float = 1.0) -> keras.initializers.Initializer:
    """N(0, gain²/fan-in). A new one for each layer: Keras draws the same numbers from one initializer again."""
    return keras.initializers.VarianceScaling(gain**2, "fan_in", "untruncated_normal")


def _filters(
    name: str, given: Sequence[int] | None, image_shape: tuple[int, int, int], mirrored: bool = False
) -> tuple[int, ...]:
    """The channels of each stage; by default from the image to the base map, or mirrored."""
    height, width, _ = image_shape
    if height % 4 or width % 4:
        raise ConfigError(f"r3gan needs images whose sides divide by 4, got {height}×{width}; resize or crop them.")
    if given is None:
        num_stages = 1
        while math.gcd(height, width) % 2**num_stages == 0 and min(height, width) >= _MIN_BASE * 2**num_stages:
            num_stages += 1
        filters = [_DEFAULT_FILTERS[min(stage, len(_DEFAULT_FILTERS) - 1)] for stage in range(num_stages)]
        return tuple(filters[::-1] if mirrored else filters)
    check_sizes(name, given, at_least=0)
    halvings = len(given) - 1
    if halvings < 0 or math.gcd(height, width) % 2**halvings:
        raise ConfigError(
            f"{name}={list(given)} are {len(given)} stages, which {height}×{width} images cannot be halved for; "
            "give one filter more than both sides can be halved, or fewer."
        )
    return tuple(given)


def _base(image_shape: tuple[int, int, int], num_stages: int) -> tuple[int, int]:
    return image_shape[0] >> (num_stages - 1), image_shape[1] >> (num_stages - 1)


@tf.custom_gradient
def _leaky_relu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """The leaky ReLU; TensorFlow's own adds a map of zeros to the gradient of a gradient."""
    outputs = tf.nn.leaky_relu(inputs, _SLOPE)
    return outputs, lambda upstream: _sloped(upstream, tf.stop_gradient(outputs))


@tf.custom_gradient
def _sloped(values: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """`values` times the slope that gave `outputs`, which have the sign of what went in."""
    sloped = tf.raw_ops.LeakyReluGrad(gradients=values, features=outputs, alpha=_SLOPE)
    return sloped, lambda upstream: (_sloped(upstream, outputs), None)
