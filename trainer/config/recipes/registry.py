"""Registry of recipes, and custom recipes in the form `MODULE:FUNCTION`."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig
from trainer.config.choices import Size
from trainer.config.recipes.context import RecipeContext
from trainer.errors import CheckpointError, ConfigError, quote
from trainer.registry import Registry

Recipe = Callable[..., TrainConfig]
"""Function without parameters, or with one parameter `context: RecipeContext`."""

_RECIPES: Registry[Recipe] = Registry("recipe")
names = _RECIPES.names
_CONTEXT = "context"
"""Name of the parameter of a recipe that takes a context."""
_MAX_NAME_LENGTH = 255


def register_recipe(function: Recipe) -> Recipe:
    """Registers a recipe under the name of its function."""
    return _RECIPES.add(function.__name__, function)


def get(name: str, context: RecipeContext | None = None) -> TrainConfig:
    """Returns the config of a recipe.

    Args:
        name: Name of a registered recipe, or `MODULE:FUNCTION` of a custom one.
        context: Facts about the data and the devices. Recipes without a context ignore it.

    Raises:
        ConfigError: If the recipe is unknown, does not return a `TrainConfig`, or needs a context that is not given or
            that it has no settings for.
    """
    function = _function(name)
    if not _takes_context(function):
        config, size = function(), Size.AUTO.value
    elif context is None:
        raise ConfigError(
            f"recipe={name} chooses its settings by the data and the device; call recipes.get with a RecipeContext."
        )
    else:
        config, size = function(context=context), context.size
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"recipe={name} returned {type(config).__name__}; a recipe must return a trainer.TrainConfig."
        )
    return config.override(recipe=name, size=size)


def takes_context(name: str) -> bool:
    """Returns whether a recipe chooses its settings by a `RecipeContext`.

    Raises:
        ConfigError: If the recipe is unknown.
    """
    return _takes_context(_function(name))


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Checks the settings that a user gives with a recipe, without data and devices.

    Raises:
        ConfigError: If the recipe is unknown, a value is out of range, `dataset` is missing for a recipe that takes a
            context, or `size` is given for another one.
    """
    TrainConfig().override(**settings)
    if takes_context(name):
        if "dataset" not in settings:
            raise ConfigError(
                f"recipe={name} chooses its settings by the images, and dataset is not set; pass --dataset=FOLDER, the "
                "output of python -m trainer prepare."
            )
    elif settings.get("size", Size.AUTO) != Size.AUTO:
        raise ConfigError(
            f"size={settings['size']} has no effect on recipe={name}, whose networks have one size; remove it, or "
            "choose another recipe, such as photos."
        )


def summary(name: str) -> str:
    """Returns the first line of a recipe's docstring."""
    return docstring(name).splitlines()[0]


def docstring(name: str) -> str:
    """Returns the docstring of a recipe."""
    return (_function(name).__doc__ or "").strip()


def import_module(name: str, run_directory: Path | None = None, *, is_named: bool = True) -> None:
    """Imports the module of a custom recipe, so that the members it registers are known.

    Args:
        name: Name of a registered recipe, or `MODULE:FUNCTION` of a custom one.
        run_directory: Local run directory that names the recipe. Its files are never imported. None: no such directory.
        is_named: Whether the user names the recipe, too. If not, the files beside the run directory are not imported
            either, because they may have been copied with it, nor are modules of Python.

    Raises:
        CheckpointError: If the module, or a package that contains it, may not be imported.
        ConfigError: If the module or the function does not exist.
    """
    if is_custom(name) and run_directory is not None:
        check_custom_name(name)
        module_name = name.partition(":")[0]
        if not is_named and _is_part_of_python(module_name):
            raise CheckpointError(
                f"the run in {quote(str(run_directory))} has the recipe {quote(name)}, but the module {module_name} is "
                f"part of Python or a program; if you trust the run, pass --recipe={name}."
            )
        _check_outside(name, run_directory, None if is_named else _copied_folder(run_directory))
    _function(name)


def is_custom(name: str) -> bool:
    """Returns whether a recipe is custom, in the form `MODULE:FUNCTION`."""
    return isinstance(name, str) and ":" in name


def check_custom_name(name: str) -> None:
    """Checks that the name of a custom recipe has the form `MODULE:FUNCTION`, so that it is safe to print.

    Raises:
        ConfigError: If the name has another form.
    """
    module_name, _, function_name = name.partition(":")
    parts = (*module_name.split("."), function_name)
    if len(name) > _MAX_NAME_LENGTH or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"recipe={quote(name)} is not a function; write MODULE:FUNCTION, such as my_gans:my_recipe.")


def _takes_context(function: Recipe) -> bool:
    return _CONTEXT in inspect.signature(function).parameters


def _function(name: str) -> Recipe:
    return _custom_function(name) if is_custom(name) else _RECIPES[name]


def _custom_function(name: str) -> Recipe:
    check_custom_name(name)
    module_name, _, function_name = name.partition(":")
    try:
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
    try:
        signature = inspect.signature(function)
        signature.bind(**{name: None for name in signature.parameters if name == _CONTEXT})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"recipe={name} is no recipe; write a function that takes nothing or a {_CONTEXT}, and returns a "
            "TrainConfig."
        ) from error
    return function


def _is_part_of_python(module_name: str) -> bool:
    """Returns whether a module belongs to the standard library, or is the main module of a program."""
    parts = module_name.split(".")
    return parts[0] in sys.stdlib_module_names or "__main__" in parts


def _copied_folder(run_directory: Path) -> Path:
    """Returns the folder in the working folder, or in another folder of the module path, that contains a run.

    Whoever copied the run may have copied this whole folder.
    """
    root = Path(os.path.realpath(run_directory))
    entries = {Path(os.path.realpath(entry or os.curdir)) for entry in (os.curdir, *sys.path)}
    above = [folder for folder in root.parents if folder in entries]
    return above[0] / root.relative_to(above[0]).parts[0] if above else root


def _check_outside(name: str, run_directory: Path, copied_folder: Path | None) -> None:
    """Checks that a module and the packages that contain it are outside of a run, before any of them is imported.

    Args:
        name: Recipe.
        run_directory: Directory of the run.
        copied_folder: Folder that contains the run and may not contain the module either. None: no such folder.
    """
    parts = name.partition(":")[0].split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))  # imports the parent packages, already checked
        except ValueError:  # an imported module without a spec
            continue
        except ModuleNotFoundError:  # the module before is no package, or one of its imports does not exist
            return
        if spec is None:
            return
        for path in (spec.origin if spec.has_location else None, *(spec.submodule_search_locations or ())):
            if path and _is_inside(path, run_directory):
                raise CheckpointError(
                    f"the run in {quote(str(run_directory))} has the recipe {quote(name)}, whose module is in the run "
                    "directory itself, and code from a run directory is never imported; if you trust "
                    f"{quote(path)}, move it out of the run directory and run the command in its new folder."
                )
            if path and copied_folder is not None and _is_inside(path, copied_folder):
                raise CheckpointError(
                    f"the run in {quote(str(run_directory))} has the recipe {quote(name)}, whose module is beside the "
                    f"run, in {quote(str(copied_folder))}; if you trust {quote(path)}, pass --recipe={name}."
                )


def _is_inside(path: str, folder: Path) -> bool:
    """Returns whether a path or the target of its links is in a folder or in the target of the folder's links."""
    return any(
        os.path.commonpath([root, name]) == root
        for root in {os.path.abspath(folder), os.path.realpath(folder)}
        for name in {os.path.abspath(path), os.path.realpath(path)}
    )
