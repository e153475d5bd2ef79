"""The small choices that architectures share: activations and initializers by name, checks, sizes that do not divide.

Legend: `H W` an image.
"""

from collections.abc import Sequence
from typing import Any

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
    """`normal_02` is the DCGAN paper's N(0, .02); any other name is Keras's.

    An initializer gives every kernel of one shape the same values: layers of the same shape need one each.

    Raises:
        ConfigError: Keras has no initializer of that name.
    """
    if name == "normal_02":
        return keras.initializers.RandomNormal(stddev=0.02)
    try:
        return keras.initializers.get(name)
    except ValueError as error:
        raise ConfigError(
            f"initializer={name} is unknown; give normal_02 or a Keras name such as he_normal or glorot_uniform."
        ) from error


def check_choice(option: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ConfigError where an option is none of its words."""
    if value not in choices:
        *most, last = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]
        raise ConfigError(f"{option}={value} is unknown; choose {', '.join(most)} or {last}.")


def check_sizes(option: str, sizes: Sequence[int], at_least: int = 1) -> None:
    """Raises ConfigError where a list of widths, sizes or strides is too short or holds other than whole numbers."""
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
    if len(sizes) < at_least or not whole:
        raise ConfigError(f"{option}={list(sizes)} cannot be built; give {at_least} or more whole numbers above 0.")


def cropping(made: tuple[int, int], wanted: tuple[int, int]) -> list[layers.Layer]:
    """The layer that takes images of size `made` (H, W) down to `wanted`, centred; none where they are the same."""
    spare = [larger - size for larger, size in zip(made, wanted, strict=True)]
    return [layers.Cropping2D([(size // 2, size - size // 2) for size in spare])] if any(spare) else []
