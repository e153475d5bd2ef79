"""The `evaluate` command."""

import json

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.config.compatibility import check_metrics
from trainer.errors import ConfigError
from trainer.logging import quiet_import

_USAGE = """Measures a run's generator against the training images, and prints the metrics as JSON.

  {command} --job_dir=DIRECTORY [--checkpoint=best|latest|STEP]

The output also has the metrics of real images against other real images, for comparison.
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "checkpoint", "best", "Checkpoint to measure: best, latest, or a step.", flag_values=values
    )
    config_flags.define_recipe(values)
    absl_flags.DEFINE_string("metrics", None, "Metric suite. None: the suite of the run.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints the metrics as JSON."""
    with quiet_import():
        from trainer import metrics
        from trainer.data.loading import load_training_data
        from trainer.models import traits
        from trainer.training import restore

    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    config = config.override(metrics=values.metrics or config.metrics)
    if not config.has_metrics:
        raise ConfigError(
            f"the run in {values['job_dir'].value} has metrics=none; name a metric suite, such as --metrics=digits."
        )
    check_metrics(config, translates=traits(config).translates)
    suite = metrics.get(config.suite)(*load_training_data(config).real_images())
    result = {"step": manifest.step, "metrics": suite.measure(gan), "real_against_real": suite.real_vs_real()}
    print(json.dumps(result, indent=2))


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)
