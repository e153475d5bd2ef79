"""The networks of R3GAN: residual blocks without normalization around grouped convolutions.

Shapes: `B` images, `H W C` image shape, `h w` size of the base map, `F` channels of a map, `Z` latent size, `K` label
values.

A block is x + conv1(act(grouped3(act(conv1(x))))). Its activation adds a learned bias and applies a leaky ReLU of slope
0.2; no other layer has a bias. If the number of channels changes between stages, a 1×1 convolution comes before the
generator's [1, 2, 1] resampling and after the discriminator's. The generator starts with a learned map times
linear([z, label]), one factor per channel, and ends in a 1×1 convolution. The discriminator starts with a 1×1
convolution and ends in a depthwise convolution of the base map's size and a linear layer. Images and logits are float32
under every precision policy.

With labels (K > 0) the discriminator has two inputs, images [B, H, W, C] and one-hot labels [B, K], and ends in a
projection (arXiv 1802.05637, equation 3): linear(h) + <embedding(label), h>/sqrt(F).

The size of the base map is the image size halved while both sides are even and the smaller one is at least 8 (7×7 for
28×28, 4×4 for 32×32), or once less than the number of filters, if these are specified.

Choices that the paper leaves open: resampling repeats edge pixels. Layers outside the blocks are initialized to
preserve the variance (gain 1), the learned map and the label embeddings with N(0, 1). Labels and z share a linear
layer, which is equivalent to a separate embedding because no activation follows it.

Source: arXiv 2501.05441, section 4 and appendix.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.config.image_sizes import check_divisible_by_four, num_halvings
from trainer.errors import ConfigError
from trainer.networks.layers import Downsample, GroupedConv2D, PointwiseConv2D, Upsample
from trainer.networks.layers.label_projection import projection_discriminator
from trainer.networks.layers.leaky_relu import SLOPE, leaky_relu
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_int_list, check_num_layers, check_positive_ints

_ACTIVATION_GAIN = (2 / (1 + SLOPE**2)) ** 0.5
_DEFAULT_FILTERS = (8, 16, 64)


@register_architecture(parts=[NetworkPart.DENSE_OUTPUT])
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

    H and W must be divisible by 4. `output_activation` is ignored: the output is linear and learns the images' range.

    Args:
        generator_filters: Channels of each stage, from the base map to the image; (768, 768, 768, 768) for CIFAR-10 in
            the paper. None: 8 at the image, 16 at half its size and 64 in all other stages, which suits digits.
        discriminator_filters: Channels of each stage, from the image to the base map. None: the same in reverse order.
        blocks_per_stage: Number of residual blocks in each stage.
        expansion: Ratio of the number of channels inside a block to that outside.
        group_size: Number of channels in a group of the 3×3 convolutions.
    """
    check_num_layers(blocks_per_stage=blocks_per_stage)
    check_positive_ints(expansion=expansion, group_size=group_size)
    add_blocks = functools.partial(_add_blocks, num_blocks=blocks_per_stage, expansion=expansion, group_size=group_size)
    stages = _stage_filters("discriminator_filters", discriminator_filters, image_shape)
    discriminator = functools.partial(_discriminator, image_shape, condition_size, stages, add_blocks)
    reversed_stages = _stage_filters("generator_filters", generator_filters, image_shape, reverse=True)
    generator = functools.partial(_generator, latent_dim + condition_size, image_shape, reversed_stages, add_blocks)
    for filters in (*reversed_stages, *stages):
        if filters * expansion % group_size:
            raise ConfigError(
                f"{filters} filters times expansion={expansion} are not a multiple of group_size={group_size}; "
                "change one of the three."
            )
    return {"generator": generator, "discriminator": discriminator}


def _generator(
    input_size: int, image_shape: tuple[int, int, int], stages: Sequence[int], add_blocks: Callable[..., Any]
) -> keras.Model:
    inputs = keras.Input((input_size,))
    maps = keras_layers.Dense(stages[0], use_bias=False, kernel_initializer=_normal())(inputs)
    maps = LearnedMap(*_base_size(image_shape, len(stages)))(maps)
    for stage, filters in enumerate(stages):
        if stage:
            maps = Upsample()(_change_filters(maps, filters))
        maps = add_blocks(maps, num_stages=len(stages))
    outputs = PointwiseConv2D(image_shape[2], use_bias=False, kernel_initializer=_normal(), dtype="float32")(maps)
    return keras.Model(inputs, outputs, name="generator")


