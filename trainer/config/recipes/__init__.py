"""Recipes: named, complete configs. Each is a function whose docstring states its source, score and cost.

A recipe that takes a `RecipeContext` chooses its settings by the dataset and the device.
A custom recipe is a function that returns a `TrainConfig`, selected with `--recipe=my_package.my_module:my_recipe`.
Importing its module also registers the losses, penalties, architectures and models that the module defines.
"""

from trainer.config.recipes import (  # noqa: F401  (registers recipes)
    dcgans,
    fastgan,
    labels,
    perceptrons,
    photos,
    r3gan,
    regularized,
    stylegan2,
    translation,
)
from trainer.config.recipes.context import RecipeContext
from trainer.config.recipes.registry import (
    Recipe,
    check_custom_name,
    check_settings,
    docstring,
    get,
    import_module,
    is_custom,
    names,
    register_recipe,
    summary,
    takes_context,
)

__all__ = [
    "Recipe",
    "RecipeContext",
    "check_custom_name",
    "check_settings",
    "docstring",
    "get",
    "import_module",
    "is_custom",
    "names",
    "register_recipe",
    "summary",
    "takes_context",
]
