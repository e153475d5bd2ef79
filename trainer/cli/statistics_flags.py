"""Flags of the statistics that `prepare` computes, and their computation."""

from typing import Any

from absl import flags as absl_flags

from trainer.config import TrainConfig, flags as config_flags
from trainer.config.choices import MetricSuite
from trainer.config.suites import SUITES
from trainer.environment import Environment
from trainer.errors import ConfigError, DataError, count_of, quote
from trainer.logging import quiet_import
from trainer.metrics import inception_weights

_AUTO_STATISTICS = {"true": MetricSuite.AUTO.value, "false": None}
"""Suites of the values of --statistics that name none."""
_STATISTICS_SETTINGS = ("num_metric_samples", "inception_weights")


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    statistics = absl_flags.EnumFlag(
        "statistics",
        "false",
        "Also compute the statistics of the images that metrics compare with, so that no run has to: --statistics for "
        "the suite that --metrics=auto chooses, or --statistics=SUITE.",
        [*_AUTO_STATISTICS, MetricSuite.INCEPTION.value, MetricSuite.PHOTOS.value],
    )
    statistics.boolean = True  # --statistics without a value is --statistics=true
    absl_flags.DEFINE_flag(statistics, values)
    config_flags.define_config(values, _STATISTICS_SETTINGS)


def parse_config(out: str, values: absl_flags.FlagValues) -> TrainConfig | None:
    """Returns the config of the statistics to compute, after its weights were found; None to compute none.

    Raises:
        ConfigError: If flags do not go together, or the weights cannot be found.
    """
    suite = _AUTO_STATISTICS.get(values.statistics, values.statistics)
    if suite is None:
        for name in (name for name in _STATISTICS_SETTINGS if values[name].present):
            raise ConfigError(
                f"{name}={quote(values[name].value)} needs statistics; pass --statistics too, or omit it."
            )
        return None
    if values.source_b is not None:
        raise ConfigError(
            f"statistics={values.statistics} does not work with source_b={quote(values.source_b)}, because the metrics "
            "of two domains have no statistics; remove one of them."
        )
    if suite == MetricSuite.AUTO:
        has_weights = values.inception_weights is not None or inception_weights.is_cached()
        suite = MetricSuite.INCEPTION if has_weights else MetricSuite.PHOTOS
    if suite == MetricSuite.INCEPTION:
        inception_weights.find(values.inception_weights)
    settings: dict[str, Any] = {name: values[name].value for name in _STATISTICS_SETTINGS}
    return TrainConfig(dataset=out, metrics=suite, **settings)


def compute(config: TrainConfig) -> None:
    """Stores the statistics of a prepared dataset in its folder."""
    with quiet_import():
        from trainer import metrics
        from trainer.data.datasets import describe
        from trainer.data.loading import load_training_data
        from trainer.training.complete_config import with_machine_settings
        from trainer.training.metric_suite import create_suite

    num_images, minimum = describe(config.dataset).num_examples, SUITES[config.metrics].min_images
    if num_images < minimum:
        raise DataError(
            f"{config.dataset} is written, but has {count_of(num_images, 'image')}, and statistics need at least "
            f"{minimum}; use it without --statistics, or prepare more images."
        )
    config = with_machine_settings(config, Environment())
    extractor = metrics.get_extractor(config.metrics, config.inception_weights)
    create_suite(config, load_training_data(config), extractor).real_vs_real()
