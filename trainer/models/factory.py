"""Construction of a compiled GAN from a config."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import networks
from trainer.config import TrainConfig
from trainer.config.choices import (
    DiscriminatorUpdates,
    EmaSchedule,
    ImageRange,
    JitCompile,
    LearningRateDecay,
    OptimizerName,
    Precision,
)
from trainer.config.compatibility import Traits, check_architecture, check_labels, check_pairs
from trainer.errors import ConfigError, quote
from trainer.models import losses
from trainer.models.compiled_state import check_accumulation
from trainer.models.conditional import ConditionalGAN
from trainer.models.frozen_layers import freeze_layers
from trainer.models.gan import GAN
from trainer.models.pix2pix import Pix2Pix
from trainer.models.registry import MODELS
from trainer.models.translator import ImageTranslator
from trainer.models.validation import check_expects, names_with_role
from trainer.models.weight_limit import check_num_weights, without_weights
from trainer.models.xla import gains_from_xla
from trainer.registry import check_known, is_from_package
from trainer.training.processors import supports_bfloat16
from trainer.training.schedules import Ramp, ScheduleLike

_INPUT_CHANNELS = "input_channels"
"""Option of architectures that translate images: the channels of the inputs of pairs."""
_JIT_COMPILE: dict[str, bool | str] = {JitCompile.AUTO: "auto", JitCompile.ON: True, JitCompile.OFF: False}
_OUTPUT_ACTIVATIONS: dict[str, str] = {
    ImageRange.SIGNED_UNIT: "tanh",
    ImageRange.UNIT: "sigmoid",
    ImageRange.EIGHT_BIT: "relu",
}


def from_config(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    strategy: tf.distribute.Strategy | None = None,
    *,
    input_channels: int = 0,
    conditions: np.ndarray | None = None,
    class_counts: Sequence[int] | None = None,
) -> GAN:
    """Builds and compiles the GAN of a config.

    Args:
        config: Resolved config.
        image_shape: Shape of the images, (H, W, C).
        num_classes: Number of classes of the data; used by models with labels.
        strategy: Strategy to train under; None for the current strategy.
        input_channels: Number of channels of the inputs of pairs; 0 if the images have no inputs.
        conditions: Vector of conditions of each class, [num_classes, K]; None if the classes are no conditions.
        class_counts: Number of images of each class; used with `conditions`.

    Raises:
        ConfigError: If the architecture, an option or the loss is unknown, or they do not fit each other.
    """
    facts: dict[str, Any] = {"input_channels": input_channels, "conditions": conditions, "class_counts": class_counts}
    if config.precision == Precision.AUTO:
        config = with_compute_settings(
            config,
            image_shape,
            num_classes,
            can_use_bfloat16=supports_bfloat16(),
            **facts,
        )
    gan = create_gan(config, image_shape, num_classes, **facts)
    gan.compile(
        optimizer={
            "generator": _optimizer(config, "generator", gan.generator_penalty_every_steps),
            "discriminator": _optimizer(config, "discriminator", config.penalty_every_steps if config.penalties else 1),
        },
        loss=config.loss,
        update_order=config.update_order,
        discriminator_updates=config.discriminator_updates,
        discriminator_repeats=config.discriminator_repeats,
        **_regularization(config),
        ema_half_life_images=_half_life(config),
        jit_compile=_JIT_COMPILE[config.jit_compile],
        precision=config.precision,
        max_weights=config.max_weights,
        freeze_discriminator_layers=config.freeze_discriminator_layers,
        accumulate_steps=config.accumulate_steps,
        seed=config.seed,
        strategy=strategy,
    )
    return gan


def with_compute_settings(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    can_use_bfloat16: bool,
    **facts: Any,
) -> TrainConfig:
    """Checks that the networks of a config can be built, and replaces `precision=auto` and `jit_compile=auto`.

    The networks are built without memory for weights. The values that replace `auto` are those that train fastest.
    A model or an architecture that is not one of this package takes float32, because its code may expect that.

    Args:
        config: Resolved config.
        image_shape: Shape of the images, (H, W, C).
        num_classes: Number of classes of the data; used by models with labels.
        can_use_bfloat16: Whether bfloat16 is fast on the processors of all machines.
        **facts: Further facts about the data, as for `from_config`.

    Raises:
        ConfigError: If the networks cannot be built, or have fewer layers than are to be frozen.
        NetworkError: If they do not fit the loss, have too many weights, or cannot accumulate gradients.
    """
    with without_weights():
        gan = create_gan(config, image_shape, num_classes, **facts)
        built = gan.get_networks()
    _check_networks(config, gan, built)
    if config.precision == Precision.AUTO:
        is_own = is_from_package(MODELS[config.model]) and not networks.is_custom(config.architecture)
        config = config.override(precision=Precision.BFLOAT16 if can_use_bfloat16 and is_own else Precision.FLOAT32)
    if config.jit_compile == JitCompile.AUTO:
        uses_xla = gains_from_xla(built.values(), config.precision)
        config = config.override(jit_compile=JitCompile.ON if uses_xla else JitCompile.OFF)
    return config


def _check_networks(config: TrainConfig, gan: GAN, built: Mapping[str, keras.layers.Layer]) -> None:
    """Checks networks without weights, as `compile` checks those with weights. It freezes their layers."""
    copies = gan.ema_networks if config.ema_half_life_images else ()
    check_num_weights([*built.values(), *(built[name] for name in copies)], config.max_weights)
    group = gan.optimizer_groups["discriminator"]
    freeze_layers(group, built, config.freeze_discriminator_layers)
    for name in names_with_role("discriminator", group):
        check_expects(losses.get(config.loss), built[name])
    check_accumulation(config.accumulate_steps, built)


def traits(config: TrainConfig) -> Traits:
    """Returns the traits of the parts of a config that `trainer.config.compatibility` checks.

    Raises:
        ConfigError: If a part is unknown.
    """
    networks.check_name(config.architecture)
    loss, kind = losses.get(config.loss), MODELS[config.model]
    part = kind.needed_part if is_from_package(kind) else None  # a user's class may build networks of its own
    return Traits(
        translates=issubclass(kind, ImageTranslator),
        takes_pairs=issubclass(kind, Pix2Pix),
        allows_separate_updates=kind.allows_separate_updates,
        loss=config.loss,
        loss_is_separable=loss.is_separable,
        loss_is_shift_invariant=loss.is_shift_invariant,
        generator_inputs={name: networks.generator_input(name) for name in networks.names()},
        needed_part=part.value if part else "",
        architectures_without_part=[name for name in networks.names() if part and networks.lacks(name, part)],
    )


def create_gan(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    input_channels: int = 0,
    conditions: np.ndarray | None = None,
    class_counts: Sequence[int] | None = None,
) -> GAN:
    """Creates the GAN of a config with functions that build its networks, and does not compile it.

    Raises:
        ConfigError: If the model, the architecture or an option is unknown, or they do not fit each other or the data.
    """
    kind = MODELS[config.model]
    model_traits = traits(config)
    check_architecture(config, model_traits)
    check_pairs(config, takes_pairs=model_traits.takes_pairs, input_channels=input_channels)
    check_model_options(config.model, config.model_options)
    labels: dict[str, Any] = {}
    if issubclass(kind, ConditionalGAN) and not kind.labels_are_codes:
        check_labels(config, num_classes)
        labels = {"num_classes": num_classes, "classes": config.class_numbers}
        if conditions is not None:
            labels |= {"conditions": conditions, "class_counts": class_counts}
    gan = kind(
        config.latent_dim,
        latent_distribution=config.latent_distribution,
        image_range=config.image_range,
        **labels,
        **config.model_options,
    )
    factories = networks.build(
        config.architecture,
        image_shape,
        *gan.architecture_sizes(),
        _OUTPUT_ACTIVATIONS[config.image_range],
        _architecture_options(config, input_channels),
    )
    gan.set_network_factories(factories)
    return gan


def _architecture_options(config: TrainConfig, input_channels: int) -> dict[str, Any]:
    """Returns the options of the architecture, with the channels of the inputs of pairs."""
    options = dict(config.architecture_options)
    if _INPUT_CHANNELS in options:
        raise ConfigError(
            f"architecture_options has {_INPUT_CHANNELS}={quote(options[_INPUT_CHANNELS])}, which follows from the "
            "data; omit it."
        )
    return options | ({_INPUT_CHANNELS: input_channels} if input_channels else {})


def model_options(name: str) -> list[str]:
    """Returns the names of a model's options."""
    common = {*_arguments(GAN), "num_classes", "classes", "conditions", "class_counts"}
    return [option for option in _arguments(MODELS[name]) if option not in common]


