"""DCGAN with upsampling: the generator repeats pixels and convolves, and ends with two transposed convolutions.

Source: a common reading of arXiv 1511.06434, with upsampling as advised against checkerboards by Odena and others,
"Deconvolution and Checkerboard Artifacts", Distill 2016.
"""

import math
from collections.abc import Sequence

import keras
from keras import layers as keras_layers

from trainer.networks import Networks, register_architecture
from trainer.networks.layers.basic import BatchNormalization, Conv2D, Conv2DTranspose, Dropout, UpsamplingConv2D
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
def upsampling(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] = (256, 128, 64, 32),
    generator_activation: str = "relu",
    upsampling_kernel_size: int = 3,
    transposed_kernel_size: int = 4,
    discriminator_filters: Sequence[int] = (32, 64),
    discriminator_activation: str = "relu",
    discriminator_kernel_size: int = 4,
    leaky_slope: float = 0.2,
    batch_norm_momentum: float = 0.9,
    dropout: float = 0.3,
    initializer: str = "glorot_uniform",
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits [B, 1].

    The generator is a dense map; for each hidden width a doubling and a convolution, batch-normalized; a transposed
    convolution of stride 2, and one of stride 1 to the image. Sizes that these doublings do not divide are cropped.

    Args:
        image_shape: (H, W, C).
        latent_dim: Z.
        condition_size: K, 0 for an unconditional pair.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_filters: Channels of the dense map, of each upsampled convolution, and of the transposed convolution
            of stride 2.
        generator_activation: relu or leaky_relu.
        upsampling_kernel_size: Of the upsampled convolutions, odd.
        transposed_kernel_size: Of both transposed convolutions.
        discriminator_filters: Channels of each convolution of stride 2.
        discriminator_activation: relu or leaky_relu.
        discriminator_kernel_size: Of the discriminator's convolutions.
        leaky_slope: Slope of leaky_relu below 0, in both networks.
        batch_norm_momentum: Of the generator's moving moments.
        dropout: Rate after each convolution of the discriminator, in [0, 1).
        initializer: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: A size is no whole number, there are fewer than two `generator_filters`, a rate is out of range,
            or an option is an unknown word.
    """
    check_sizes("generator_filters", generator_filters, at_least=2)
    check_sizes("discriminator_filters", discriminator_filters)
    check_counts(transposed_kernel_size=transposed_kernel_size, discriminator_kernel_size=discriminator_kernel_size)
    check_rates(leaky_slope, dropout, batch_norm_momentum)
    check_choice("upsampling_kernel_size", upsampling_kernel_size, (1, 3, 5, 7))
    check_choice("generator_activation", generator_activation, ("relu", "leaky_relu"))
    check_choice("discriminator_activation", discriminator_activation, ("relu", "leaky_relu"))
    height, width, channels = image_shape
    total = 2 ** (len(generator_filters) - 1)
    base = (-(-height // total), -(-width // total))
    first, *hidden, last = generator_filters

    def normalized() -> list[keras_layers.Layer]:
        return [BatchNormalization(momentum=batch_norm_momentum), activation(generator_activation, leaky_slope)]

    def generator() -> keras.Model:
        stack: list[keras_layers.Layer] = [
            keras.Input((latent_dim + condition_size,)),
            keras_layers.Dense(
                math.prod(base) * first, use_bias=False, kernel_initializer=get_initializer(initializer)
            ),
            *normalized(),
            keras_layers.Reshape((*base, first)),
        ]
        for filters in hidden:
            kernel = get_initializer(initializer)
            stack.append(UpsamplingConv2D(filters, upsampling_kernel_size, use_bias=False, kernel_initializer=kernel))
            stack += normalized()
        size = transposed_kernel_size
        stack += [
            Conv2DTranspose(last, size, 2, "same", kernel_initializer=get_initializer(initializer)),
            activation(generator_activation, leaky_slope),
            Conv2DTranspose(
                channels,
                size,
                1,
                "same",
                activation=output_activation,
                kernel_initializer=get_initializer(initializer),
            ),
            *cropping((base[0] * total, base[1] * total), (height, width)),
        ]
        return keras.Sequential(stack, name="generator")

    def discriminator() -> keras.Model:
        stack: list[keras_layers.Layer] = [keras.Input((height, width, channels + condition_size))]
        for filters in discriminator_filters:
            kernel = get_initializer(initializer)
            stack.append(Conv2D(filters, discriminator_kernel_size, 2, "same", kernel_initializer=kernel))
            stack.append(activation(discriminator_activation, leaky_slope))
            if dropout:
                stack.append(Dropout(dropout))
        stack += [keras_layers.Flatten(), keras_layers.Dense(1, kernel_initializer=get_initializer(initializer))]
        return keras.Sequential(stack, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}
