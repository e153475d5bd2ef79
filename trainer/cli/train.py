"""The `train` command: `python -m trainer train`, or `python -m trainer.task`."""

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cloud.vertex.environment import Environment
from trainer.config import flags as config_flags, recipes
from trainer.logging import quiet_import

_USAGE = f"""Trains a GAN.

  python -m trainer.task --recipe=NAME --job_dir=DIRECTORY [FLAGS]

A recipe gives every setting; flags change single ones. Recipes: {", ".join(recipes.names())}.
"""


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags: one a setting, and `--dry_run`."""
    config_flags.define_config(values)
    absl_flags.DEFINE_bool("dry_run", False, "Print the resolved config as JSON and touch nothing.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Trains, or prints the config that it would train."""
    given = config_flags.given(values)
    config = recipes.get(given.pop("recipe", "digits")).override(**given)
    with quiet_import():
        from trainer.training import run

    environment = Environment.read()
    config = run.resolve(config, environment)
    if values.dry_run:
        print(config.to_json())
        return
    run.train(config, environment)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act, resumes=True)
