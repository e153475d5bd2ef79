"""Activations, initializers and crops that architectures share."""

import dataclasses

import keras
from keras import layers

from trainer.errors import ConfigError
from trainer.networks.layers import BatchNormalization


def get_activation(name: str, leaky_slope: float) -> layers.Layer:
    """Returns a ReLU or LeakyReLU layer.

    Raises:
        ConfigError: If the name is neither `relu` nor `leaky_relu`.
    """
    if name == "relu":
        return layers.ReLU()
    if name == "leaky_relu":
        return layers.LeakyReLU(negative_slope=leaky_slope)
    raise ConfigError(f"activation {name!r} is unknown; choose relu or leaky_relu.")


def get_initializer(name: str) -> keras.initializers.Initializer:
    """Returns a new initializer: the DCGAN paper's N(0, 0.02) for `normal_02`, or Keras's initializer of that name.

    One initializer gives all kernels of a shape the same values, so each layer needs its own.

    Raises:
        ConfigError: If Keras has no initializer of that name.
    """
    if name == "normal_02":
        return keras.initializers.RandomNormal(stddev=0.02)
    try:
        return keras.initializers.get(name)
    except ValueError as error:
        raise ConfigError(
            f"initializer={name} is unknown; give normal_02 or a Keras name such as he_normal or glorot_uniform."
        ) from error


def crop_layers(size: tuple[int, int], target_size: tuple[int, int]) -> list[layers.Layer]:
    """Returns the layer that crops images of `size` (H, W) to the centered `target_size`; none for equal sizes."""
    excess = [larger - smaller for larger, smaller in zip(size, target_size, strict=True)]
    return [layers.Cropping2D([(count // 2, count - count // 2) for count in excess])] if any(excess) else []


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Creates the layers that a network repeats. Each call returns a new one."""

    activation_name: str
    leaky_slope: float
    batch_norm_momentum: float
    initializer_name: str

    def activation(self) -> layers.Layer:
        return get_activation(self.activation_name, self.leaky_slope)

    def batch_norm(self) -> layers.Layer:
        return BatchNormalization(momentum=self.batch_norm_momentum)

    def initializer(self) -> keras.initializers.Initializer:
        return get_initializer(self.initializer_name)