def _discriminator(
    image_shape: tuple[int, int, int], condition_size: int, stages: Sequence[int], add_blocks: Callable[..., Any]
) -> keras.Model:
    images = keras.Input(image_shape)
    maps = PointwiseConv2D(stages[0], use_bias=False, kernel_initializer=_normal())(images)
    for stage, filters in enumerate(stages):
        if stage:
            maps = _change_filters(Downsample()(maps), filters)
        maps = add_blocks(maps, num_stages=len(stages))
    features = MapReadout()(maps)
    logits = keras_layers.Dense(1, use_bias=False, kernel_initializer=_normal(), dtype="float32")(features)
    return projection_discriminator(images, features, logits, condition_size)


@keras.saving.register_keras_serializable("trainer")
class BiasedLeakyReLU(keras_layers.Layer):
    """Adds a learned bias per channel and applies a leaky ReLU."""

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return leaky_relu(tf.nn.bias_add(inputs, tf.convert_to_tensor(self.bias)))


@keras.saving.register_keras_serializable("trainer")
class LearnedMap(keras_layers.Layer):
    """Multiplies a learned map [h, w, F] by its inputs [B, F]: [B, h, w, F]."""

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
    """A depthwise convolution as large as its map: [B, h, w, F] -> [B, F]."""

    def build(self, input_shape: tuple[Any, ...]) -> None:
        _, height, width, _ = input_shape
        initializer = keras.initializers.RandomNormal(stddev=(height * width) ** -0.5)
        self.kernel = self.add_weight(shape=input_shape[1:], initializer=initializer, name="kernel")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(inputs * tf.convert_to_tensor(self.kernel), axis=[1, 2])


def _add_blocks(
    maps: keras.KerasTensor, *, num_stages: int, num_blocks: int, expansion: int, group_size: int
) -> keras.KerasTensor:
    """Applies the residual blocks of one stage.

    The first two convolutions of a block are scaled so that the branches of all blocks of the network add a variance
    of 1. The last convolution starts at zero, so that each block is the identity at first.
    """
    gain = _ACTIVATION_GAIN * (num_stages * num_blocks) ** -0.25
    filters = maps.shape[-1]
    hidden = filters * expansion
    for _ in range(num_blocks):
        residual = PointwiseConv2D(hidden, use_bias=False, kernel_initializer=_normal(gain))(maps)
        residual = BiasedLeakyReLU()(residual)
        residual = GroupedConv2D(
            hidden, 3, padding="same", groups=hidden // group_size, use_bias=False, kernel_initializer=_normal(gain)
        )(residual)
        residual = BiasedLeakyReLU()(residual)
        residual = PointwiseConv2D(filters, use_bias=False, kernel_initializer="zeros")(residual)
        maps = keras_layers.Add()([maps, residual])
    return maps


def _change_filters(maps: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    if maps.shape[-1] == filters:
        return maps
    return PointwiseConv2D(filters, use_bias=False, kernel_initializer=_normal())(maps)


def _normal(gain: float = 1.0) -> keras.initializers.Initializer:
    """Returns a new initializer N(0, gain²/fan-in). One initializer would give all kernels of a shape equal values."""
    return keras.initializers.VarianceScaling(gain**2, "fan_in", "untruncated_normal")


def _stage_filters(
    option: str, filters: Sequence[int] | None, image_shape: tuple[int, int, int], reverse: bool = False
) -> tuple[int, ...]:
    """Returns the channels of each stage. The default is ordered from the image to the base map unless `reverse`."""
    height, width, _ = image_shape
    check_divisible_by_four("r3gan", height, width)
    if filters is None:
        num_stages = num_halvings(height, width) + 1
        defaults = [_DEFAULT_FILTERS[min(stage, len(_DEFAULT_FILTERS) - 1)] for stage in range(num_stages)]
        return tuple(defaults[::-1] if reverse else defaults)
    check_int_list(option, filters, min_length=0)
    halvings = len(filters) - 1
    if halvings < 0 or math.gcd(height, width) % 2**halvings:
        raise ConfigError(
            f"{option}={list(filters)} has {len(filters)} stages, which do not fit {height}×{width} images; "
            "give at least one filter and at most one more than the number of times both sides can be halved."
        )
    return tuple(filters)


def _base_size(image_shape: tuple[int, int, int], num_stages: int) -> tuple[int, int]:
    return image_shape[0] >> (num_stages - 1), image_shape[1] >> (num_stages - 1)
