"""Checks of a config against the registries of models, networks and losses. Importing this module loads TensorFlow."""

from trainer.config import TrainConfig
from trainer.config.source_run import check_source_run
from trainer.config.suites import SUITES
from trainer.data.datasets import root_source
from trainer.models import GAN, MODELS, ConditionalGAN, Pix2Pix
from trainer.models.part_checks import check_parts
from trainer.storage import parse_path


def check_config(config: TrainConfig) -> None:
    """Checks the paths of a config, and its names, options and settings as the trainer does.

    Raises:
        ConfigError: If a path is malformed, a name or an option is unknown, or two settings do not fit each other.
    """
    for path in (config.job_dir, root_source(config.dataset), config.dataset_b and root_source(config.dataset_b)):
        if path is not None:
            parse_path(path)
    check_source_run(config)
    check_parts(config)


def needs_labels(model: str) -> bool:
    """Returns whether a model needs labeled images.

    Raises:
        ConfigError: If the model is unknown.
    """
    model_class = MODELS[model]
    return issubclass(model_class, ConditionalGAN) and not model_class.labels_are_codes


def takes_pairs(model: str) -> bool:
    """Returns whether a model learns from pairs of images.

    Raises:
        ConfigError: If the model is unknown.
    """
    return issubclass(MODELS[model], Pix2Pix)


def reported_metrics(suite: str, model: str | None, *, inception_score: bool = False) -> tuple[str, ...]:
    """Returns the `metricId`s that a trial reports.

    Args:
        suite: Name of the suite of metrics, or none.
        model: Name of the model. None if it is unknown; the result then has the metrics of every model.
        inception_score: Value of the setting.

    Raises:
        ConfigError: If the suite or the model is unknown.
    """
    names = () if suite == "none" else tuple(SUITES[suite].goals)
    names = tuple(name for name in names if inception_score or name != "inception_score")
    if model is None:
        return names
    own_accuracy = _accuracy_of(MODELS[model])
    return tuple(name for name in names if not name.endswith("_accuracy") or name == own_accuracy)


def _accuracy_of(model_class: type[GAN]) -> str | None:
    """Returns the metric for the labels of a model's samples; None if its samples have no labels."""
    if model_class.sample_labels is GAN.sample_labels:
        return None
    return "code_accuracy" if model_class.labels_are_codes else "conditional_accuracy"
