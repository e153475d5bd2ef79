"""Residual networks of pre-activation blocks: the 32×32 networks of SNGAN and WGAN-GP, for images of any size.

Source: arXiv 1802.05957, table 4 and figure 9, and arXiv 1704.00028, appendix G. Pooling or repeating pixels before or
after a 1×1 convolution gives the same map; here one kernel does both.
"""

import functools
from collections.abc import Sequence

import keras
from keras import KerasTensor, layers as keras_layers

from trainer.config.fields import check_choice
from trainer.errors import ConfigError
from trainer.networks.building_blocks import LayerFactory, crop_layers
from trainer.networks.layers import Conv2D, GlobalSumPooling2D, PoolingConv2D, UpsamplingConv2D, layer_class
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_int_list, check_rates


@register_architecture(parts=[NetworkPart.DENSE_OUTPUT])
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

    The generator doubles a dense map once per block, with batch normalization, and crops images whose size is not
    divisible. The discriminator halves the map in its first blocks and sums the last map. It has no batch
    normalization, so that a gradient penalty can be applied, and pads images whose size is not divisible with zeros.
    The 32×32 networks of SNGAN have `generator_filters` of three times 256, `discriminator_filters` of four times 128,
    2 downsamples and `spectral_norm`.

    Args:
        generator_filters: Channels of each block; the dense map has those of the first.
        discriminator_filters: Channels of each block.
        discriminator_downsamples: Number of blocks, starting from the first, that halve the map; None for all.
        spectral_norm: True for spectral normalization of all kernels of the discriminator.
        batch_norm_momentum: Momentum of the generator's moving moments.
        initializer: Initializer of all kernels: `normal_02` for N(0, 0.02), or a Keras name.
    """
    check_int_list("generator_filters", generator_filters)
    check_int_list("discriminator_filters", discriminator_filters)
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
    inputs_shape = (height, width, channels + condition_size)
    create = LayerFactory("relu", 0.0, batch_norm_momentum, initializer)
    generator = functools.partial(
        _generator, latent_dim + condition_size, image_shape, generator_filters, output_activation, create
    )
    discriminator = functools.partial(
        _discriminator, inputs_shape, discriminator_filters, num_halvings, spectral_norm, create
    )
    return {"generator": generator, "discriminator": discriminator}


def _generator(
    input_size: int,
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    output_activation: str,
    create: LayerFactory,
) -> keras.Model:
    height, width, channels = image_shape
    scale = 2 ** len(filters)
    base_height, base_width = -(-height // scale), -(-width // scale)
    latents = keras.Input((input_size,))
    size = base_height * base_width * filters[0]
    maps = keras_layers.Dense(size, kernel_initializer=create.initializer())(latents)
    maps = keras_layers.Reshape((base_height, base_width, filters[0]))(maps)
    for block_filters in filters:
        maps = _up_block(maps, block_filters, create)
    maps = _normalize_and_activate(maps, create)
    last = Conv2D(channels, 3, padding="same", activation=output_activation, kernel_initializer=create.initializer())
    images = last(maps)
    for layer in crop_layers((base_height * scale, base_width * scale), (height, width)):
        images = layer(images)
    return keras.Model(latents, images, name="generator")


def _discriminator(
    inputs_shape: tuple[int, int, int],
    filters: Sequence[int],
    num_halvings: int,
    spectral_norm: bool,
    create: LayerFactory,
) -> keras.Model:
    images = maps = keras.Input(inputs_shape)
    padding = [-size % 2**num_halvings for size in inputs_shape[:2]]
    if any(padding):
        maps = keras_layers.ZeroPadding2D([(size // 2, size - size // 2) for size in padding])(maps)
    for depth, block_filters in enumerate(filters):
        maps = _down_block(maps, block_filters, depth < num_halvings, depth > 0, spectral_norm, create)
    pooled = GlobalSumPooling2D()(keras_layers.ReLU()(maps))
    dense = layer_class(keras_layers.Dense, spectral_norm)
    logits = dense(1, kernel_initializer=create.initializer(), dtype="float32")(pooled)
    return keras.Model(images, logits, name="discriminator")


def _up_block(maps: KerasTensor, filters: int, create: LayerFactory) -> KerasTensor:
    """Applies a residual block that doubles a map: batch norm, ReLU, repeat pixels, 3×3; batch norm, ReLU, 3×3."""
    residual = _normalize_and_activate(maps, create)
    residual = UpsamplingConv2D(filters, 3, use_bias=False, kernel_initializer=create.initializer())(residual)
    residual = _normalize_and_activate(residual, create)
    residual = Conv2D(filters, 3, padding="same", kernel_initializer=create.initializer())(residual)
    shortcut = UpsamplingConv2D(filters, 1, kernel_initializer=create.initializer())(maps)
    return keras_layers.Add()([residual, shortcut])


def _down_block(
    maps: KerasTensor, filters: int, halve: bool, activate: bool, spectral_norm: bool, create: LayerFactory
) -> KerasTensor:
    """Applies a residual block: ReLU, 3×3, ReLU, 3×3, and average pooling if `halve`.

    Args:
        maps: Input of the block.
        filters: Channels of the output.
        halve: True to halve the map at the end of the block.
        activate: True to start with a ReLU. The first block does not, because its input is images.
        spectral_norm: True for spectral normalization of all kernels.
        create: Factory of the initializers.
    """
    convolution = layer_class(Conv2D, spectral_norm)
    last = layer_class(PoolingConv2D, spectral_norm) if halve else convolution
    residual = keras_layers.ReLU()(maps) if activate else maps
    residual = convolution(filters, 3, padding="same", kernel_initializer=create.initializer())(residual)
    residual = keras_layers.ReLU()(residual)
    residual = last(filters, 3, padding="same", kernel_initializer=create.initializer())(residual)
    shortcut = maps
    if halve or maps.shape[-1] != filters:
        shortcut = last(filters, 1, padding="same", kernel_initializer=create.initializer())(maps)
    return keras_layers.Add()([residual, shortcut])


def _normalize_and_activate(maps: KerasTensor, create: LayerFactory) -> KerasTensor:
    return create.activation()(create.batch_norm()(maps))
