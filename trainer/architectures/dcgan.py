"""Deep convolutional GAN: transposed convolutions up, strided convolutions down, no pooling.

Source: arXiv 1511.06434, section 3, with every choice that its descendants vary as an option.
"""

import math
from collections.abc import Sequence

import keras
from keras import layers as keras_layers

from trainer.architectures import Networks, architecture
from trainer.architectures.blocks import activation, initializer as get_initializer
from trainer.architectures.layers import BatchNormalization, Conv2D, Conv2DTranspose, Dropout
from trainer.errors import ConfigError


@architecture
def dcgan(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] = (128, 64),
    generator_strides: Sequence[int] = (2, 2),
    generator_activation: str = "relu",
    discriminator_filters: Sequence[int] = (64, 128),
    discriminator_batch_norm: str = "hidden",
    kernel_size: int = 4,
    leaky_slope: float = 0.2,
    batch_norm_momentum: float = 0.9,
    dropout: float = 0.0,
    initializer: str = "normal_02",
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits [B, 1].

    The generator starts with a dense map of `generator_filters[0]` channels; every stride but the last leads to the
    next number of filters, the last one to the image. Sizes that the strides do not divide are cropped.

    Args:
        image_shape: (H, W, C).
        latent_dim: Z.
        condition_size: K, 0 for an unconditional pair.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_filters: Channels of the first map and of each hidden transposed convolution.
        generator_strides: Stride of each transposed convolution, as many as `generator_filters`.
        generator_activation: relu or leaky_relu.
        discriminator_filters: Channels of each convolution of stride 2.
        discriminator_batch_norm: Batch normalization after `none` of them, the `hidden` ones (not the first) or `all`.
        kernel_size: Of every convolution.
        leaky_slope: Slope of leaky_relu below 0, in both networks.
        batch_norm_momentum: Of the moving moments.
        dropout: Rate after each convolution of the discriminator, in [0, 1).
        initializer: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: `generator_filters` and `generator_strides` differ in length, or an option is an unknown word.
    """
    if discriminator_batch_norm not in ("none", "hidden", "all"):
        raise ConfigError(
            f"discriminator_batch_norm={discriminator_batch_norm} is unknown; choose none, hidden or all."
        )
    if len(generator_filters) != len(generator_strides):
        raise ConfigError(
            f"generator_filters={list(generator_filters)} and generator_strides={list(generator_strides)} "
            "must be equally long; give one stride a transposed convolution."
        )
    height, width, channels = image_shape
    total = math.prod(generator_strides)
    base = (-(-height // total), -(-width // total))

    def generator() -> keras.Model:
        kernel = get_initializer(initializer)
        stack: list[keras_layers.Layer] = [
            keras.Input((latent_dim + condition_size,)),
            keras_layers.Dense(math.prod(base) * generator_filters[0], use_bias=False, kernel_initializer=kernel),
            BatchNormalization(momentum=batch_norm_momentum),
            activation(generator_activation, leaky_slope),
            keras_layers.Reshape((*base, generator_filters[0])),
        ]
        for filters, stride in zip(generator_filters[1:], generator_strides[:-1], strict=True):
            stack += [
                Conv2DTranspose(filters, kernel_size, stride, "same", use_bias=False, kernel_initializer=kernel),
                BatchNormalization(momentum=batch_norm_momentum),
                activation(generator_activation, leaky_slope),
            ]
        stack.append(
            Conv2DTranspose(
                channels,
                kernel_size,
                generator_strides[-1],
                "same",
                activation=output_activation,
                kernel_initializer=kernel,
            )
        )
        spare = (base[0] * total - height, base[1] * total - width)
        if any(spare):
            stack.append(keras_layers.Cropping2D([(size // 2, size - size // 2) for size in spare]))
        return keras.Sequential(stack, name="generator")

    def discriminator() -> keras.Model:
        kernel = get_initializer(initializer)
        stack: list[keras_layers.Layer] = [keras.Input((height, width, channels + condition_size))]
        for depth, filters in enumerate(discriminator_filters):
            normalised = discriminator_batch_norm == "all" or (discriminator_batch_norm == "hidden" and depth > 0)
            stack.append(Conv2D(filters, kernel_size, 2, "same", use_bias=not normalised, kernel_initializer=kernel))
            if normalised:
                stack.append(BatchNormalization(momentum=batch_norm_momentum))
            stack.append(activation("leaky_relu", leaky_slope))
            if dropout:
                stack.append(Dropout(dropout))
        stack += [keras_layers.Flatten(), keras_layers.Dense(1, kernel_initializer=kernel)]
        return keras.Sequential(stack, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}
