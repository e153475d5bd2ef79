"""DCGAN with upsampling: the generator repeats pixels and convolves, and ends with two transposed convolutions.

Source: a common variant of arXiv 1511.06434, with upsampling as recommended against checkerboard artifacts by Odena et
al., "Deconvolution and Checkerboard Artifacts", Distill 2016.
"""

import functools
from collections.abc import Sequence

import keras
from keras import layers as keras_layers

from trainer.config.fields import check_choice
from trainer.networks.building_blocks import LayerFactory, crop_layers
from trainer.networks.dcgan import DCGANDiscriminator
from trainer.networks.layers import Conv2DTranspose, UpsamplingConv2D
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_int_list, check_positive_ints, check_rates


@register_architecture(parts=[NetworkPart.DENSE_OUTPUT])
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

    The generator is a dense map, one upsampled convolution with batch normalization per hidden number of filters, a
    transposed convolution of stride 2, and one of stride 1 to the image, which is cropped if its size is not divisible.

    Args:
        generator_filters: Channels of the dense map, the upsampled convolutions, and the first transposed convolution.
        generator_activation: Hidden activation, relu or leaky_relu.
        upsampling_kernel_size: Kernel size of the upsampled convolutions: 1, 3, 5 or 7.
        transposed_kernel_size: Kernel size of both transposed convolutions.
        discriminator_filters: Channels of each convolution of stride 2.
        discriminator_activation: Hidden activation, relu or leaky_relu.
        discriminator_kernel_size: Kernel size of the discriminator's convolutions.
        leaky_slope: Factor of leaky_relu below 0, in both networks.
        batch_norm_momentum: Momentum of the generator's moving moments.
        dropout: Dropout rate after each convolution of the discriminator, in [0, 1).
        initializer: Initializer of all kernels: `normal_02` for N(0, 0.02), or a Keras name.
    """
    check_int_list("generator_filters", generator_filters, min_length=2)
    check_int_list("discriminator_filters", discriminator_filters)
    check_positive_ints(transposed_kernel_size=transposed_kernel_size)
    check_rates(leaky_slope, dropout, batch_norm_momentum)
    check_choice("upsampling_kernel_size", upsampling_kernel_size, (1, 3, 5, 7))
    check_choice("generator_activation", generator_activation, ("relu", "leaky_relu"))
    height, width, channels = image_shape
    generator = functools.partial(
        _generator,
        latent_dim + condition_size,
        image_shape,
        generator_filters,
        (upsampling_kernel_size, transposed_kernel_size),
        output_activation,
        LayerFactory(generator_activation, leaky_slope, batch_norm_momentum, initializer),
    )
    discriminator = DCGANDiscriminator(
        input_shape=(height, width, channels + condition_size),
        create=LayerFactory(discriminator_activation, leaky_slope, batch_norm_momentum, initializer),
        filters=discriminator_filters,
        strides=[2] * len(discriminator_filters),
        kernel_size=discriminator_kernel_size,
        dropout=dropout,
    )
    return {"generator": generator, "discriminator": discriminator.build}


def _generator(
    input_size: int,
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    kernel_sizes: tuple[int, int],
    output_activation: str,
    create: LayerFactory,
) -> keras.Model:
    height, width, channels = image_shape
    scale = 2 ** (len(filters) - 1)
    base_height, base_width = -(-height // scale), -(-width // scale)
    first, *hidden, last = filters
    upsampling_size, transposed_size = kernel_sizes
    size = base_height * base_width * first
    stack: list[keras_layers.Layer] = [
        keras.Input((input_size,)),
        keras_layers.Dense(size, use_bias=False, kernel_initializer=create.initializer()),
        create.batch_norm(),
        create.activation(),
        keras_layers.Reshape((base_height, base_width, first)),
    ]
    for count in hidden:
        initializer = create.initializer()
        stack += [
            UpsamplingConv2D(count, upsampling_size, use_bias=False, kernel_initializer=initializer),
            create.batch_norm(),
            create.activation(),
        ]
    stack += [
        Conv2DTranspose(last, transposed_size, 2, "same", kernel_initializer=create.initializer()),
        create.activation(),
        Conv2DTranspose(
            channels,
            transposed_size,
            1,
            "same",
            activation=output_activation,
            kernel_initializer=create.initializer(),
        ),
        *crop_layers((base_height * scale, base_width * scale), (height, width)),
    ]
    return keras.Sequential(stack, name="generator")
