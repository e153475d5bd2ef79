"""Networks that translate images into images, and the patch discriminator that classifies their output.

Shapes: `B` images, `H W C` image shape, `h w` grid of patches, `K` label values.
"""

import functools

import keras
from keras import layers as keras_layers

from trainer.errors import ConfigError
from trainer.networks.building_blocks import get_activation, get_initializer
from trainer.networks.layers import Conv2D, Conv2DTranspose, Dropout, InstanceNormalization, ReflectionPadding2D
from trainer.networks.registry import Networks, register_architecture
from trainer.networks.validation import check_num_layers, check_positive_ints, check_rates

_LEAKY_SLOPE = 0.2
_MAX_WIDENING = 8  # The U-Net and the discriminator double their filters up to this factor.


@register_architecture(generator_input="images")
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
    input_channels: int = 0,
) -> Networks:
    """Generator [B, H, W, C+K] -> [B, H, W, C] of residual blocks on a small map, and a patch discriminator.

    The layers are a 7×7 convolution, strided convolutions that halve the map and double the filters, residual blocks,
    transposed convolutions back, and a 7×7 convolution. All but the last are followed by instance normalization and
    ReLU. The borders are reflected around the 7×7 convolutions and in the blocks. Convolutions before a normalization
    have no bias, because the normalization would remove it.

    Source: arXiv 1703.10593, appendix 7.2: 9 residual blocks for 256×256 images and larger, 6 for 128×128.

    Args:
        generator_filters: Channels of the first map.
        residual_blocks: Number of blocks of two 3×3 convolutions.
        downsamplings: Number of times that the map is halved.
        discriminator_filters: Channels of the discriminator's first map.
        discriminator_layers: Number of its convolutions of stride 2; 3 for patches of 70×70 pixels.
        initializer: Initializer of all kernels: `normal_02` for N(0, 0.02), or a Keras name.
        input_channels: Channels I of the inputs of pairs, for a generator [B, H, W, I] -> [B, H, W, C] and a
            discriminator of [B, H, W, I + C]; 0 for images of one kind. A model for pairs sets it.
    """
    check_positive_ints(generator_filters=generator_filters, discriminator_filters=discriminator_filters)
    check_num_layers(
        residual_blocks=residual_blocks, downsamplings=downsamplings, discriminator_layers=discriminator_layers
    )
    _check_divisible(image_shape, "downsamplings", downsamplings, smallest_map=2)
    shape, discriminator_shape = _input_shapes(image_shape, condition_size, input_channels)
    _check_patches(discriminator_shape, discriminator_layers)
    widths = [generator_filters * 2**level for level in range(downsamplings + 1)]
    generator = functools.partial(
        _resnet_generator, shape, image_shape[2], widths, residual_blocks, output_activation, initializer
    )
    discriminator = functools.partial(
        _patch_discriminator, discriminator_shape, discriminator_filters, discriminator_layers, initializer
    )
    return {"generator": generator, "discriminator": discriminator}


def _resnet_generator(
    shape: tuple[int, int, int],
    channels: int,
    widths: list[int],
    num_blocks: int,
    output_activation: str,
    initializer: str,
) -> keras.Model:
    images = keras.Input(shape)
    maps = _conv_and_norm(Conv2D, ReflectionPadding2D(3)(images), widths[0], 7, 1, initializer, "valid")
    maps = keras_layers.ReLU()(maps)
    for filters in widths[1:]:
        maps = keras_layers.ReLU()(_conv_and_norm(Conv2D, maps, filters, 3, 2, initializer))
    for _ in range(num_blocks):
        maps = _residual_block(maps, initializer)
    for filters in widths[-2::-1]:
        maps = keras_layers.ReLU()(_conv_and_norm(Conv2DTranspose, maps, filters, 3, 2, initializer))
    kernel = get_initializer(initializer)
    last = Conv2D(channels, 7, padding="valid", activation=output_activation, kernel_initializer=kernel)
    return keras.Model(images, last(ReflectionPadding2D(3)(maps)), name="generator")


def _residual_block(maps: keras.KerasTensor, initializer: str) -> keras.KerasTensor:
    filters = maps.shape[-1]
    residual = _conv_and_norm(Conv2D, ReflectionPadding2D(1)(maps), filters, 3, 1, initializer, "valid")
    residual = ReflectionPadding2D(1)(keras_layers.ReLU()(residual))
    return keras_layers.Add()([maps, _conv_and_norm(Conv2D, residual, filters, 3, 1, initializer, "valid")])


@register_architecture(generator_input="images")
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
    input_channels: int = 0,
) -> Networks:
    """Generator [B, H, W, C+K] -> [B, H, W, C] down to a small map and up again, and a patch discriminator.

    The layers are 4×4 convolutions of stride 2, with LeakyReLU on the way down and ReLU on the way up. Each map on the
    way down is concatenated to the one of its size on the way up. Instance normalization follows all convolutions
    except the first, the innermost, whose 1×1 map it would erase, and the last.

    Source: arXiv 1611.07004, appendix 6.1, with instance instead of batch normalization as in arXiv 1703.10593.

    Args:
        generator_filters: Channels of the first map. They double with each halving, up to 8 times as many.
        depth: Number of times that the map is halved: 7 from 128×128 to 1×1, 8 from 256×256.
        dropout: Dropout rate in the first three layers on the way up, in [0, 1); 0.5 in the source.
        discriminator_filters: Channels of the discriminator's first map.
        discriminator_layers: Number of its convolutions of stride 2; 3 for patches of 70×70 pixels.
        initializer: Initializer of all kernels: `normal_02` for N(0, 0.02), or a Keras name.
        input_channels: Channels I of the inputs of pairs, for a generator [B, H, W, I] -> [B, H, W, C] and a
            discriminator of [B, H, W, I + C]; 0 for images of one kind. A model for pairs sets it.
    """
    check_positive_ints(generator_filters=generator_filters, discriminator_filters=discriminator_filters)
    check_num_layers(depth=depth, discriminator_layers=discriminator_layers)
    check_rates(dropout=dropout)
    _check_divisible(image_shape, "depth", depth, smallest_map=1)
    shape, discriminator_shape = _input_shapes(image_shape, condition_size, input_channels)
    _check_patches(discriminator_shape, discriminator_layers)
    widths = [generator_filters * min(2**level, _MAX_WIDENING) for level in range(depth)]
    generator = functools.partial(
        _unet_generator, shape, image_shape[2], widths, dropout, output_activation, initializer
    )
    discriminator = functools.partial(
        _patch_discriminator, discriminator_shape, discriminator_filters, discriminator_layers, initializer
    )
    return {"generator": generator, "discriminator": discriminator}


