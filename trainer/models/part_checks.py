"""Checks of the names and options in a config against the registered models, networks, losses and augmentations."""

from trainer import networks
from trainer.config import TrainConfig, compatibility
from trainer.models import augment, losses, penalties
from trainer.models.factory import check_model_options, traits
from trainer.models.registry import MODELS


def check_parts(config: TrainConfig) -> None:
    """Checks that every name and option of a config is registered, and that its settings fit each other.

    It needs no data: the trainer calls it before it reads any, and `submit` before it sends a job.

    Raises:
        ConfigError: If a name or an option is unknown, or two settings do not fit each other.
    """
    losses.check_name(config.loss)
    networks.check_name(config.architecture)
    MODELS.check_name(config.model)
    for penalty in config.penalties:
        penalties.check_name(penalty)
    if config.augment is not None:
        augment.check_name(config.augment)
    compatibility.check(config, traits(config))
    networks.check_options(config.architecture, config.architecture_options)
    check_model_options(config.model, config.model_options)
