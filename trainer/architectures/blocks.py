"""The small choices that architectures share: activations and initializers by name."""

import keras
from keras import layers

from trainer.errors import ConfigError


def activation(name: str, leaky_slope: float) -> layers.Layer:
    """A ReLU or LeakyReLU layer.

    Raises:
        ConfigError: The name is neither `relu` nor `leaky_relu`.
    """
    if name == "relu":
        return layers.ReLU()
    if name == "leaky_relu":
        return layers.LeakyReLU(negative_slope=leaky_slope)
    raise ConfigError(f"activation {name!r} is unknown; choose relu or leaky_relu.")


def initializer(name: str) -> keras.initializers.Initializer:
    """`normal_02` is the DCGAN paper's N(0, .02); any other name is Keras's."""
    if name == "normal_02":
        return keras.initializers.RandomNormal(stddev=0.02)
    return keras.initializers.get(name)
