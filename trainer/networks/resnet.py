"""Residual networks of pre-activated blocks: the 32×32 pair of SNGAN and WGAN-GP, for images of any size.

Source: arXiv 1802.05957, table 4 and figure 9, and arXiv 1704.00028, appendix G. Where they pool or repeat pixels after
a 1×1 convolution or before it makes no difference to the map; here one kernel does both.
"""

import math
from collections.abc import Callable, Sequence

import keras
from keras import KerasTensor, layers as keras_layers

from trainer.errors import ConfigError
from trainer.networks import Networks, register_architecture
from trainer.networks.layers.basic import (
    BatchNormalization,
    Conv2D,
    GlobalSumPooling2D,
    PoolingConv2D,
    UpsamplingConv2D,
)
from trainer.networks.layers.spectral_norm import layer_class
from trainer.networks.options import check_choice, check_rates, check_sizes, cropping, initializer as get_initializer


@register_architecture
def resnet(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] = (64, 64),
    discriminator_filters: Sequence[int] = (64, 64),
    discriminator_downsamples: int | None = None,
    spectral_norm: bool = False,
    batch_norm_momentum: float = 0.9,
    initializer: str = "glorot_uniform",
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits [B, 1].

    The generator doubles a dense map once a block, under batch normalization; sizes that the doublings do not divide
    are cropped. The discriminator halves in its first blocks, without batch normalization, so that a gradient penalty
    may be put on it, and adds up what is left of the map; sizes that the halvings do not divide are padded with zeros.
    SNGAN's pair for 32×32 images has `generator_filters` of three times 256, `discriminator_filters` of four times 128,
    2 downsamples and `spectral_norm`.

    Args:
        image_shape: (H, W, C).
        latent_dim: Z.
        condition_size: K, 0 for an unconditional pair.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_filters: Channels of each block; the dense map has those of the first.
        discriminator_filters: Channels of each block.
        discriminator_downsamples: How many blocks, from the first, halve the map; None: all.
        spectral_norm: Spectral normalization of every kernel of the discriminator.
        batch_norm_momentum: Of the generator's moving moments.
        initializer: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: A size is no whole number, more blocks are to halve than there are, or `spectral_norm` is no bool.
    """
    check_sizes("generator_filters", generator_filters)
    check_sizes("discriminator_filters", discriminator_filters)
    check_choice("spectral_norm", spectral_norm, (True, False))
    check_rates(batch_norm_momentum=batch_norm_momentum)
    num_blocks = len(discriminator_filters)
    num_halvings = num_blocks if discriminator_downsamples is None else discriminator_downsamples
    if num_halvings not in range(num_blocks + 1):
        raise ConfigError(
            f"discriminator_downsamples={num_halvings} does not fit {num_blocks} discriminator_filters; "
            f"give a whole number from 0 to {num_blocks}."
        )
    height, width, channels = image_shape
    total = 2 ** len(generator_filters)
    base = (-(-height // total), -(-width // total))

    def kernel() -> keras.initializers.Initializer:
        return get_initializer(initializer)  # one a layer: layers of one shape must not start with the same values

    def normalized(maps: KerasTensor) -> KerasTensor:
        return keras_layers.ReLU()(BatchNormalization(momentum=batch_norm_momentum)(maps))

    def generator() -> keras.Model:
        latents = keras.Input((latent_dim + condition_size,))
        first = generator_filters[0]
        maps = keras_layers.Dense(math.prod(base) * first, kernel_initializer=kernel())(latents)
        maps = keras_layers.Reshape((*base, first))(maps)
        for filters in generator_filters:
            maps = _up_block(maps, filters, kernel, normalized)
        maps = normalized(maps)
        outputs = Conv2D(channels, 3, padding="same", activation=output_activation, kernel_initializer=kernel())(maps)
        for layer in cropping((base[0] * total, base[1] * total), (height, width)):
            outputs = layer(outputs)
        return keras.Model(latents, outputs, name="generator")

    def discriminator() -> keras.Model:
        images = keras.Input((height, width, channels + condition_size))
        maps = images
        spare = [-size % 2**num_halvings for size in (height, width)]
        if any(spare):
            maps = keras_layers.ZeroPadding2D([(size // 2, size - size // 2) for size in spare])(maps)
        for depth, filters in enumerate(discriminator_filters):
            maps = _down_block(maps, filters, depth < num_halvings, depth > 0, spectral_norm, kernel)
        pooled = GlobalSumPooling2D()(keras_layers.ReLU()(maps))
        logits = layer_class(keras_layers.Dense, spectral_norm)(1, kernel_initializer=kernel())(pooled)
        return keras.Model(images, logits, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}


def _up_block(
    maps: KerasTensor,
    filters: int,
    kernel: Callable[[], keras.initializers.Initializer],
    normalized: Callable[[KerasTensor], KerasTensor],
) -> KerasTensor:
    """A residual block that doubles a map: batch norm, ReLU, repeat pixels, 3×3; batch norm, ReLU, 3×3."""
    residual = normalized(maps)
    residual = UpsamplingConv2D(filters, 3, use_bias=False, kernel_initializer=kernel())(residual)
    residual = Conv2D(filters, 3, padding="same", kernel_initializer=kernel())(normalized(residual))
    shortcut = UpsamplingConv2D(filters, 1, kernel_initializer=kernel())(maps)
    return keras_layers.Add()([residual, shortcut])


def _down_block(
    maps: KerasTensor,
    filters: int,
    halve: bool,
    activate: bool,
    spectral_norm: bool,
    kernel: Callable[[], keras.initializers.Initializer],
) -> KerasTensor:
    """A residual block, ReLU, 3×3, ReLU, 3×3, that may halve a map at its end by means; images come unactivated."""
    plain = layer_class(Conv2D, spectral_norm)
    last = layer_class(PoolingConv2D, spectral_norm) if halve else plain
    residual = keras_layers.ReLU()(maps) if activate else maps
    residual = plain(filters, 3, padding="same", kernel_initializer=kernel())(residual)
    residual = last(filters, 3, padding="same", kernel_initializer=kernel())(keras_layers.ReLU()(residual))
    shortcut = maps
    if halve or maps.shape[-1] != filters:
        shortcut = last(filters, 1, padding="same", kernel_initializer=kernel())(maps)
    return keras_layers.Add()([residual, shortcut])