def check_model_options(name: str, options: Iterable[str]) -> None:
    """Checks that a model has options of these names.

    Raises:
        ConfigError: If the model or an option is unknown. The message suggests the closest name.
    """
    known_options = model_options(name)
    for option in options:
        check_known(f"option of model {name}", option, known_options)


def _arguments(kind: type[GAN]) -> list[str]:
    """Returns the names of the arguments of a class and its base classes."""
    named = [
        parameter.name
        for base in kind.__mro__
        if issubclass(base, GAN)
        for parameter in inspect.signature(base).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    return list(dict.fromkeys(named))


def _optimizer(config: TrainConfig, group: str, every: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of `generator` or `discriminator`, with its schedules.

    For a network with penalties at every k-th step only, the learning rate and the betas are corrected by
    c = k / (k+1): rate * c, beta ** c. Source: arXiv 1912.04958, appendix B, where penalties have updates of their own,
    so that k steps have k+1 updates. Here they are a part of the step's only update, so that the correction lowers the
    learning rate per step by the factor c.
    """
    is_discriminator = group == "discriminator"
    correction = every / (every + 1) if every > 1 else 1.0
    rate = getattr(config, f"{group}_learning_rate") * correction
    updates = _schedule_steps(config) * (config.discriminator_repeats if is_discriminator else 1)
    if is_discriminator and config.discriminator_updates == DiscriminatorUpdates.SEPARATE:
        updates *= 2
    learning_rate: Any = rate
    if config.learning_rate_decay != LearningRateDecay.NONE:
        learning_rate = Ramp(
            rate,
            rate * config.learning_rate_end,
            updates,
            begin=config.learning_rate_decay_begin * updates,
            shape=config.learning_rate_decay,
        )
    if config.optimizer == OptimizerName.RMSPROP:
        return keras.optimizers.RMSprop(learning_rate, epsilon=config.epsilon)
    beta_2: Any = config.beta_2**correction
    if config.beta_2_end is not None:
        beta_2 = Ramp(beta_2, config.beta_2_end**correction, updates)
    return keras.optimizers.Adam(learning_rate, beta_1=config.beta_1**correction, beta_2=beta_2, epsilon=config.epsilon)


def _regularization(config: TrainConfig) -> dict[str, Any]:
    """Returns the penalties and the augmentation, with those settings of a recipe that have an effect."""
    arguments: dict[str, Any] = {}
    if config.penalties:
        weight = _scheduled(config, config.penalty_weight, config.penalty_weight_end)
        every = config.penalty_every_steps
        arguments |= {"penalties": config.penalties, "penalty_weight": weight, "penalty_every_steps": every}
    if config.augment is not None:
        probability = _scheduled(config, config.augment_probability, config.augment_probability_end)
        arguments |= {"augment": config.augment, "augment_probability": probability}
    return arguments


def _scheduled(config: TrainConfig, start: float | None, end: float | None) -> Any:
    return start if end is None or start is None else Ramp(start, end, _schedule_steps(config))


def _half_life(config: TrainConfig) -> ScheduleLike:
    if config.ema_schedule == EmaSchedule.EARLY or not config.ema_half_life_images:
        return config.ema_half_life_images
    return Ramp(0.0, config.ema_half_life_images, _schedule_steps(config))


def _schedule_steps(config: TrainConfig) -> float:
    """Returns the step at which the schedules end."""
    images = config.schedule_images or (config.steps or 1) * config.global_batch_size
    return images / config.global_batch_size
