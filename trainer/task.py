"""Trains: `python -m trainer.task --recipe=digits --job_dir=runs/digits`. Flags make a config, the config a run."""

import sys

from absl import flags as absl_flags

from trainer import console, flags, recipes

_USAGE = f"""Trains a GAN.

  python -m trainer.task --recipe=NAME --job_dir=DIRECTORY [FLAGS]

A recipe gives every setting; flags change single ones. Recipes: {", ".join(recipes.names())}.
"""


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags: one a setting, and `--dry_run`."""
    flags.define_config(values)
    absl_flags.DEFINE_bool("dry_run", False, "Print the resolved config as JSON and touch nothing.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Trains, or prints the config that it would train."""
    given = flags.given(values)
    config = recipes.get(given.pop("recipe", "digits")).override(**given)
    with console.quiet_import():
        from trainer import training

    config = training.resolve(config)
    if values.dry_run:
        print(config.to_json())
        return
    training.train(config)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return flags.run(argv, _USAGE, define, act, resumes=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
