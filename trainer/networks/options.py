"""The small choices that architectures share: activations and initializers by name, checks, sizes that do not divide.

Legend: `H W` an image.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from trainer.config.fields import check_number
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


def check_sizes(option: str, sizes: Any, at_least: int = 1) -> None:
    """Raises ConfigError where widths, sizes or strides are no list, are too few or are other than whole numbers."""
    if not isinstance(sizes, (list, tuple)):
        raise ConfigError(
            f"{option}={sizes} is no list; give {at_least} or more whole numbers above 0, as in [64, 32]."
        )
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
    if len(sizes) < at_least or not whole:
        raise ConfigError(f"{option}={list(sizes)} cannot be built; give {at_least} or more whole numbers above 0.")


def check_counts(**options: Any) -> None:
    """Raises ConfigError where an option is no whole number from 1 up."""
    for option, value in options.items():
        check_number(option, value, whole=True, minimum=1)


def check_rates(leaky_slope: Any = 0.0, dropout: Any = 0.0, batch_norm_momentum: Any = 0.0) -> None:
    """Raises ConfigError where one of the numbers that most architectures take is none, or out of range."""
    check_number("leaky_slope", leaky_slope)
    check_number("dropout", dropout, below=1)
    check_number("batch_norm_momentum", batch_norm_momentum)


def cropping(made: tuple[int, int], wanted: tuple[int, int]) -> list[layers.Layer]:
    """The layer that takes images of size `made` (H, W) down to `wanted`, centerd; none where they are the same."""
    spare = [larger - size for larger, size in zip(made, wanted, strict=True)]
    return [layers.Cropping2D([(size // 2, size - size // 2) for size in spare])] if any(spare) else []
