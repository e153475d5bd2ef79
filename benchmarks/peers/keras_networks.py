"""Networks of a case from plain `keras.layers`.

Legend: `H W C` image shape, `Z` latent size, `K` classes.
"""

import math
from typing import Any

import keras
from keras import layers

from benchmarks.architecture_options import DcganOptions, MlpOptions, R3ganOptions, Stylegan2Options
from benchmarks.cases import Case
from benchmarks.peers import keras_r3gan


def build(case: Case) -> tuple[keras.Model, keras.Model]:
    """Returns generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits [B, 1]."""
    height, width, channels = case.image_shape
    generator = keras.Sequential([keras.Input((case.config.latent_dim + case.num_classes,))])
    discriminator = keras.Sequential([keras.Input((height, width, channels + case.num_classes))])
    options = case.options
    if isinstance(options, Stylegan2Options):
        raise NotImplementedError("networks of stylegan2")
    if isinstance(options, R3ganOptions):
        return keras_r3gan.build(case.config.latent_dim, case.image_shape, options)
    if isinstance(options, DcganOptions):
        _add_dcgan_generator(generator, case.image_shape, options)
        _add_dcgan_discriminator(discriminator, options)
    else:
        _add_mlp_generator(generator, case.image_shape, options)
        _add_mlp_discriminator(discriminator, options)
    return generator, discriminator


def _add_dcgan_generator(network: keras.Sequential, image_shape: tuple[int, int, int], options: DcganOptions) -> None:
    height, width, channels = image_shape
    total = math.prod(options.generator_strides)
    base = (height // total, width // total, options.generator_filters[0])
    settings = _kernel_settings(options)
    has_map = options.generator_stem == "transposed_convolution"
    if has_map:
        network.add(layers.Reshape((1, 1, -1)))
        network.add(layers.Conv2DTranspose(base[2], base[:2], 1, "valid", use_bias=False, **settings))
    else:
        network.add(layers.Dense(math.prod(base), use_bias=False, **settings))
    last = len(options.generator_strides) - 1
    for depth, stride in enumerate(options.generator_strides):
        network.add(layers.BatchNormalization(momentum=options.batch_norm_momentum))
        network.add(_activation(options.generator_activation, options.leaky_slope))
        if depth == 0 and not has_map:
            network.add(layers.Reshape(base))
        if depth < last:
            filters = options.generator_filters[depth + 1]
            network.add(
                layers.Conv2DTranspose(filters, options.kernel_size, stride, "same", use_bias=False, **settings)
            )
        else:
            network.add(
                layers.Conv2DTranspose(channels, options.kernel_size, stride, "same", activation="tanh", **settings)
            )


def _add_dcgan_discriminator(network: keras.Sequential, options: DcganOptions) -> None:
    settings = _kernel_settings(options)
    for depth, filters in enumerate(options.discriminator_filters):
        normalized = options.normalizes(depth)
        network.add(layers.Conv2D(filters, options.kernel_size, 2, "same", use_bias=not normalized, **settings))
        if normalized:
            network.add(layers.BatchNormalization(momentum=options.batch_norm_momentum))
        network.add(_activation("leaky_relu", options.leaky_slope))
        if options.dropout:
            network.add(layers.Dropout(options.dropout))
    if options.discriminator_head == "convolution":
        network.add(layers.Conv2D(1, network.output_shape[1:3], padding="valid", **settings))
        network.add(layers.Flatten())
        return
    network.add(layers.Flatten())
    network.add(layers.Dense(1, **settings))


def _add_mlp_generator(network: keras.Sequential, image_shape: tuple[int, int, int], options: MlpOptions) -> None:
    settings = _kernel_settings(options)
    for units in options.generator_units:
        network.add(layers.Dense(units, **settings))
        if options.batch_norm_momentum is not None:
            network.add(layers.BatchNormalization(momentum=options.batch_norm_momentum))
        network.add(_activation(options.generator_activation, options.leaky_slope))
    network.add(layers.Dense(math.prod(image_shape), activation="tanh", **settings))
    network.add(layers.Reshape(image_shape))


def _add_mlp_discriminator(network: keras.Sequential, options: MlpOptions) -> None:
    settings = _kernel_settings(options)
    network.add(layers.Flatten())
    for units in options.discriminator_units:
        network.add(layers.Dense(units, **settings))
        network.add(_activation(options.discriminator_activation, options.leaky_slope))
        if options.dropout:
            network.add(layers.Dropout(options.dropout))
    network.add(layers.Dense(1, **settings))


def _kernel_settings(options: DcganOptions | MlpOptions) -> dict[str, Any]:
    name = options.initializer
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.02) if name == "normal_02" else name}


def _activation(name: str, slope: float) -> layers.Layer:
    return layers.ReLU() if name == "relu" else layers.LeakyReLU(negative_slope=slope)
