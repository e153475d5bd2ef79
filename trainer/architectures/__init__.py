"""Architectures: functions from an image shape to the factories of its networks, registered by one decorator."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from trainer.errors import ConfigError

Networks = dict[str, Callable[[], keras.Model]]
"""Factories by network name (`generator`, `discriminator`, ...), to be called inside a strategy's scope."""

_ARCHITECTURES: dict[str, Callable[..., Networks]] = {}


def architecture(function: Callable[..., Networks]) -> Callable[..., Networks]:
    """Registers an architecture under the name of its function.

    The function takes `image_shape` (H, W, C), `latent_dim`, `condition_size` (the K values of a label that are joined
    to the latents and, as K more channels, to the images; 0 for none) and `output_activation`, then its own options,
    by keyword, with defaults.
    """
    _ARCHITECTURES[function.__name__] = function
    return function


def names() -> list[str]:
    """The registered architectures, sorted."""
    return sorted(_ARCHITECTURES)


def check_name(name: str) -> None:
    """Raises ConfigError, naming the nearest architecture, where `name` is not registered."""
    _check_known("architecture", name, names())


def build(
    name: str,
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    options: Mapping[str, Any],
) -> Networks:
    """The network factories of an architecture.

    Raises:
        ConfigError: The architecture or one of its options is unknown; the message names the nearest one.
    """
    check_name(name)
    function = _ARCHITECTURES[name]
    accepted = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for option in options:
        _check_known(f"option of architecture {name}", option, accepted)
    return function(image_shape, latent_dim, condition_size, output_activation, **options)


def _check_known(what: str, name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"{name!r} is an unknown {what}; {hint}Known are {', '.join(known)}.")


from trainer.architectures import dcgan, mlp  # noqa: E402, F401  (importing a module registers what it holds)
