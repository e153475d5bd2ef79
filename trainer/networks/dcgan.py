"""Deep convolutional GAN: transposed convolutions up, strided convolutions down, no pooling.

Source: arXiv 1511.06434, section 3, with every choice that its descendants vary as an option.
"""

import math
from collections.abc import Sequence

import keras
from keras import layers as keras_layers

from trainer.errors import ConfigError
from trainer.networks import Networks, register_architecture
from trainer.networks.layers.basic import BatchNormalization, Conv2D, Conv2DTranspose, Dropout, WholeMapConv2D
from trainer.networks.layers.spectral_norm import layer_class
from trainer.networks.options import (
    activation,
    check_choice,
    check_counts,
    check_rates,
    check_sizes,
    cropping,
    initializer as get_initializer,
)


@register_architecture
def dcgan(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] = (128, 64),
    generator_strides: Sequence[int] = (2, 2),
    generator_activation: str = "relu",
    generator_dense: Sequence[int] = (),
    generator_stem: str = "dense",
    discriminator_filters: Sequence[int] = (64, 128),
    discriminator_strides: Sequence[int] | None = None,
    discriminator_activation: str = "leaky_relu",
    discriminator_kernel_size: int | None = None,
    discriminator_batch_norm: str = "hidden",
    discriminator_dense: Sequence[int] = (),
    discriminator_head: str = "dense",
    spectral_norm: bool = False,
    kernel_size: int = 4,
    leaky_slope: float = 0.2,
    batch_norm_momentum: float = 0.9,
    dropout: float = 0.0,
    initializer: str = "normal_02",
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits [B, 1].

    The generator starts with a map of `generator_filters[0]` channels; every stride but the last leads to the next
    number of filters, the last one to the image. Sizes that the strides do not divide are cropped. The paper's own
    networks, which have no dense layer, are those with both `generator_stem="transposed_convolution"` and
    `discriminator_head="convolution"`. Batch normalization starts with scale 1, where the paper says nothing.

    Args:
        image_shape: (H, W, C).
        latent_dim: Z.
        condition_size: K, 0 for an unconditional pair.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_filters: Channels of the first map and of each hidden transposed convolution.
        generator_strides: Stride of each transposed convolution, as many as `generator_filters`.
        generator_activation: relu or leaky_relu.
        generator_dense: Units of dense layers before the first map.
        generator_stem: What makes the first map of the latents: `dense`, batch-normalized for each of its elements, or
            `transposed_convolution` of a 1×1 map, batch-normalized for each channel.
        discriminator_filters: Channels of each convolution.
        discriminator_strides: Stride of each convolution; None: 2.
        discriminator_activation: relu or leaky_relu.
        discriminator_kernel_size: Of the discriminator's convolutions; None: `kernel_size`.
        discriminator_batch_norm: Batch normalization after `none` of them, the `hidden` ones (not the first) or `all`.
        discriminator_dense: Units of dense layers between the last map and the logit, batch-normalized where maps are.
        discriminator_head: What makes the logit of the last map: `dense`, or a `convolution` as large as the map.
        spectral_norm: Spectral normalization of every kernel of the discriminator.
        kernel_size: Of every convolution.
        leaky_slope: Slope of leaky_relu below 0, in both networks.
        batch_norm_momentum: Of the moving moments.
        dropout: Rate after each convolution of the discriminator, in [0, 1).
        initializer: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: Filters and strides differ in length, a size is no whole number, a rate is out of range, or an
            option is an unknown word.
    """
    check_sizes("discriminator_filters", discriminator_filters)
    strides = [2] * len(discriminator_filters) if discriminator_strides is None else discriminator_strides
    of_discriminator = kernel_size if discriminator_kernel_size is None else discriminator_kernel_size
    check_choice("discriminator_batch_norm", discriminator_batch_norm, ("none", "hidden", "all"))
    check_choice("generator_stem", generator_stem, ("dense", "transposed_convolution"))
    check_choice("discriminator_head", discriminator_head, ("dense", "convolution"))
    check_choice("generator_activation", generator_activation, ("relu", "leaky_relu"))
    check_choice("discriminator_activation", discriminator_activation, ("relu", "leaky_relu"))
    check_choice("spectral_norm", spectral_norm, (True, False))
    check_sizes("discriminator_strides", strides)
    check_sizes("generator_filters", generator_filters)
    check_sizes("generator_strides", generator_strides)
    check_counts(kernel_size=kernel_size, discriminator_kernel_size=of_discriminator)
    check_rates(leaky_slope, dropout, batch_norm_momentum)
    check_sizes("generator_dense", generator_dense, at_least=0)
    check_sizes("discriminator_dense", discriminator_dense, at_least=0)
    if discriminator_dense and discriminator_head == "convolution":
        raise ConfigError("discriminator_dense leaves no map; it needs discriminator_head=dense.")
    _check_equally_long("generator", generator_filters, generator_strides, "a transposed convolution")
    _check_equally_long("discriminator", discriminator_filters, strides, "a convolution")
    height, width, channels = image_shape
    total = math.prod(generator_strides)
    base = (-(-height // total), -(-width // total))

    def normalized() -> list[keras_layers.Layer]:
        return [BatchNormalization(momentum=batch_norm_momentum), activation(generator_activation, leaky_slope)]

    def kernel() -> keras.initializers.Initializer:
        return get_initializer(initializer)

    def stem() -> list[keras_layers.Layer]:
        """From the latents to the first map, normalized and activated."""
        first = generator_filters[0]
        stack: list[keras_layers.Layer] = []
        units = [*generator_dense, math.prod(base) * first] if generator_stem == "dense" else generator_dense
        for size in units:
            stack += [keras_layers.Dense(size, use_bias=False, kernel_initializer=kernel()), *normalized()]
        if generator_stem == "dense":
            return [*stack, keras_layers.Reshape((*base, first))]
        size = generator_dense[-1] if generator_dense else latent_dim + condition_size
        spread = Conv2DTranspose(first, base, 1, "valid", use_bias=False, kernel_initializer=kernel())
        return [*stack, keras_layers.Reshape((1, 1, size)), spread, *normalized()]

    def generator() -> keras.Model:
        stack: list[keras_layers.Layer] = [keras.Input((latent_dim + condition_size,)), *stem()]
        for filters, stride in zip(generator_filters[1:], generator_strides[:-1], strict=True):
            stack.append(
                Conv2DTranspose(filters, kernel_size, stride, "same", use_bias=False, kernel_initializer=kernel())
            )
            stack += normalized()
        stack.append(
            Conv2DTranspose(
                channels,
                kernel_size,
                generator_strides[-1],
                "same",
                activation=output_activation,
                kernel_initializer=kernel(),
            )
        )
        stack += cropping((base[0] * total, base[1] * total), (height, width))
        return keras.Sequential(stack, name="generator")

    def discriminator() -> keras.Model:
        convolution, dense, whole_map = (
            layer_class(plain, spectral_norm) for plain in (Conv2D, keras_layers.Dense, WholeMapConv2D)
        )
        stack: list[keras_layers.Layer] = [keras.Input((height, width, channels + condition_size))]
        size = (height, width)
        for depth, (filters, stride) in enumerate(zip(discriminator_filters, strides, strict=True)):
            normalized = discriminator_batch_norm == "all" or (discriminator_batch_norm == "hidden" and depth > 0)
            size = (-(-size[0] // stride), -(-size[1] // stride))
            stack.append(
                convolution(
                    filters, of_discriminator, stride, "same", use_bias=not normalized, kernel_initializer=kernel()
                )
            )
            if normalized:
                stack.append(BatchNormalization(momentum=batch_norm_momentum))
            stack.append(activation(discriminator_activation, leaky_slope))
            if dropout:
                stack.append(Dropout(dropout))
        if discriminator_dense:
            stack.append(keras_layers.Flatten())
        for units in discriminator_dense:
            normalized = discriminator_batch_norm != "none"
            stack.append(dense(units, use_bias=not normalized, kernel_initializer=kernel()))
            if normalized:
                stack.append(BatchNormalization(momentum=batch_norm_momentum))
            stack.append(activation(discriminator_activation, leaky_slope))
        if discriminator_head == "convolution":
            stack.append(whole_map(1, size, kernel_initializer=kernel()))
        else:
            stack += [*([] if discriminator_dense else [keras_layers.Flatten()]), dense(1, kernel_initializer=kernel())]
        return keras.Sequential(stack, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}


def _check_equally_long(network: str, filters: Sequence[int], strides: Sequence[int], what: str) -> None:
    if len(filters) != len(strides):
        raise ConfigError(
            f"{network}_filters={list(filters)} and {network}_strides={list(strides)} "
            f"must be equally long; give one stride {what}."
        )
