"""The `train` command."""

import textwrap

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import TrainConfig, flags as config_flags, recipes
from trainer.environment import Environment
from trainer.logging import install_handler, quiet_import

_RECIPES = textwrap.fill(", ".join(recipes.names()), 80, initial_indent="  ", subsequent_indent="  ")
_USAGE = f"""Trains a GAN in a run directory, or resumes from the directory's newest checkpoint.

  {{command}} --recipe=NAME --job_dir=DIRECTORY [FLAGS]

The recipe sets the default of every flag. Without --recipe, it is {TrainConfig().recipe}. Recipes:
{_RECIPES}
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines one flag per setting, and those of the command."""
    config_flags.define_config(values)
    config_flags.define_command(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Trains, or prints the resolved config."""
    install_handler(uses_stderr=values.dry_run)
    settings = config_flags.parsed_settings(values)
    recipe = settings.pop("recipe", TrainConfig().recipe)
    recipes.check_settings(recipe, settings)  # before TensorFlow is loaded
    with quiet_import():
        from trainer.training import complete_config, configure, run

    environment = Environment.read()
    config = configure.configure(recipe, settings, environment)
    if values.dry_run:
        print(complete_config.complete(config, environment).to_json())
        return
    run.train(config, environment, waits_for_lease=values.wait_for_lease)


main = app.command(_USAGE, define_flags, run_command, resumes=True)
