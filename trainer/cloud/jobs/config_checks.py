"""Checks of a config against the registries of models, networks and losses. Importing this module loads TensorFlow."""

from trainer import metrics, networks
from trainer.config import TrainConfig, compatibility
from trainer.config.source_run import check_source_run
from trainer.data.datasets import root_source
from trainer.models import GAN, MODELS, ConditionalGAN, Pix2Pix, augment, factory, losses, penalties
from trainer.registry import check_known
from trainer.storage import parse_path


def check_config(config: TrainConfig) -> None:
    """Checks that every name and option of a config is registered, and that its settings fit each other.

    Raises:
        ConfigError: If a name or an option is unknown, or two settings do not fit each other.
    """
    for path in (config.job_dir, root_source(config.dataset), config.dataset_b and root_source(config.dataset_b)):
        if path is not None:
            parse_path(path)
    check_source_run(config)
    losses.check_name(config.loss)
    networks.check_name(config.architecture)
    MODELS.check_name(config.model)
    for penalty in config.penalties:
        penalties.check_name(penalty)
    if config.augment is not None:
        augment.check_name(config.augment)
    compatibility.check(config, factory.traits(config))
    architecture_options = networks.default_options(config.architecture)
    for option in config.architecture_options:
        check_known(f"option of architecture {config.architecture}", option, architecture_options)
    model_options = factory.model_options(config.model)
    for option in config.model_options:
        check_known(f"option of model {config.model}", option, model_options)


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
    names = () if suite == "none" else tuple(metrics.goals(suite))
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
