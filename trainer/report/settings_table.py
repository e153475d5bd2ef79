"""The settings of a run, compared with its recipe."""

import json
from collections.abc import Mapping
from typing import Any

from trainer.config import recipes
from trainer.errors import ConfigError

_OPEN_SETTINGS = {
    "job_dir",
    "steps",
    "schedule_images",
    "sample_every_steps",
    "checkpoint_every_steps",
    "num_chunks",
    "num_metric_samples",
}
"""Settings that a run fills in if its recipe leaves them open."""
_NOT_SETTINGS = {"recipe", "fingerprints"}


def settings_table(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the settings of a run with those of its recipe, as plain JSON values.

    Args:
        config: Content of `config.json`.

    Returns:
        For each setting its `name`, its `value` and the value `recipe` as text, and whether it `differs`. `recipe` is
        None if it is unknown: for custom recipes, whose code is not run, for recipes that choose their settings by the
        data, and for settings of other versions.
    """
    recipe = _recipe_of(config)
    rows = []
    for name, value in config.items():
        if name in _NOT_SETTINGS:
            continue
        default = recipe.get(name)
        is_open = default == "auto" or (name in _OPEN_SETTINGS and _is_open(name, config, recipe))
        rows.append(
            {
                "name": name,
                "value": json.dumps(value),
                "recipe": json.dumps(default) if name in recipe else None,
                "differs": name in recipe and value != default and not is_open,
            }
        )
    return rows


def _recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the run's recipe; empty if they are unknown."""
    name = config.get("recipe")
    if name not in recipes.names():
        return {}
    try:
        return recipes.get(name).to_dict()
    except ConfigError:  # a recipe that chooses its settings by the data and the device
        return {}


def _is_open(name: str, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Returns whether the recipe leaves a setting open, or sets it in epochs as the run does."""
    in_epochs = name.replace("_steps", "_epochs")
    is_in_epochs = recipe.get(in_epochs) is not None and recipe.get(in_epochs) == config.get(in_epochs)
    return recipe.get(name) is None or is_in_epochs
