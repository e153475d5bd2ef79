"""Multilayer perceptrons: stacks of dense layers on flattened images."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.config.fields import check_choice
from trainer.errors import ConfigError
from trainer.networks.building_blocks import LayerFactory
from trainer.networks.drawing_limit import check_drawing
from trainer.networks.layers import Dropout
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_int_list, check_rates


@register_architecture(parts=[NetworkPart.DENSE_OUTPUT])
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

    A conditional discriminator has two inputs, images and one-hot labels [B, K], and computes the same as if the labels
    were constant channels of the images.

    Args:
        generator_units: Units of the generator's hidden layers.
        discriminator_units: Units of the discriminator's hidden layers.
        generator_activation: Hidden activation, relu or leaky_relu.
        discriminator_activation: Hidden activation, relu or leaky_relu.
        leaky_slope: Factor of leaky_relu below 0.
        batch_norm_momentum: Momentum of batch normalization after each hidden layer of the generator; None for no
            batch normalization.
        dropout: Dropout rate after each hidden layer of the discriminator, in [0, 1).
        initializer: Initializer of all kernels: `normal_02` for N(0, 0.02), or a Keras name.
    """
    check_int_list("generator_units", generator_units, min_length=0)
    check_int_list("discriminator_units", discriminator_units, min_length=0)
    check_choice("generator_activation", generator_activation, ("relu", "leaky_relu"))
    check_choice("discriminator_activation", discriminator_activation, ("relu", "leaky_relu"))
    check_rates(leaky_slope, dropout, 0.0 if batch_norm_momentum is None else batch_norm_momentum)
    if condition_size and not discriminator_units:
        raise ConfigError("discriminator_units=[] has no hidden layer for labels; give at least one width.")
    generator = functools.partial(
        _generator,
        latent_dim + condition_size,
        image_shape,
        generator_units,
        batch_norm_momentum is not None,
        output_activation,
        LayerFactory(generator_activation, leaky_slope, batch_norm_momentum or 0.0, initializer),
    )
    create = LayerFactory(discriminator_activation, leaky_slope, 0.0, initializer)
    discriminator = functools.partial(_discriminator, image_shape, condition_size, discriminator_units, dropout, create)
    return {"generator": generator, "discriminator": discriminator}


def _generator(
    input_size: int,
    image_shape: tuple[int, int, int],
    hidden_units: Sequence[int],
    batch_norm: bool,
    output_activation: str,
    create: LayerFactory,
) -> keras.Model:
    stack: list[keras_layers.Layer] = [keras.Input((input_size,))]
    for units in hidden_units:
        stack.append(keras_layers.Dense(units, kernel_initializer=create.initializer()))
        if batch_norm:
            stack.append(create.batch_norm())
        stack.append(create.activation())
    size = math.prod(image_shape)
    stack += [
        keras_layers.Dense(size, activation=output_activation, kernel_initializer=create.initializer()),
        keras_layers.Reshape(image_shape),
    ]
    return keras.Sequential(stack, name="generator")


def _discriminator(
    image_shape: tuple[int, int, int],
    condition_size: int,
    hidden_units: Sequence[int],
    dropout: float,
    create: LayerFactory,
) -> keras.Model:
    images = keras.Input(image_shape)
    inputs, values = [images], keras_layers.Flatten()(images)
    for depth, units in enumerate(hidden_units):
        if condition_size and depth == 0:
            inputs.append(keras.Input((condition_size,)))
            first = DenseWithPlanes(units, image_shape[0] * image_shape[1], create.initializer())
            values = first([values, inputs[1]])
        else:
            values = keras_layers.Dense(units, kernel_initializer=create.initializer())(values)
        values = create.activation()(values)
        if dropout:
            values = Dropout(dropout)(values)
    logits = keras_layers.Dense(1, kernel_initializer=create.initializer(), dtype="float32")(values)
    return keras.Model(inputs, logits, name="discriminator")


@keras.saving.register_keras_serializable("trainer")
class DenseWithPlanes(keras_layers.Layer):
    """A dense layer on flat images [B, D] and labels [B, K], as if labels were planes of the image: [B, units].

    The weights of a unit for all pixels of a plane would receive the same input and the same gradient, and stay equal.
    This layer stores them as one weight and multiplies it by the number of pixels. Labels therefore have the same
    influence and the same learning speed as planes, at a fraction of the multiplications.

    Args:
        units: Size of the output.
        num_pixels: Number of pixels of a plane.
        initializer: Initializer of all weights of the layer, including those of the planes. It draws all at once.
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
        shape = size + self._num_pixels * num_labels, self.units

        def draw(dtype: Any) -> tf.Tensor:
            """Returns the same weights in each call, of the image and of the planes."""
            check_drawing(self.name, math.prod(shape))
            return tf.convert_to_tensor(self._initializer(shape, dtype=dtype))

        def mean_of_planes(_: Any, dtype: Any = None) -> tf.Tensor:
            return tf.reduce_mean(tf.reshape(draw(dtype)[size:], [self._num_pixels, num_labels, self.units]), axis=0)

        # Keras draws only when a variable gets its value: not for networks without weights.
        self.kernel = self.add_weight(
            shape=(size, self.units), initializer=lambda _, dtype=None: draw(dtype)[:size], name="kernel"
        )
        self.label_kernel = self.add_weight(
            shape=(num_labels, self.units), initializer=mean_of_planes, name="label_kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        images, labels = inputs
        label_outputs = tf.matmul(labels, tf.convert_to_tensor(self.label_kernel) * float(self._num_pixels))
        return tf.matmul(images, tf.convert_to_tensor(self.kernel)) + label_outputs + tf.convert_to_tensor(self.bias)
