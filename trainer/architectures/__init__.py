"""Architectures: functions from an image shape to the factories of its networks, registered by one decorator."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import keras

from trainer.errors import ConfigError

Networks = dict[str, Callable[[], keras.Model]]
"""Factories by network name (`generator`, `discriminator`, ...), to be called inside a strategy's scope."""

Maps = Literal["latents", "images"]
"""What a generator takes: latents [B, Z], or images [B, H, W, C] that it translates."""

Architecture = Callable[..., Networks]

_ARCHITECTURES: dict[str, Architecture] = {}
_MAPS: dict[str, Maps] = {}


@overload
def architecture(function: Architecture) -> Architecture: ...


@overload
def architecture(*, maps: Maps) -> Callable[[Architecture], Architecture]: ...


def architecture(
    function: Architecture | None = None, *, maps: Maps = "latents"
) -> Architecture | Callable[[Architecture], Architecture]:
    """Registers an architecture under the name of its function, as `@architecture` or `@architecture(maps="images")`.

    The function takes `image_shape` (H, W, C), `latent_dim`, `condition_size` (the K values of a label that are joined
    to the latents and, as K more channels, to the images; 0 for none) and `output_activation`, then its own options,
    by keyword, with defaults. One that maps images has no use for `latent_dim`.
    """

    def register(function: Architecture) -> Architecture:
        _ARCHITECTURES[function.__name__] = function
        _MAPS[function.__name__] = maps
        return function

    return register if function is None else register(function)


def names() -> list[str]:
    """The registered architectures, sorted."""
    return sorted(_ARCHITECTURES)


def maps(name: str) -> Maps:
    """What the generator of an architecture takes: `latents` or `images`.

    Raises:
        ConfigError: The architecture is unknown; the message names the nearest one.
    """
    check_name(name)
    return _MAPS[name]


def default_options(name: str) -> dict[str, Any]:
    """The options of an architecture with their defaults."""
    check_name(name)
    parameters = inspect.signature(_ARCHITECTURES[name]).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


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
    accepted = list(default_options(name))
    for option in options:
        _check_known(f"option of architecture {name}", option, accepted)
    return _ARCHITECTURES[name](image_shape, latent_dim, condition_size, output_activation, **options)


def _check_known(what: str, name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"{name!r} is an unknown {what}; {hint}Known are {', '.join(known)}.")


from trainer.architectures import (  # noqa: E402  (importing a module registers what it holds)
    dcgan,  # noqa: F401
    mlp,  # noqa: F401
    r3gan,  # noqa: F401
    resnet,  # noqa: F401
    translators,  # noqa: F401
    upsampling,  # noqa: F401
)
