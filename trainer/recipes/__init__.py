"""Recipes: named, complete configs, each one function whose docstring gives source, expected score and cost.

A recipe of your own is a function that returns a `TrainConfig`, named as `--recipe=my_package.my_module:my_recipe`;
what its module registers (losses, penalties, architectures) is there by then.
"""

import importlib
from collections.abc import Callable

from trainer.config import TrainConfig
from trainer.errors import ConfigError
from trainer.registry import Registry

Recipe = Callable[[], TrainConfig]

_RECIPES: Registry[Recipe] = Registry("recipe")
names = _RECIPES.names


def recipe(function: Recipe) -> Recipe:
    """Registers a recipe under the name of its function."""
    return _RECIPES.add(function.__name__, function)


def get(name: str) -> TrainConfig:
    """The config of a recipe.

    Args:
        name: Of a registered recipe, or `MODULE:FUNCTION` of one's own.

    Raises:
        ConfigError: There is no such recipe; the message names the nearest one.
    """
    config = _function(name)()
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"recipe={name} returned {type(config).__name__}, expected a trainer.TrainConfig.")
    return config.override(recipe=name)


def summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return (_function(name).__doc__ or "").strip().splitlines()[0]


def import_home(name: str) -> None:
    """Imports the module of a recipe of one's own, so that what it registers is known.

    Raises:
        ConfigError: There is no such module or function.
    """
    _function(name)


def _function(name: str) -> Recipe:
    module_name, colon, function_name = name.partition(":")
    return _from_module(name, module_name, function_name) if colon else _RECIPES[name]


def _from_module(name: str, module_name: str, function_name: str) -> Recipe:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there, and what it imports is not
        raise ConfigError(
            f"recipe={name}: there is no module {module_name}; run from the folder that holds it, or install it."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"recipe={name}: {module_name} has no function {function_name!r}.")
    return function


from trainer.recipes import classic, modern  # noqa: E402, F401  (importing a module registers what it holds)
