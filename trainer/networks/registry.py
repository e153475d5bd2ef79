"""The registry of architectures: functions from an image shape and options to the factories of networks."""

import enum
import functools
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, overload

import keras

from trainer.errors import ConfigError, TrainerError
from trainer.registry import Registry, check_known, is_from_package

Networks = dict[str, Callable[[], keras.Model]]
"""Factories by network name (`generator`, `discriminator`, ...), to be called inside a strategy's scope."""

GeneratorInput = Literal["latents", "images"]
"""Input of a generator: latents [B, Z], or images [B, H, W, C] to translate."""

Architecture = Callable[..., Networks]


class NetworkPart(enum.Enum):
    """Part of the networks that some models use and not all architectures have, with its description in messages."""

    DENSE_OUTPUT = "a discriminator that ends in a dense layer"
    FEATURE_MAPS = "a discriminator with named feature maps"
    STYLES = "a generator with styles"


_Result = TypeVar("_Result")


class _Entry(NamedTuple):
    function: Architecture
    generator_input: GeneratorInput
    parts: frozenset[NetworkPart]


_ARCHITECTURES: Registry[_Entry] = Registry("architecture")
names, check_name = _ARCHITECTURES.names, _ARCHITECTURES.check_name


@overload
def register_architecture(function: Architecture) -> Architecture: ...


@overload
def register_architecture(
    *, generator_input: GeneratorInput = "latents", parts: Collection[NetworkPart] = ()
) -> Callable[[Architecture], Architecture]: ...


def register_architecture(
    function: Architecture | None = None,
    *,
    generator_input: GeneratorInput = "latents",
    parts: Collection[NetworkPart] = (),
) -> Architecture | Callable[[Architecture], Architecture]:
    """Registers an architecture under the name of its function.

    Use it as `@register_architecture`, or as `@register_architecture(generator_input="images")`.

    The function takes four positional arguments, followed by its own options as keyword arguments with defaults:

    - `image_shape`: Shape (H, W, C) of the images.
    - `latent_dim`: Size Z of the latents. Unused if the generator's input is images.
    - `condition_size`: Number K of label values that are concatenated to the latents and, as K more channels, to the
      images; 0 for none.
    - `output_activation`: Activation of the generator's output: tanh, sigmoid or relu.

    It raises ConfigError if an option cannot be used.

    The architectures of this package state the `parts` that their networks have with the default options. For other
    architectures, a model looks for the parts when the networks are built.
    """

    def register(function: Architecture) -> Architecture:
        entry = _Entry(function, generator_input, frozenset(parts))
        _ARCHITECTURES.add(function.__name__, entry, source=function)
        return function

    return register if function is None else register(function)


def is_custom(name: str) -> bool:
    """Returns whether an architecture is not one of this package.

    Raises:
        ConfigError: If the name is unknown.
    """
    return not is_from_package(get(name))


def generator_input(name: str) -> GeneratorInput:
    """Returns the kind of input that the generator of an architecture takes.

    Raises:
        ConfigError: If the architecture is unknown. The message suggests the closest name.
    """
    return _ARCHITECTURES[name].generator_input


def lacks(name: str, part: NetworkPart) -> bool:
    """Returns whether an architecture of this package has networks without a part. False for other architectures.

    Raises:
        ConfigError: If the architecture is unknown.
    """
    return not is_custom(name) and part not in _ARCHITECTURES[name].parts


def get(name: str) -> Architecture:
    """Returns the function of an architecture.

    Raises:
        ConfigError: If the name is unknown. The message suggests the closest name.
    """
    return _ARCHITECTURES[name].function


def default_options(name: str) -> dict[str, Any]:
    """Returns the options of an architecture with their defaults."""
    parameters = inspect.signature(get(name)).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def check_options(name: str, options: Iterable[str]) -> None:
    """Checks that an architecture has options of these names.

    Raises:
        ConfigError: If the architecture or an option is unknown. The message suggests the closest name.
    """
    known_options = list(default_options(name))
    for option in options:
        check_known(f"option of architecture {name}", option, known_options)


def build(
    name: str,
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    options: Mapping[str, Any],
) -> Networks:
    """Returns the network factories of an architecture.

    Args:
        name: Name of a registered architecture.
        image_shape: Shape (H, W, C) of the images.
        latent_dim: Size Z of the latents.
        condition_size: Number K of label values; 0 for none.
        output_activation: Activation of the generator's output: tanh, sigmoid or relu.
        options: Options of the architecture that differ from their defaults.

    Raises:
        ConfigError: If the architecture or an option is unknown, in which case the message suggests the closest name,
            or if one of the package's own architectures cannot be built with the options.
    """
    check_options(name, options)
    function = get(name)
    if not options or is_custom(name):
        return function(image_shape, latent_dim, condition_size, output_activation, **options)
    explain = functools.partial(_blame_options, name, options)
    factories = explain(function)(image_shape, latent_dim, condition_size, output_activation, **options)
    return {network: explain(factory) for network, factory in factories.items()}


def _blame_options(name: str, options: Mapping[str, Any], function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Wraps a function of an architecture so that errors of Keras's layers mention the options."""

    def wrapper(*args: Any, **kwargs: Any) -> _Result:
        try:
            return function(*args, **kwargs)
        except TrainerError:
            raise
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ConfigError(
                f"architecture={name} cannot be built with "
                f"architecture_options={json.dumps(dict(options), default=str)} "
                f"({' '.join(str(error).split())}); change one of them."
            ) from error

    return wrapper
