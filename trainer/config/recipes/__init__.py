"""Recipes: named, complete configs. Each is a function whose docstring states its source, score and cost.

A custom recipe is a function that returns a `TrainConfig`, selected with `--recipe=my_package.my_module:my_recipe`.
Importing its module also registers the losses, penalties, architectures and models that the module defines.
"""

from trainer.config.recipes import dcgans, modern, perceptrons, translation  # noqa: F401  (registers recipes)
from trainer.config.recipes.registry import (
    Recipe,
    check_custom_name,
    docstring,
    get,
    import_module,
    is_custom,
    names,
    register_recipe,
    summary,
)

__all__ = [
    "Recipe",
    "check_custom_name",
    "docstring",
    "get",
    "import_module",
    "is_custom",
    "names",
    "register_recipe",
    "summary",
]
