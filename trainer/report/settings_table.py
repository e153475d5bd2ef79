"""The settings of a run, compared with its recipe."""

import json
from collections.abc import Mapping
from typing import Any

from trainer.config import recipes
from trainer.config.choices import Size
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
_MAX_FACT = 10**12
"""Largest number of images, pixels or devices that a report believes."""


def settings_table(config: Mapping[str, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the settings of a run with those of its recipe, as plain JSON values.

    A recipe that chooses its settings by the data and the devices is asked for its choices without any flags.

    Args:
        config: Content of `config.json`.
        facts: Event of the first start of the run; empty if it is unknown.

    Returns:
        For each setting its `name`, its `value` and the value `recipe` as text, and whether it `differs`. `recipe` is
        None if it is unknown: for custom recipes, whose code is not run, for recipes that choose their settings by
        facts that are unknown, and for settings of other versions.
    """
    recipe = _recipe_of(config, facts)
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


def _recipe_of(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the run's recipe; empty if they are unknown."""
    name = config.get("recipe")
    if name not in recipes.names():
        return {}
    if not recipes.takes_context(name):
        return recipes.get(name).to_dict()
    context = _context_of(config, facts)
    if context is None:
        return {}
    try:
        settings = recipes.get(name, context).to_dict()
    except ConfigError:  # the recipe of this version has no networks for the images
        return {}
    del settings["dataset"]  # such a recipe has none of its own
    return settings


def _context_of(config: Mapping[str, Any], facts: Mapping[str, Any]) -> recipes.RecipeContext | None:
    """Returns the facts by which the recipe chose; None if the events of the run do not have them."""
    shape, size, memory = facts.get("image_shape"), config.get("size"), facts.get("device_memory_gib")
    if not isinstance(shape, list) or len(shape) != 3 or size not in list(Size):
        return None
    numbers = [*shape, facts.get("num_images"), facts.get("num_devices")]
    if not all(type(number) is int and 0 < number <= _MAX_FACT for number in numbers):
        return None
    height, width, channels, num_images, num_devices = numbers
    return recipes.RecipeContext(
        image_shape=(height, width, channels),
        num_images=num_images,
        num_devices=num_devices,
        has_gpu=facts.get("device") == "GPU",
        device_memory_gib=memory if isinstance(memory, int | float) else None,
        size=size,
    )


def _is_open(name: str, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Returns whether the recipe leaves a setting open, or sets it in epochs as the run does."""
    in_epochs = name.replace("_steps", "_epochs")
    is_in_epochs = recipe.get(in_epochs) is not None and recipe.get(in_epochs) == config.get(in_epochs)
    return recipe.get(name) is None or is_in_epochs
