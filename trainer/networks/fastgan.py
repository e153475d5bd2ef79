"""The networks of FastGAN, for 50 to 1,000 images.

Shapes: `B` images, `H W C` image shape, `h w` size of a map, `F` channels of a map, `Z` latent size, `K` label values,
`n` number of times that both sides of the image are halved to the base map (4×4 for powers of two).

The generator makes a base map and doubles it n times: upsampling, 3×3 convolution, batch normalization, and a gated
linear unit (GLU). Every second block, from the first one on, has a second convolution, and both add noise. Skip-layer
excitation lets a small map gate the channels of a map that is 16 times as large: 4×4 gates 64×64, 8×8 128×128, 16×16
256×256, and 32×32 512×512. In a smaller generator, the base map gates the last map.

The discriminator halves the image in blocks of two paths, whose mean is the next map: 4×4 convolution of stride 2 and
3×3 convolution; average pooling and 1×1 convolution. Images above 256×256 are first halved by plain convolutions.
Skip-layer excitation gates a map by the one three blocks before. The last map has twice the side of the base map for
images of 64×64 and more, and a 4×4 convolution rates its patches. Decoders make images from the last two maps: the
model `fastgan` trains them to reconstruct the real image, and a quarter of it.

Deviations: the paper states 8×8, 16×16 and 32×32 as sources; the first pair and small images are derived from their
ratio. Noise is only added in training. The discriminator has no input of a second size, and no spectral normalization.

Source: arXiv 2101.04775, sections 3.1 and 3.2.
"""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.config.image_sizes import MIN_BASE, num_fastgan_downsamplings, num_halvings
from trainer.errors import ConfigError
from trainer.networks.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Conv2D,
    NoiseInjection,
    UpsamplingConv2D,
)
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_int_list

PART_FEATURES, WHOLE_FEATURES = "part_features", "whole_features"
"""Names of the discriminator's layers whose maps the decoders take."""
_MAX_SIDE = 1024
_GENERATOR_WIDTHS = (64, 32, 16, 8)
"""Default channels of the generator's first maps; all others have the last number."""
_DISCRIMINATOR_WIDTHS = (8, 16, 32, 64)
_LARGEST_SOURCE, _GATED_AFTER = 3, 4
"""Last stage of the generator whose map gates another one, and the number of stages between both."""
_DISCRIMINATOR_GATED_AFTER = 3
_STAGES_OF_BLOCKS = 6
"""Number of halvings from which on further ones, for images above 256×256, are plain convolutions."""
_SLOPE = 0.2
_GATE_SLOPE = 0.1
_GATE_SIZE = (4, 4)


@register_architecture(parts=[NetworkPart.FEATURE_MAPS])
def fastgan(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] | None = None,
    discriminator_filters: Sequence[int] | None = None,
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits of patches [B, h, w, 1].

    H and W must be even, from 8 to 1,024.

    Args:
        generator_filters: Channels of each map, from the base map to the image; further maps have the last number.
            None: 64, 32, 16, 8.
        discriminator_filters: Channels of each map, from the image to the last map; further maps have the last number.
            None: 8, 16, 32, 64.
    """
    height, width, channels = image_shape
    halvings = num_halvings(height, width)
    if not halvings or max(height, width) > _MAX_SIDE:
        raise ConfigError(
            f"fastgan needs images with even sides from {2 * MIN_BASE} to {_MAX_SIDE:,} and got {height}×{width}; "
            "resize or crop the images."
        )
    num_maps, num_discriminator_maps = halvings + 1, num_fastgan_downsamplings(halvings) + 1
    widths = _channels("generator_filters", generator_filters, _GENERATOR_WIDTHS, num_maps)
    discriminator_widths = _channels(
        "discriminator_filters", discriminator_filters, _DISCRIMINATOR_WIDTHS, num_discriminator_maps
    )
    base = (height >> halvings, width >> halvings)
    size = latent_dim + condition_size
    return {
        "generator": functools.partial(_generator, size, base, channels, widths, output_activation),
        "discriminator": functools.partial(
            _discriminator,
            (height, width, channels + condition_size),
            discriminator_widths,
            max(0, halvings - _STAGES_OF_BLOCKS),
        ),
    }


def excitation_pairs(halvings: int) -> dict[int, int]:
    """Returns the source of each stage of the generator that skip-layer excitation gates. The base map is stage 0."""
    if halvings < _GATED_AFTER:
        return {halvings: 0}
    sources = range(min(_LARGEST_SOURCE, halvings - _GATED_AFTER) + 1)
    return {source + _GATED_AFTER: source for source in sources}


def decoder(name: str, map_shape: tuple[int, int, int], num_doublings: int, channels: int) -> keras.Model:
    """Returns a decoder of a discriminator's map: [B, h, w, F] -> [B, h·2^d, w·2^d, C].

    Args:
        name: Name of the network.
        map_shape: Shape (h, w, F) of the map.
        num_doublings: Number of times d that both sides are doubled.
        channels: Channels C of the image.
    """
    inputs = maps = keras.Input(map_shape)
    filters = map_shape[2]
    for _ in range(num_doublings):
        filters = max(filters // 2, 4)
        maps = _up_block(maps, filters)
    outputs = Conv2D(channels, 3, padding="same", kernel_initializer=_normal())(maps)
    return keras.Model(inputs, outputs, name=name)


def _generator(
    input_size: int, base: tuple[int, int], channels: int, widths: Sequence[int], output_activation: str
) -> keras.Model:
    inputs = keras.Input((input_size,))
    units = base[0] * base[1] * widths[0] * 2
    maps = keras_layers.Dense(units, use_bias=False, kernel_initializer=_normal())(inputs)
    maps = keras_layers.Reshape((*base, widths[0] * 2))(maps)
    stages = [GatedLinearUnit()(BatchNormalization(momentum=0.9)(maps))]
    sources = excitation_pairs(len(widths) - 1)
    for stage, filters in enumerate(widths[1:], start=1):
        maps = _up_block(stages[-1], filters, has_noise=stage % 2 == 1)
        stages.append(_excite(stages[sources[stage]], maps) if stage in sources else maps)
    outputs = Conv2D(channels, 3, padding="same", kernel_initializer=_normal())(stages[-1])
    outputs = keras_layers.Activation(output_activation, dtype="float32")(outputs)
    return keras.Model(inputs, outputs, name="generator")


def _discriminator(inputs_shape: tuple[int, int, int], widths: Sequence[int], num_plain: int) -> keras.Model:
    inputs = keras.Input(inputs_shape)
    first = Conv2D(widths[0], 3, padding="same", use_bias=False, kernel_initializer=_normal())(inputs)
    last = len(widths) - 1
    stages = [keras_layers.LeakyReLU(negative_slope=_SLOPE, name=PART_FEATURES if last == 1 else None)(first)]
    for stage, filters in enumerate(widths[1:], start=1):
        is_plain = stage <= num_plain
        maps = _convolution_block(stages[-1], filters, 4, 2) if is_plain else _down_block(stages[-1], filters)
        source = stage - _DISCRIMINATOR_GATED_AFTER
        stages.append(_excite(stages[source], maps) if source >= num_plain else maps)
        if stage >= last - 1:
            name = PART_FEATURES if stage < last else WHOLE_FEATURES
            stages[stage] = keras_layers.Identity(name=name)(stages[stage])
    maps = _convolution_block(stages[last], widths[last], 1)
    logits = Conv2D(1, 4, use_bias=False, kernel_initializer=_normal(), dtype="float32")(maps)
    return keras.Model(inputs, logits, name="discriminator")


@keras.saving.register_keras_serializable("trainer")
class GatedLinearUnit(keras_layers.Layer):
    """Multiplies the first half of the channels by the sigmoid of the second half: [..., 2F] -> [..., F]."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], (input_shape[-1] or 0) // 2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        values, gates = tf.split(inputs, 2, axis=-1)
        return values * tf.sigmoid(gates)