def _unet_generator(
    shape: tuple[int, int, int],
    channels: int,
    widths: list[int],
    dropout: float,
    output_activation: str,
    initializer: str,
) -> keras.Model:
    depth = len(widths)
    images = maps = keras.Input(shape)
    skips = []
    for level, filters in enumerate(widths):
        if level in (0, depth - 1):
            maps = Conv2D(filters, 4, 2, "same", kernel_initializer=get_initializer(initializer))(maps)
        else:
            maps = _conv_and_norm(Conv2D, maps, filters, 4, 2, initializer)
        maps = get_activation("leaky_relu", _LEAKY_SLOPE)(maps)
        skips.append(maps)
    for level, filters in reversed(list(enumerate(widths[:-1]))):
        maps = _conv_and_norm(Conv2DTranspose, maps, filters, 4, 2, initializer)
        if dropout and level >= depth - 4:
            maps = Dropout(dropout)(maps)
        maps = keras_layers.Concatenate()([keras_layers.ReLU()(maps), skips[level]])
    kernel = get_initializer(initializer)
    last = Conv2DTranspose(channels, 4, 2, "same", activation=output_activation, kernel_initializer=kernel)
    return keras.Model(images, last(maps), name="generator")


def _patch_discriminator(shape: tuple[int, int, int], filters: int, num_layers: int, initializer: str) -> keras.Model:
    """Returns [B, H, W, C] -> logits [B, h, w, 1], one logit per patch: arXiv 1611.07004, appendix 6.1.2."""
    images = keras.Input(shape)
    maps = Conv2D(filters, 4, 2, "same", kernel_initializer=get_initializer(initializer))(images)
    maps = get_activation("leaky_relu", _LEAKY_SLOPE)(maps)
    for level in range(1, num_layers + 1):
        stride = 2 if level < num_layers else 1
        maps = _conv_and_norm(Conv2D, maps, filters * min(2**level, _MAX_WIDENING), 4, stride, initializer)
        maps = get_activation("leaky_relu", _LEAKY_SLOPE)(maps)
    kernel = get_initializer(initializer)
    logits = Conv2D(1, 4, padding="same", kernel_initializer=kernel, dtype="float32")(maps)
    return keras.Model(images, logits, name="discriminator")


def _conv_and_norm(
    convolution: type[keras_layers.Layer],
    maps: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    stride: int,
    initializer: str,
    padding: str = "same",
) -> keras.KerasTensor:
    """Applies a convolution without bias and instance normalization."""
    kernel = get_initializer(initializer)
    convolve = convolution(filters, kernel_size, stride, padding, use_bias=False, kernel_initializer=kernel)
    return InstanceNormalization()(convolve(maps))


def _input_shapes(
    image_shape: tuple[int, int, int], condition_size: int, input_channels: int
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Returns the shapes (H, W, C) of what the generator and the discriminator take.

    Without `input_channels`, both take images. With it, the generator takes inputs of so many channels, and the
    discriminator an input and an image.
    """
    height, width, channels = image_shape
    generator_channels = (input_channels or channels) + condition_size
    return (height, width, generator_channels), (height, width, channels + condition_size + input_channels)


def _check_patches(shape: tuple[int, int, int], num_layers: int) -> None:
    """Raises ConfigError if the discriminator's last map has one pixel, which instance normalization erases."""
    if max(shape[:2]) <= 2**num_layers:
        raise ConfigError(
            f"discriminator_layers={num_layers} reduces images of {shape[0]}×{shape[1]} to one pixel, which instance "
            f"normalization erases; give at most {(max(shape[:2]) - 1).bit_length() - 1}, or larger images."
        )


def _check_divisible(image_shape: tuple[int, int, int], option: str, num_halvings: int, smallest_map: int) -> None:
    """Raises ConfigError if images cannot be halved that often. The message suggests the closest sizes that can."""
    sizes = image_shape[:2]

    def is_divisible(count: int) -> bool:
        return all(size % 2**count == 0 and size >= smallest_map * 2**count for size in sizes)

    if is_divisible(num_halvings):
        return
    factor, minimum = 2**num_halvings, smallest_map * 2**num_halvings
    smaller = "×".join(str(max(minimum, size // factor * factor)) for size in sizes)
    larger = "×".join(str(max(minimum, -(-size // factor) * factor)) for size in sizes)
    maximum = next((count for count in range(num_halvings - 1, 0, -1) if is_divisible(count)), 0)
    raise ConfigError(
        f"images of {sizes[0]}×{sizes[1]} do not fit {option}={num_halvings}, which needs sizes of at least {minimum} "
        f"that are divisible by {factor}; resize to {' or '.join(dict.fromkeys([smaller, larger]))}"
        + (f", or give {option}={maximum}." if maximum else ".")
    )
