"""Perceptrons: stacks of dense layers, images flattened."""

import math
from collections.abc import Sequence

import keras
from keras import layers as keras_layers

from trainer.architectures import Networks, architecture
from trainer.architectures.blocks import activation, initializer as get_initializer
from trainer.architectures.layers import BatchNormalization, Dropout


@architecture
def mlp(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_units: Sequence[int] = (256, 512, 1024),
    discriminator_units: Sequence[int] = (1024, 512, 256),
    generator_activation: str = "leaky_relu",
    discriminator_activation: str = "leaky_relu",
    leaky_slope: float = 0.2,
    batch_norm_momentum: float | None = None,
    dropout: float = 0.0,
    initializer: str = "glorot_uniform",
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C] -> logits [B, 1].

    A conditional discriminator has two inputs, images and one-hot labels [B, K], which it joins once they are flat.

    Args:
        image_shape: (H, W, C).
        latent_dim: Z.
        condition_size: K, 0 for an unconditional pair.
        output_activation: Of the generator: tanh, sigmoid or relu.
        generator_units: Widths of the hidden layers.
        discriminator_units: Widths of the hidden layers.
        generator_activation: relu or leaky_relu.
        discriminator_activation: relu or leaky_relu.
        leaky_slope: Slope of leaky_relu below 0.
        batch_norm_momentum: Momentum of batch normalization after each hidden layer of the generator; None: none.
        dropout: Rate after each hidden layer of the discriminator, in [0, 1).
        initializer: Of the kernels: `normal_02` for N(0, .02), or a Keras name.

    Raises:
        ConfigError: An activation or the initializer is unknown.
    """

    def generator() -> keras.Model:
        stack: list[keras_layers.Layer] = [keras.Input((latent_dim + condition_size,))]
        for units in generator_units:
            stack.append(keras_layers.Dense(units, kernel_initializer=get_initializer(initializer)))
            if batch_norm_momentum is not None:
                stack.append(BatchNormalization(momentum=batch_norm_momentum))
            stack.append(activation(generator_activation, leaky_slope))
        stack += [
            keras_layers.Dense(
                math.prod(image_shape), activation=output_activation, kernel_initializer=get_initializer(initializer)
            ),
            keras_layers.Reshape(image_shape),
        ]
        return keras.Sequential(stack, name="generator")

    def discriminator() -> keras.Model:
        images = keras.Input(image_shape)
        inputs, values = [images], keras_layers.Flatten()(images)
        if condition_size:
            inputs.append(keras.Input((condition_size,)))
            values = keras_layers.Concatenate()([values, inputs[1]])
        for units in discriminator_units:
            values = keras_layers.Dense(units, kernel_initializer=get_initializer(initializer))(values)
            values = activation(discriminator_activation, leaky_slope)(values)
            if dropout:
                values = Dropout(dropout)(values)
        logits = keras_layers.Dense(1, kernel_initializer=get_initializer(initializer))(values)
        return keras.Model(inputs, logits, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}
