"""Registry of recipes, and custom recipes in the form `MODULE:FUNCTION`."""

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
_MAX_NAME_LENGTH = 255


def register_recipe(function: Recipe) -> Recipe:
    """Registers a recipe under the name of its function."""
    return _RECIPES.add(function.__name__, function)


def get(name: str) -> TrainConfig:
    """Returns the config of a recipe.

    Args:
        name: Name of a registered recipe, or `MODULE:FUNCTION` of a custom one.

    Raises:
        ConfigError: If the recipe is unknown or does not return a `TrainConfig`.
    """
    config = _function(name)()
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"recipe={name} returned {type(config).__name__}; a recipe must return a trainer.TrainConfig."
        )
    return config.override(recipe=name)


def summary(name: str) -> str:
    """Returns the first line of a recipe's docstring."""
    return docstring(name).splitlines()[0]


def docstring(name: str) -> str:
    """Returns the docstring of a recipe."""
    return (_function(name).__doc__ or "").strip()


def import_module(name: str, excluded_folder: Path | None = None) -> None:
    """Imports the module of a custom recipe, so that the members it registers are known.

    Args:
        name: Name of a registered recipe, or `MODULE:FUNCTION` of a custom one.
        excluded_folder: Folder whose files are never imported, such as the run directory that names the recipe.

    Raises:
        CheckpointError: If the module, or a package that contains it, is in `excluded_folder`.
        ConfigError: If the module or the function does not exist.
    """
    _function(name, excluded_folder)


def is_custom(name: str) -> bool:
    """Returns whether a recipe is custom, in the form `MODULE:FUNCTION`."""
    return ":" in name


def check_custom_name(name: str) -> None:
    """Checks that the name of a custom recipe has the form `MODULE:FUNCTION`, so that it is safe to print.

    Raises:
        ConfigError: If the name has another form.
    """
    module_name, _, function_name = name.partition(":")
    parts = (*module_name.split("."), function_name)
    if len(name) > _MAX_NAME_LENGTH or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"recipe={quote(name)} is not a function; write MODULE:FUNCTION, such as my_gans:my_recipe.")


def _function(name: str, excluded_folder: Path | None = None) -> Recipe:
    return _custom_function(name, excluded_folder) if is_custom(name) else _RECIPES[name]


def _custom_function(name: str, excluded_folder: Path | None) -> Recipe:
    check_custom_name(name)
    module_name, _, function_name = name.partition(":")
    try:
        if excluded_folder is not None:
            _check_outside(name, module_name, excluded_folder)
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module exists, but one of its imports does not
        raise ConfigError(
            f"recipe={name} needs the module {module_name}, which was not found; run the command in the folder of the "
            "module, or install it."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"recipe={name} is unknown; {module_name} does not have a function {function_name!r}.")
    return function


def _check_outside(name: str, module_name: str, folder: Path) -> None:
    """Checks that a module and the packages that contain it are outside a folder, before any of them is imported."""
    root = os.path.realpath(folder)
    parts = module_name.split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))  # imports the parent packages, already checked
        except ValueError:  # an imported module without a spec
            continue
        if spec is None:
            return
        for path in (spec.origin if spec.has_location else None, *(spec.submodule_search_locations or ())):
            if path and os.path.commonpath([root, os.path.realpath(path)]) == root:
                raise CheckpointError(
                    f"the run in {quote(str(folder))} has the recipe {quote(name)}, whose module is in the run "
                    "directory itself, and code from a run directory is never imported; if you trust "
                    f"{path!r}, move it out of the run directory and run the command in its new folder."
                )
