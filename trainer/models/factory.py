"""From a config to a compiled GAN."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer import networks
from trainer.config import TrainConfig
from trainer.config.compatibility import Traits, check_architecture
from trainer.models import losses
from trainer.models.acgan import ACGAN
from trainer.models.conditional import ConditionalGAN
from trainer.models.cyclegan import CycleGAN
from trainer.models.gan import GAN
from trainer.models.infogan import InfoGAN
from trainer.registry import Registry, check_known
from trainer.training.schedules import Ramp, ScheduleLike

MODELS: Registry[type[GAN]] = Registry("model")
"""The classes that `--model` names."""


def register_model(name: str) -> Callable[[type[GAN]], type[GAN]]:
    """Registers a subclass of `GAN` under a name that `--model` accepts.

    Its own arguments, by keyword and with defaults, are its `model_options`; it hands on all others.
    """
    return functools.partial(MODELS.add, name)


for _name, _class in (
    ("gan", GAN),
    ("conditional", ConditionalGAN),
    ("acgan", ACGAN),
    ("infogan", InfoGAN),
    ("cyclegan", CycleGAN),
):
    MODELS.add(_name, _class)

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
        num_classes: K of the data; used by models with labels.
        strategy: Where it trains; None: the current strategy.

    Raises:
        ConfigError: The architecture, an option or the loss is unknown, or they do not fit each other.
    """
    gan = _wiring(config, num_classes)
    gan.set_network_factories(
        networks.build(
            config.architecture,
            image_shape,
            gan.latent_size + gan.num_classes - gan.condition_size,
            gan.condition_size,
            _OUTPUT_ACTIVATIONS[config.image_range],
            config.architecture_options,
        )
    )
    gan.compile(
        optimizer={phase: _optimizer(config, phase) for phase in ("generator", "discriminator")},
        loss=config.loss,
        update_order=config.update_order,
        discriminator_updates=config.discriminator_updates,
        discriminator_repeats=config.discriminator_repeats,
        penalties=config.penalties,
        penalty_weight=_scheduled(config, config.penalty_weight, config.penalty_weight_end),
        penalty_every_steps=config.penalty_every_steps,
        augment=config.augment,
        augment_probability=_scheduled(config, config.augment_probability, config.augment_probability_end),
        ema_half_life_images=_half_life(config),
        jit_compile=_JIT_COMPILE[config.jit_compile],
        precision=config.precision,
        seed=config.seed,
        strategy=strategy,
    )
    return gan


def traits(config: TrainConfig) -> Traits:
    """What the rules of `trainer.config.compatibility` ask of the parts of a config.

    Raises:
        ConfigError: A part is unknown.
    """
    networks.check_name(config.architecture)
    loss = losses.get(config.loss)
    return Traits(
        translates=issubclass(MODELS[config.model], CycleGAN),
        loss=config.loss,
        loss_is_separable=loss.is_separable,
        is_shift_invariant=loss.is_shift_invariant,
        maps={name: networks.maps(name) for name in networks.names()},
    )


def _wiring(config: TrainConfig, num_classes: int) -> GAN:
    """The GAN of a config, without its networks."""
    kind = MODELS[config.model]
    found = traits(config)
    check_architecture(config, translates=found.translates, maps=found.maps)
    for option in config.model_options:
        check_known(f"option of model {config.model}", option, model_options(config.model))
    labels: dict[str, Any] = {}
    if issubclass(kind, ConditionalGAN) and not kind.labels_are_codes:
        labels = {"num_classes": num_classes, "classes": config.classes}
    return kind(
        config.latent_dim,
        latent_distribution=config.latent_distribution,
        image_range=config.image_range,
        **labels,
        **config.model_options,
    )


def model_options(name: str) -> list[str]:
    """The options of a model."""
    common = {*_arguments(GAN), "num_classes", "classes"}
    return [option for option in _arguments(MODELS[name]) if option not in common]


def _arguments(kind: type[GAN]) -> list[str]:
    """What a class and those above it take by name."""
    named = [
        parameter.name
        for base in kind.__mro__
        if issubclass(base, GAN)
        for parameter in inspect.signature(base).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    return list(dict.fromkeys(named))


def _optimizer(config: TrainConfig, phase: str) -> keras.optimizers.Optimizer:
    """The optimizer of a phase, on its schedules.

    Of a discriminator that is penalized at every k-th step alone, the rate and the betas are corrected by
    c = k / (k+1): rate * c, beta ** c. Source: arXiv 1912.04958, appendix B.
    """
    of_discriminator = phase == "discriminator"
    every = config.penalty_every_steps if of_discriminator and config.penalties else 1
    correction = every / (every + 1) if every > 1 else 1.0
    rate = getattr(config, f"{phase}_learning_rate") * correction
    updates = _schedule_steps(config) * (config.discriminator_repeats if of_discriminator else 1)
    if of_discriminator and config.discriminator_updates == "separate":
        updates *= 2
    learning_rate: Any = rate
    if config.learning_rate_decay != "none":
        learning_rate = Ramp(
            rate,
            rate * config.learning_rate_end,
            updates,
            begin=config.learning_rate_decay_begin * updates,
            shape=config.learning_rate_decay,
        )
    if config.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate, epsilon=config.epsilon)
    beta_2: Any = config.beta_2**correction
    if config.beta_2_end is not None:
        beta_2 = Ramp(beta_2, config.beta_2_end**correction, updates)
    return keras.optimizers.Adam(learning_rate, beta_1=config.beta_1**correction, beta_2=beta_2, epsilon=config.epsilon)


def _scheduled(config: TrainConfig, start: float | None, end: float | None) -> Any:
    return start if end is None or start is None else Ramp(start, end, _schedule_steps(config))


def _half_life(config: TrainConfig) -> ScheduleLike:
    if config.ema_schedule == "early" or not config.ema_half_life_images:
        return config.ema_half_life_images
    return Ramp(0.0, config.ema_half_life_images, _schedule_steps(config))


def _schedule_steps(config: TrainConfig) -> float:
    """Steps at which the schedules end."""
    images = config.schedule_images or (config.steps or 1) * config.global_batch_size
    return images / config.global_batch_size