def _up_block(maps: keras.KerasTensor, filters: int, has_noise: bool = False) -> keras.KerasTensor:
    """Doubles maps; with noise, there is a second convolution."""
    convolve = UpsamplingConv2D(filters * 2, 3, use_bias=False, kernel_initializer=_normal())
    for _ in range(2 if has_noise else 1):
        maps = convolve(maps)
        if has_noise:
            maps = NoiseInjection()(maps)
        maps = GatedLinearUnit()(BatchNormalization(momentum=0.9)(maps))
        convolve = Conv2D(filters * 2, 3, padding="same", use_bias=False, kernel_initializer=_normal())
    return maps


def _down_block(maps: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Halves maps: the mean of a path of two convolutions and of a path of pooling and a 1×1 convolution."""
    main = _convolution_block(_convolution_block(maps, filters, 4, strides=2), filters, 3)
    direct = _convolution_block(keras_layers.AveragePooling2D(2)(maps), filters, 1)
    return keras_layers.Average()([main, direct])


def _convolution_block(maps: keras.KerasTensor, filters: int, kernel_size: int, strides: int = 1) -> keras.KerasTensor:
    """Applies a convolution without bias, batch normalization, and a leaky ReLU."""
    maps = Conv2D(filters, kernel_size, strides, "same", use_bias=False, kernel_initializer=_normal())(maps)
    return keras_layers.LeakyReLU(negative_slope=_SLOPE)(BatchNormalization(momentum=0.9)(maps))


def _excite(source: keras.KerasTensor, maps: keras.KerasTensor) -> keras.KerasTensor:
    """Skip-layer excitation: multiplies each channel of `maps` by a gate in (0, 1), which `source` determines."""
    filters = maps.shape[-1]
    gates = AdaptiveAveragePooling2D(_GATE_SIZE)(source)
    gates = Conv2D(filters, _GATE_SIZE, use_bias=False, kernel_initializer=_normal())(gates)
    gates = keras_layers.LeakyReLU(negative_slope=_GATE_SLOPE)(gates)
    gates = Conv2D(filters, 1, use_bias=False, kernel_initializer=_normal(), activation="sigmoid")(gates)
    return keras_layers.Multiply()([maps, gates])


def _channels(option: str, filters: Sequence[int] | None, default: Sequence[int], num_maps: int) -> tuple[int, ...]:
    """Returns the channels of each map. Maps for which the option has no number have its last one."""
    filters = default[:num_maps] if filters is None else filters
    check_int_list(option, filters)
    if len(filters) > num_maps:
        raise ConfigError(
            f"{option}={list(filters)} has {len(filters)} numbers, but the network has {num_maps} maps; give at most "
            f"{num_maps}."
        )
    return tuple(filters[min(index, len(filters) - 1)] for index in range(num_maps))


def _normal() -> keras.initializers.Initializer:
    """Returns a new initializer N(0, 1/fan-in)."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
