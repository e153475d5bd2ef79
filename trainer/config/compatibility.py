"""Rules for which settings work together. They need neither data nor TensorFlow.

`trainer.training.run` applies them before it creates devices, and `submit` before it sends a job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config.choices import SUITES, DiscriminatorUpdates, MetricSuite, StrategyName, UpdateOrder
from trainer.config.fields import check_choice, check_number
from trainer.config.train_config import TrainConfig
from trainer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Properties of the model, the loss and the architectures that the rules depend on."""

    translates: bool
    """True if the model maps images to images."""
    loss: str
    """Name of the loss, for messages."""
    loss_is_separable: bool
    """True if the discriminator may be updated on real and on fake images separately."""
    is_shift_invariant: bool
    """True if adding a constant to all outputs of the discriminator does not change the loss."""
    generator_inputs: Mapping[str, str]
    """Input of each architecture's generator: `latents` or `images`."""


def check(config: TrainConfig, traits: Traits) -> None:
    """Checks that the settings of a config work together.

    Raises:
        ConfigError: If two settings do not work together.
    """
    check_metrics(config, translates=traits.translates)
    if traits.translates != (config.dataset_b is not None):
        raise ConfigError(
            f"model={config.model} does not work with dataset_b={config.dataset_b}; "
            "set dataset_b if, and only if, model=cyclegan."
        )
    if config.balance_classes and config.dataset_b is not None:
        raise ConfigError("balance_classes=True needs labels, which model=cyclegan does not use; remove it.")
    check_architecture(config, translates=traits.translates, generator_inputs=traits.generator_inputs)
    check_updates(
        config.update_order,
        config.discriminator_updates,
        config.discriminator_repeats,
        config.penalties,
        config.penalty_every_steps,
    )
    check_objective(
        config.discriminator_updates,
        regularized=bool(config.penalties or config.augment),
        adapts=config.augment is not None and config.augment_probability is None,
        loss=traits.loss,
        is_separable=traits.loss_is_separable,
        is_shift_invariant=traits.is_shift_invariant,
    )


def check_metrics(config: TrainConfig, *, translates: bool) -> None:
    """Checks that the metric suite measures the kind of images that the model makes, and has the requested parts.

    Raises:
        ConfigError: If the suite is for image translation and the model is not, or the reverse, or if the suite has no
            number of images or no Inception score, or if a collapse cannot be noticed without a suite.
    """
    is_cycle = config.metrics == MetricSuite.CYCLE
    if config.metrics not in (MetricSuite.AUTO, MetricSuite.NONE) and translates != is_cycle:
        measured = "translated images" if is_cycle else "images generated from latents"
        others = [name for name in SUITES if (name == MetricSuite.CYCLE) == translates]
        raise ConfigError(
            f"metrics={config.metrics} measures {measured}, which model={config.model} does not make; "
            f"choose auto, {', '.join(others)} or none."
        )
    if config.stop_on_collapse and not config.has_metrics:
        raise ConfigError(
            "stop_on_collapse=True needs evaluations, but metrics=none; choose a metric suite or remove it."
        )
    if config.num_metric_samples is not None and config.suite == MetricSuite.CYCLE:
        raise ConfigError(
            f"num_metric_samples={config.num_metric_samples} does not fit metrics={config.suite}, which translates a "
            "fixed number of images; omit it."
        )
    if config.inception_score and config.suite not in (MetricSuite.INCEPTION, MetricSuite.PHOTOS):
        raise ConfigError(
            f"inception_score=True needs metrics={MetricSuite.INCEPTION} or {MetricSuite.PHOTOS}, not {config.suite}; "
            "change one of them."
        )


def check_architecture(config: TrainConfig, *, translates: bool, generator_inputs: Mapping[str, str]) -> None:
    """Checks that the architecture's generator takes the input that the model provides.

    Raises:
        ConfigError: If it takes another input. The message lists the architectures that fit.
    """
    required = "images" if translates else "latents"
    if generator_inputs[config.architecture] != required:
        fitting = ", ".join(name for name, taken in generator_inputs.items() if taken == required)
        raise ConfigError(
            f"model={config.model} needs an architecture that maps {required} to images, but "
            f"architecture={config.architecture} maps {generator_inputs[config.architecture]}; choose one of {fitting}."
        )


def check_updates(
    update_order: str, updates: str, repeats: int, penalties: Sequence[Any], penalty_every_steps: int
) -> None:
    """Checks the settings that decide the updates of a step.

    Raises:
        ConfigError: If a setting is unknown or out of range, or two settings do not work together.
    """
    check_number("discriminator_repeats", repeats, whole=True, minimum=1)
    check_number("penalty_every_steps", penalty_every_steps, whole=True, minimum=1)
    check_choice("update_order", update_order, UpdateOrder)
    is_simultaneous = update_order == UpdateOrder.SIMULTANEOUS
    is_separate = updates == DiscriminatorUpdates.SEPARATE
    if is_simultaneous and (repeats != 1 or is_separate):
        raise ConfigError(
            f"discriminator_repeats={repeats} with discriminator_updates={updates} needs update_order=alternating; "
            "a simultaneous step updates each network once."
        )
    if is_simultaneous and penalties and penalty_every_steps > 1:
        raise ConfigError(
            f"penalty_every_steps={penalty_every_steps} needs update_order=alternating; change one of them."
        )
    if is_separate and repeats != 1:
        raise ConfigError(
            f"discriminator_repeats={repeats} needs discriminator_updates=together, not separate; change one of them."
        )


def check_objective(
    updates: str, *, regularized: bool, adapts: bool, loss: str, is_separable: bool, is_shift_invariant: bool
) -> None:
    """Checks that the discriminator's updates, penalties and augmentation work with the loss.

    Args:
        updates: Value of `discriminator_updates`.
        regularized: True if there are penalties or an augmentation.
        adapts: True if the augmentation's probability is adaptive.
        loss: Name of the loss, for messages.
        is_separable: Value of `Traits.loss_is_separable`.
        is_shift_invariant: Value of `Traits.is_shift_invariant`.

    Raises:
        ConfigError: If `updates` is unknown, or two settings do not work together.
    """
    check_choice("discriminator_updates", updates, DiscriminatorUpdates)
    if updates == DiscriminatorUpdates.SEPARATE and not is_separable:
        raise ConfigError(
            "discriminator_updates=separate needs a loss that is the sum of a real and a fake part, which "
            f"{loss} is not; choose together."
        )
    if updates != DiscriminatorUpdates.TOGETHER and regularized:
        raise ConfigError(
            f"penalties and augment need discriminator_updates=together, not {updates}; change discriminator_updates, "
            "or remove penalties and augment."
        )
    if adapts and is_shift_invariant:
        raise ConfigError(
            f"augment_probability=None (adaptive) needs a loss with a decision threshold, which {loss} does not have; "
            "set augment_probability to a number or choose another loss."
        )


def check_strategy(strategy: str, num_machines: int) -> None:
    """Checks that the distribution strategy fits the number of machines.

    Raises:
        ConfigError: If the strategy needs several machines and there is one, or the reverse.
    """
    if strategy == StrategyName.MULTI_WORKER and num_machines == 1:
        raise ConfigError(
            "strategy=multi_worker needs several machines in TF_CONFIG, which lists one or none; choose mirrored or "
            "one_device."
        )
    if strategy in (StrategyName.ONE_DEVICE, StrategyName.MIRRORED) and num_machines > 1:
        raise ConfigError(
            f"strategy={strategy} trains on one machine, but the job has {num_machines}; choose auto, or start one "
            "machine."
        )
