"""Networks that turn images into images, and the patch discriminator that judges them.

Legend: `B` images, `H W C` an image, `h w` the grid of patches, `K` classes.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.errors import ConfigError
from trainer.networks import Networks, register_architecture
from trainer.networks.layers.basic import Conv2D, Conv2DTranspose, Dropout
from trainer.networks.layers.instance_norm import InstanceNormalization
from trainer.networks.options import activation, check_counts, check_rates, initializer as get_initializer

_LEAKY_SLOPE = 0.2
_MAX_WIDENING = 8  # U-Net and discriminator stop doubling their filters there


@register_architecture(maps="images")
def resnet_translator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: int = 64,
    residual_blocks: int = 9,
    downsamplings: int = 2,
    discriminator_filters: int = 64,
    discriminator_layers: int = 3,
    initializer: str = "normal_02",
) -> Networks:
    """Generator [B, H, W, C+K] -> [B, H, W, C] of residual blocks on a small map, and a patch discriminator.

    7×7 convolution, strided convolutions that halve the map and double the filters, residual blocks, transposed
    convolutions back, 7×7 convolution. Instance normalization and ReLU follow all but the last. Around the 7×7
    convolutions and in the blocks the borders are reflected.

    Source: arXiv 1703.10593, appendix 7.2: 9 residual blocks from 256×256 on, 6 at 128×128. Convolutions before a
    normalization have no bias, which the normalization would take away.

    Args:
        image_shape: (H, W, C).
        latent_dim: Not used: the images are the input.
        condition_size: K more channels of the input of both networks; 0 for none.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_filters: Channels of the first map.
        residual_blocks: Of two 3×3 convolutions each.
        downsamplings: How often the map is halved.
        discriminator_filters: Channels of the discriminator's first map.
        discriminator_layers: Its convolutions of stride 2: 3 judge patches of 70×70 pixels.
        initializer: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: The image's sizes do not fit the number of halvings, or an option is less than 1.
    """
    check_counts(
        generator_filters=generator_filters,
        residual_blocks=residual_blocks,
        downsamplings=downsamplings,
        discriminator_filters=discriminator_filters,
        discriminator_layers=discriminator_layers,
    )
    _check_halves(image_shape, "downsamplings", downsamplings, smallest_map=2)
    height, width, channels = image_shape
    shape = (height, width, channels + condition_size)

    def block(maps: keras.KerasTensor) -> keras.KerasTensor:
        filters = maps.shape[-1]
        inner = _normalized(Conv2D, ReflectionPadding2D(1)(maps), filters, 3, 1, initializer, "valid")
        inner = ReflectionPadding2D(1)(keras_layers.ReLU()(inner))
        return keras_layers.Add()([maps, _normalized(Conv2D, inner, filters, 3, 1, initializer, "valid")])

    def generator() -> keras.Model:
        images = keras.Input(shape)
        maps = _normalized(Conv2D, ReflectionPadding2D(3)(images), generator_filters, 7, 1, initializer, "valid")
        maps = keras_layers.ReLU()(maps)
        widths = [generator_filters * 2**depth for depth in range(downsamplings + 1)]
        for filters in widths[1:]:
            maps = keras_layers.ReLU()(_normalized(Conv2D, maps, filters, 3, 2, initializer))
        for _ in range(residual_blocks):
            maps = block(maps)
        for filters in widths[-2::-1]:
            maps = keras_layers.ReLU()(_normalized(Conv2DTranspose, maps, filters, 3, 2, initializer))
        kernel = get_initializer(initializer)
        last = Conv2D(channels, 7, padding="valid", activation=output_activation, kernel_initializer=kernel)
        return keras.Model(images, last(ReflectionPadding2D(3)(maps)), name="generator")

    return {
        "generator": generator,
        "discriminator": _patch_discriminator(shape, discriminator_filters, discriminator_layers, initializer),
    }


@register_architecture(maps="images")
def unet_translator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: int = 64,
    depth: int = 7,
    dropout: float = 0.0,
    discriminator_filters: int = 64,
    discriminator_layers: int = 3,
    initializer: str = "normal_02",
) -> Networks:
    """Generator [B, H, W, C+K] -> [B, H, W, C] down to a small map and up again, and a patch discriminator.

    4×4 convolutions of stride 2, with LeakyReLU on the way down and ReLU on the way up; every map on the way down is
    joined to the one of its size on the way up. Instance normalization follows all but the first, the innermost and
    the last: a 1×1 map would be normalized away.

    Source: arXiv 1611.07004, appendix 6.1, with instance for batch normalization as in arXiv 1703.10593.

    Args:
        image_shape: (H, W, C).
        latent_dim: Not used: the images are the input.
        condition_size: K more channels of the input of both networks; 0 for none.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_filters: Channels of the first map; they double with each halving, up to 8 times as many.
        depth: How often the map is halved: 7 leads from 128×128 to 1×1, 8 from 256×256.
        dropout: Rate in the first three layers on the way up, in [0, 1); .5 in the source.
        discriminator_filters: Channels of the discriminator's first map.
        discriminator_layers: Its convolutions of stride 2: 3 judge patches of 70×70 pixels.
        initializer: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: The image's sizes do not fit the number of halvings, or an option is out of range.
    """
    check_counts(
        generator_filters=generator_filters,
        depth=depth,
        discriminator_filters=discriminator_filters,
        discriminator_layers=discriminator_layers,
    )
    check_rates(dropout=dropout)
    _check_halves(image_shape, "depth", depth, smallest_map=1)
    height, width, channels = image_shape
    shape = (height, width, channels + condition_size)
    widths = [generator_filters * min(2**level, _MAX_WIDENING) for level in range(depth)]

    def generator() -> keras.Model:
        images = maps = keras.Input(shape)
        skips = []
        for level, filters in enumerate(widths):
            if level in (0, depth - 1):
                maps = Conv2D(filters, 4, 2, "same", kernel_initializer=get_initializer(initializer))(maps)
            else:
                maps = _normalized(Conv2D, maps, filters, 4, 2, initializer)
            maps = activation("leaky_relu", _LEAKY_SLOPE)(maps)
            skips.append(maps)
        for level, filters in reversed(list(enumerate(widths[:-1]))):
            maps = _normalized(Conv2DTranspose, maps, filters, 4, 2, initializer)
            if dropout and level >= depth - 4:
                maps = Dropout(dropout)(maps)
            maps = keras_layers.Concatenate()([keras_layers.ReLU()(maps), skips[level]])
        kernel = get_initializer(initializer)
        last = Conv2DTranspose(channels, 4, 2, "same", activation=output_activation, kernel_initializer=kernel)
        return keras.Model(images, last(maps), name="generator")

    return {
        "generator": generator,
        "discriminator": _patch_discriminator(shape, discriminator_filters, discriminator_layers, initializer),
    }


@keras.saving.register_keras_serializable("trainer")
class ReflectionPadding2D(keras_layers.Layer):
    """Pads the maps [B, H, W, C] by mirroring them about their border pixels: [B, H+2p, W+2p, C].

    Args:
        padding: p, less than H and W.
    """

    def __init__(self, padding: int, **kwargs: object):
        super().__init__(**kwargs)
        self.padding = padding
        self.built = True

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"padding": self.padding}

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        around = [self.padding, self.padding]
        return tf.pad(inputs, [[0, 0], around, around, [0, 0]], "REFLECT")


def _patch_discriminator(
    shape: tuple[int, int, int], filters: int, num_layers: int, initializer: str
) -> Callable[[], keras.Model]:
    """A factory of [B, H, W, C] -> logits [B, h, w, 1], one a patch: arXiv 1611.07004, appendix 6.1.2."""
    if max(shape[:2]) <= 2**num_layers:
        raise ConfigError(
            f"discriminator_layers={num_layers} leaves one pixel of images of {shape[0]}×{shape[1]}, which instance "
            f"normalization takes away; give at most {(max(shape[:2]) - 1).bit_length() - 1}, or larger images."
        )

    def discriminator() -> keras.Model:
        images = keras.Input(shape)
        maps = Conv2D(filters, 4, 2, "same", kernel_initializer=get_initializer(initializer))(images)
        maps = activation("leaky_relu", _LEAKY_SLOPE)(maps)
        for level in range(1, num_layers + 1):
            stride = 2 if level < num_layers else 1
            maps = _normalized(Conv2D, maps, filters * min(2**level, _MAX_WIDENING), 4, stride, initializer)
            maps = activation("leaky_relu", _LEAKY_SLOPE)(maps)
        logits = Conv2D(1, 4, padding="same", kernel_initializer=get_initializer(initializer))(maps)
        return keras.Model(images, logits, name="discriminator")

    return discriminator


def _normalized(
    convolution: type[keras_layers.Layer],
    maps: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    stride: int,
    initializer: str,
    padding: str = "same",
) -> keras.KerasTensor:
    """A convolution without bias and its instance normalization.

    Every layer gets an initializer of its own: one that is shared would give equal shapes equal weights.
    """
    kernel = get_initializer(initializer)
    convolve = convolution(filters, kernel_size, stride, padding, use_bias=False, kernel_initializer=kernel)
    return InstanceNormalization()(convolve(maps))


def _check_halves(image_shape: tuple[int, int, int], option: str, halvings: int, smallest_map: int) -> None:
    """Refuses images that cannot be halved so often, and names the nearest sizes that can."""
    sizes = image_shape[:2]

    def fits(count: int) -> bool:
        return all(size % 2**count == 0 and size >= smallest_map * 2**count for size in sizes)

    if fits(halvings):
        return
    factor, least = 2**halvings, smallest_map * 2**halvings
    below = "×".join(str(max(least, size // factor * factor)) for size in sizes)
    above = "×".join(str(max(least, -(-size // factor) * factor)) for size in sizes)
    most = next((count for count in range(halvings - 1, 0, -1) if fits(count)), 0)
    raise ConfigError(
        f"images of {sizes[0]}×{sizes[1]} do not fit {option}={halvings}, which takes sizes that divide by {factor}, "
        f"from {least} up; resize to {' or '.join(dict.fromkeys([below, above]))}"
        + (f", or give {option}={most}." if most else ".")
    )
