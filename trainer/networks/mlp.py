"""Perceptrons: stacks of dense layers, images flattened."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.errors import ConfigError
from trainer.networks import Networks, register_architecture
from trainer.networks.layers.basic import BatchNormalization, Dropout
from trainer.networks.options import activation, check_choice, check_rates, check_sizes, initializer as get_initializer


@register_architecture
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

    A conditional discriminator has two inputs, images and one-hot labels [B, K], and works as if the labels were
    planes of the image.

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
        ConfigError: A width is no whole number, a rate is out of range, an activation or the initializer is unknown,
            or a conditional discriminator has no hidden layer.
    """
    check_sizes("generator_units", generator_units, at_least=0)
    check_sizes("discriminator_units", discriminator_units, at_least=0)
    check_choice("generator_activation", generator_activation, ("relu", "leaky_relu"))
    check_choice("discriminator_activation", discriminator_activation, ("relu", "leaky_relu"))
    check_rates(leaky_slope, dropout, 0.0 if batch_norm_momentum is None else batch_norm_momentum)
    if condition_size and not discriminator_units:
        raise ConfigError("discriminator_units is empty; a conditional discriminator needs a hidden layer.")

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
        for depth, units in enumerate(discriminator_units):
            if condition_size and depth == 0:
                inputs.append(keras.Input((condition_size,)))
                first = DenseWithPlanes(units, image_shape[0] * image_shape[1], get_initializer(initializer))
                values = first([values, inputs[1]])
            else:
                values = keras_layers.Dense(units, kernel_initializer=get_initializer(initializer))(values)
            values = activation(discriminator_activation, leaky_slope)(values)
            if dropout:
                values = Dropout(dropout)(values)
        logits = keras_layers.Dense(1, kernel_initializer=get_initializer(initializer))(values)
        return keras.Model(inputs, logits, name="discriminator")

    return {"generator": generator, "discriminator": discriminator}


@keras.saving.register_keras_serializable("trainer")
class DenseWithPlanes(keras_layers.Layer):
    """A dense layer on flat images and planes of labels that makes no plane: [B, D] and [B, K] -> [B, units].

    All weights that a unit has on the pixels of a plane see the same input, get the same gradient, and move together:
    here they are one, which is multiplied by the number of pixels. So labels weigh as much beside the pixels of an
    image as planes do, and are learnt as fast, at a fraction of the products.

    Args:
        units: Size of the output.
        num_pixels: Of a plane.
        initializer: Of all weights of the layer, those on the planes included.
    """

    def __init__(self, units: int, num_pixels: int, initializer: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self._num_pixels = units, num_pixels
        self._initializer = keras.initializers.get(initializer)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self._initializer)
        return super().get_config() | {
            "units": self.units,
            "num_pixels": self._num_pixels,
            "initializer": initializer,
        }

    def build(self, shapes: Sequence[tuple[int | None, int]]) -> None:
        (_, size), (_, num_labels) = shapes
        whole = tf.convert_to_tensor(self._initializer((size + self._num_pixels * num_labels, self.units)))
        on_planes = tf.reduce_mean(tf.reshape(whole[size:], [self._num_pixels, num_labels, self.units]), axis=0)
        for name, values in (("kernel", whole[:size]), ("label_kernel", on_planes)):
            initial = keras.initializers.Constant(values.numpy())
            setattr(self, name, self.add_weight(shape=values.shape, initializer=initial, name=name))
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        images, labels = inputs
        of_labels = tf.matmul(labels, tf.convert_to_tensor(self.label_kernel) * float(self._num_pixels))
        return tf.matmul(images, tf.convert_to_tensor(self.kernel)) + of_labels + tf.convert_to_tensor(self.bias)
