"""Recipes: named, complete configs, each one function whose docstring gives source, expected score and cost.

A recipe of your own is a function that returns a `TrainConfig`, named as `--recipe=my_package.my_module:my_recipe`;
what its module registers (losses, penalties, architectures) is there by then.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from trainer.config import TrainConfig
from trainer.errors import CheckpointError, ConfigError, quote
from trainer.registry import Registry

Recipe = Callable[[], TrainConfig]

_RECIPES: Registry[Recipe] = Registry("recipe")
names = _RECIPES.names
_MAX_NAME = 255


def register_recipe(function: Recipe) -> Recipe:
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


def import_home(name: str, never_from: Path | None = None) -> None:
    """Imports the module of a recipe of one's own, so that what it registers is known.

    Args:
        name: Of a registered recipe, or `MODULE:FUNCTION` of one's own.
        never_from: Folder, such as the run directory that names the recipe, whose files are never imported.

    Raises:
        CheckpointError: The module, or a package that it is in, lies in `never_from`.
        ConfigError: There is no such module or function.
    """
    _function(name, never_from)


def is_own(name: str) -> bool:
    """Whether a recipe is one's own, in the form `MODULE:FUNCTION`, and not one of the package."""
    return ":" in name


def check_form(name: str) -> None:
    """Checks that the name of a recipe of one's own has the form `MODULE:FUNCTION`, so that it can be shown whole.

    Raises:
        ConfigError: It has another form.
    """
    module_name, _, function_name = name.partition(":")
    if len(name) > _MAX_NAME or not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise ConfigError(f"recipe={quote(name)} names no function; write MODULE:FUNCTION, as in my_gans:my_recipe.")


def _function(name: str, never_from: Path | None = None) -> Recipe:
    module_name, _, function_name = name.partition(":")
    return _from_module(name, module_name, function_name, never_from) if is_own(name) else _RECIPES[name]


def _check_outside(name: str, module_name: str, folder: Path) -> None:
    """Refuses a module in a folder, of a package each part before it is imported."""
    root = os.path.realpath(folder)
    parts = module_name.split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))  # imports the packages above, which were checked
        except ValueError:  # of a module that is imported already, and was made by no finder
            continue
        if spec is None:
            return
        for place in (spec.origin if spec.has_location else None, *(spec.submodule_search_locations or ())):
            if place and os.path.commonpath([root, os.path.realpath(place)]) == root:
                raise CheckpointError(
                    f"the run in {quote(str(folder))} wants the recipe {quote(name)}, whose module lies in the run "
                    "directory itself, and no code of a run directory is imported; move the module out of it, and run "
                    f"the command there, if you trust {place!r}."
                )


def _from_module(name: str, module_name: str, function_name: str, never_from: Path | None) -> Recipe:
    check_form(name)
    try:
        if never_from is not None:
            _check_outside(name, module_name, never_from)
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


from trainer.config.recipes import classic, modern  # noqa: E402, F401  (importing a module registers what it holds)
