"""Measures a run's generator: `python -m trainer evaluate --job_dir=runs/digits`."""

import json

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.config.compatibility import check_metrics
from trainer.errors import ConfigError
from trainer.logging import quiet_import

_USAGE = """Measures a run's generator against its training images, beside real images against real ones.

  python -m trainer evaluate --job_dir=DIRECTORY [--checkpoint=best|latest|STEP]
"""


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string("checkpoint", "best", "best, latest or a step.", flag_values=values)
    config_flags.define_recipe(values)
    absl_flags.DEFINE_string("metrics", None, "Suite of metrics. None: the run's own.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Prints the metrics as JSON."""
    with quiet_import():
        from trainer import metrics
        from trainer.data.loading import load_training_data
        from trainer.models import traits
        from trainer.training import restore

    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    config = config.override(metrics=values.metrics or config.metrics)
    if config.metrics == "none":
        raise ConfigError(
            f"the run in {values['job_dir'].value} has no metrics: there are some for digits, stacked digits and "
            "cycles alone; look at its grids, or name a suite all the same, as in --metrics=digits."
        )
    check_metrics(config, translates=traits(config).translates)
    suite = metrics.get(config.metrics)(*load_training_data(config).real_images)
    print(
        json.dumps(
            {
                "step": manifest.step,
                "metrics": suite.measure(gan),
                "real_against_real": suite.real_vs_real(),
            },
            indent=2,
        )
    )


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)
