"""Wirings: `GAN` subclasses that say which networks exist and which phases a step runs."""

from typing import Any

import keras
import tensorflow as tf

from trainer import architectures
from trainer.config import TrainConfig
from trainer.gans.base import GAN
from trainer.gans.conditional import ConditionalGAN

__all__ = ["GAN", "ConditionalGAN", "from_config"]

_JIT_COMPILE: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}
_OUTPUT_ACTIVATIONS = {"-1..1": "tanh", "0..1": "sigmoid", "0..255": "relu"}


def from_config(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    strategy: tf.distribute.Strategy | None = None,
) -> GAN:
    """The compiled GAN of a config.

    Args:
        config: A resolved config.
        image_shape: (H, W, C) of the data.
        num_classes: K of the data; used by conditional wirings.
        strategy: Where it trains; None: the current strategy.

    Raises:
        ConfigError: The architecture, one of its options or the loss is unknown.
    """
    conditional = config.wiring == "conditional"
    networks = architectures.build(
        config.architecture,
        image_shape,
        config.latent_dim,
        num_classes if conditional else 0,
        _OUTPUT_ACTIVATIONS[config.image_range],
        config.architecture_options,
    )
    settings: dict[str, Any] = {
        "networks": networks,
        "latent_distribution": config.latent_distribution,
        "image_range": config.image_range,
    }
    gan = (
        ConditionalGAN(config.latent_dim, num_classes, **settings)
        if conditional
        else GAN(config.latent_dim, **settings)
    )
    gan.compile(
        optimizer={
            "generator": _optimizer(config, config.generator_learning_rate),
            "discriminator": _optimizer(config, config.discriminator_learning_rate),
        },
        loss=config.loss,
        update_order=config.update_order,
        discriminator_repeats=config.discriminator_repeats,
        ema_half_life_images=config.ema_half_life_images,
        jit_compile=_JIT_COMPILE[config.jit_compile],
        precision=config.precision,
        seed=config.seed,
        strategy=strategy,
    )
    return gan


def _optimizer(config: TrainConfig, learning_rate: float) -> keras.optimizers.Optimizer:
    if config.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate)
    return keras.optimizers.Adam(learning_rate, beta_1=config.beta_1, beta_2=config.beta_2)
