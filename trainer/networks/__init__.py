"""Architectures: functions from an image shape to the factories of its networks, registered by one decorator."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, overload

import keras

from trainer.errors import ConfigError, TrainerError
from trainer.registry import Registry, check_known

Networks = dict[str, Callable[[], keras.Model]]
"""Factories by network name (`generator`, `discriminator`, ...), to be called inside a strategy's scope."""

Maps = Literal["latents", "images"]
"""What a generator takes: latents [B, Z], or images [B, H, W, C] that it translates."""

Architecture = Callable[..., Networks]

_Made = TypeVar("_Made")

_ARCHITECTURES: Registry[Architecture] = Registry("architecture")
names, check_name = _ARCHITECTURES.names, _ARCHITECTURES.check_name
_MAPS: dict[str, Maps] = {}


@overload
def register_architecture(function: Architecture) -> Architecture: ...


@overload
def register_architecture(*, maps: Maps) -> Callable[[Architecture], Architecture]: ...


def register_architecture(
    function: Architecture | None = None, *, maps: Maps = "latents"
) -> Architecture | Callable[[Architecture], Architecture]:
    """Registers an architecture under the name of its function.

    Use it as `@register_architecture`, or as `@register_architecture(maps="images")`.

    The function takes `image_shape` (H, W, C), `latent_dim`, `condition_size` (the K values of a label that are joined
    to the latents and, as K more channels, to the images; 0 for none) and `output_activation`, then its own options,
    by keyword, with defaults. One that maps images has no use for `latent_dim`.
    """

    def register(function: Architecture) -> Architecture:
        _MAPS[function.__name__] = maps
        return _ARCHITECTURES.add(function.__name__, function)

    return register if function is None else register(function)


def maps(name: str) -> Maps:
    """What the generator of an architecture takes: `latents` or `images`.

    Raises:
        ConfigError: The architecture is unknown; the message names the nearest one.
    """
    check_name(name)
    return _MAPS[name]


def default_options(name: str) -> dict[str, Any]:
    """The options of an architecture with their defaults."""
    parameters = inspect.signature(_ARCHITECTURES[name]).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


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
        ConfigError: The architecture or one of its options is unknown, where the message names the nearest one, or the
            package's own networks cannot be built with them.
    """
    accepted = list(default_options(name))
    for option in options:
        check_known(f"option of architecture {name}", option, accepted)
    function = _ARCHITECTURES[name]
    if not options or not function.__module__.startswith(f"{__name__}."):
        return function(image_shape, latent_dim, condition_size, output_activation, **options)
    made = _explained(name, options, function)(image_shape, latent_dim, condition_size, output_activation, **options)
    return {network: _explained(name, options, factory) for network, factory in made.items()}


def _explained(name: str, options: Mapping[str, Any], function: Callable[..., _Made]) -> Callable[..., _Made]:
    """A function of an architecture's that blames its options where a layer cannot be made of them."""

    @functools.wraps(function)
    def explained(*arguments: Any, **settings: Any) -> _Made:
        try:
            return function(*arguments, **settings)
        except TrainerError:
            raise
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ConfigError(
                f"architecture={name} cannot be built with "
                f"architecture_options={json.dumps(dict(options), default=str)} "
                f"({' '.join(str(error).split())}); change one of them."
            ) from error

    return explained


from trainer.networks import (  # noqa: E402  (importing a module registers its architectures)
    dcgan,  # noqa: F401
    image_translation,  # noqa: F401
    mlp,  # noqa: F401
    r3gan,  # noqa: F401
    resnet,  # noqa: F401
    upsampling,  # noqa: F401
)
