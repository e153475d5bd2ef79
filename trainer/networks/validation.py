"""Checks of options that architectures share."""

from typing import Any

from trainer.config.fields import check_number
from trainer.errors import ConfigError, quote
from trainer.networks.layers.dropout import MAX_DROPOUT_RATE

_MAX_LAYERS = 1000
"""Maximum number of layers or blocks that an option may set, far above those of published networks."""


def check_int_list(option: str, values: Any, min_length: int = 1) -> None:
    """Checks a list of positive whole numbers, such as filters, units or strides.

    Raises:
        ConfigError: If the value is not a list, is too short or too long, or has an element that is not a positive
            whole number.
    """
    if not isinstance(values, (list, tuple)):
        raise ConfigError(
            f"{option}={quote(values)} is not a list; give {min_length} or more whole numbers above 0, as in [64, 32]."
        )
    if len(values) > _MAX_LAYERS:
        raise ConfigError(f"{option} has {len(values):,} numbers; give at most {_MAX_LAYERS:,}.")
    is_positive = all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in values)
    if len(values) < min_length or not is_positive:
        raise ConfigError(
            f"{option}={quote(list(values))} is invalid; give {min_length} or more whole numbers above 0."
        )


def check_positive_ints(**options: Any) -> None:
    """Checks options that are positive whole numbers.

    Raises:
        ConfigError: If one is not.
    """
    for option, value in options.items():
        check_number(option, value, whole=True, minimum=1)


def check_num_layers(**options: Any) -> None:
    """Checks options that are numbers of layers or blocks.

    Raises:
        ConfigError: If one is not a positive whole number, or is too large.
    """
    for option, value in options.items():
        check_number(option, value, whole=True, minimum=1, maximum=_MAX_LAYERS)


def check_rates(leaky_slope: Any = 0.0, dropout: Any = 0.0, batch_norm_momentum: Any = 0.0) -> None:
    """Checks the rates that most architectures take.

    Raises:
        ConfigError: If one is not a number or is out of range.
    """
    check_number("leaky_slope", leaky_slope)
    check_number("dropout", dropout, maximum=MAX_DROPOUT_RATE)
    check_number("batch_norm_momentum", batch_norm_momentum, below=1)
