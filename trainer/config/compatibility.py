"""Rules for which settings work together. They need neither data nor TensorFlow.

`resolve` in `trainer.training.complete_config` applies them before it reads data, and `submit` before it sends a job.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config.choices import (
    DiscriminatorUpdates,
    LearningRateDecay,
    MetricSuite,
    OptimizerName,
    StrategyName,
    UpdateOrder,
)
from trainer.config.fields import check_choice, check_number, join_words
from trainer.config.suites import SUITES, MeasuredImages
from trainer.config.train_config import TrainConfig
from trainer.errors import ConfigError
from trainer.registry import check_known

_NEEDS: tuple[tuple[tuple[str, ...], str, Callable[[TrainConfig], bool]], ...] = (
    (
        ("penalty_weight", "penalty_weight_end", "penalty_every_steps"),
        "penalties",
        lambda config: bool(config.penalties),
    ),
    (
        ("augment_probability_end",),
        "a number as augment_probability",
        lambda config: config.augment_probability is not None,
    ),
    (("augment_probability", "augment_probability_end"), "augment", lambda config: config.augment is not None),
    (
        ("learning_rate_end", "learning_rate_decay_begin"),
        "learning_rate_decay",
        lambda config: config.learning_rate_decay != LearningRateDecay.NONE,
    ),
    (
        ("beta_1", "beta_2", "beta_2_end"),
        f"optimizer={OptimizerName.ADAM}",
        lambda config: config.optimizer == OptimizerName.ADAM,
    ),
    (("ema_schedule",), "ema_half_life_images", lambda config: config.ema_half_life_images > 0),
    (("schedule_images",), "a schedule, such as learning_rate_decay", lambda config: config.has_schedule),
    (("evaluate_every_steps", "num_metric_samples"), "metrics", lambda config: config.has_metrics),
    (("inception_weights",), "metrics=inception", lambda config: config.suite == MetricSuite.INCEPTION),
    (("num_virtual_devices",), "strategy=mirrored", lambda config: config.strategy != StrategyName.ONE_DEVICE),
)
"""Settings that have an effect only together with others: their names, what they need, and whether a config has it. Of
two needs of a setting, messages name the later one."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Properties of the model, the loss and the architectures that the rules depend on."""

    translates: bool
    """True if the model maps images to images."""
    takes_pairs: bool = False
    """True if it learns from pairs of an input and an image."""
    allows_separate_updates: bool = True
    """True if its discriminator may be updated on real and on fake images separately."""
    loss: str
    """Name of the loss, for messages."""
    loss_is_separable: bool
    """True if it is the sum of a part for real and a part for fake images."""
    loss_is_shift_invariant: bool
    """True if adding a constant to all outputs of the discriminator does not change the loss."""
    generator_inputs: Mapping[str, str]
    """Input of each architecture's generator: `latents` or `images`."""
    needed_part: str = ""
    """Part of the networks that the model uses and not all architectures have, for messages; empty for none."""
    architectures_without_part: Collection[str] = ()
    """Architectures whose networks are known not to have this part."""


def check(config: TrainConfig, traits: Traits) -> None:
    """Checks that the settings of a config work together.

    Raises:
        ConfigError: If two settings do not work together.
    """
    check_metrics(config, traits)
    if not traits.takes_pairs and traits.translates != (config.dataset_b is not None):
        raise ConfigError(
            f"model={config.model} does not work with dataset_b={config.dataset_b}; set dataset_b for model=cyclegan, "
            "and omit it for other models, except for held-out pairs of model=pix2pix."
        )
    if config.balance_classes and config.dataset_b is not None and not traits.takes_pairs:
        raise ConfigError("balance_classes=True needs labels, which model=cyclegan does not use; remove it.")
    check_architecture(config, traits)
    check_updates(
        config.update_order,
        config.discriminator_updates,
        config.discriminator_repeats,
        config.penalties,
        config.penalty_every_steps,
    )
    check_separate_updates(config.model, config.discriminator_updates, is_allowed=traits.allows_separate_updates)
    check_objective(
        config.discriminator_updates,
        has_regularizer=bool(config.penalties or config.augment),
        adapts=config.augment is not None and config.augment_probability is None,
        loss=traits.loss,
        is_separable=traits.loss_is_separable,
        is_shift_invariant=traits.loss_is_shift_invariant,
    )


def describe_settings_without_effect(
    config: TrainConfig, names: Collection[str], *others: TrainConfig | None, translates: bool
) -> list[str]:
    """Returns a clause for each setting that the other settings make useless, with what it needs.

    Args:
        config: Config of a user.
        names: Names of the settings that the user gives. A recipe may have other settings without effect, and so does a
            config whose user has turned off a penalty or a schedule of it.
        *others: Configs whose values pass, such as that of the recipe.
        translates: Value of `Traits.translates`.
    """
    needs = [(settings, need) for settings, need, is_met in _NEEDS if not is_met(config)]
    if translates:
        needs.append((("latent_dim", "latent_distribution"), "a model with latents"))
    clauses = {
        name: no_effect(f"{name}={getattr(config, name)}", need)
        for settings, need in needs
        for name in settings
        if name in names
        if not any(other is not None and getattr(config, name) == getattr(other, name) for other in others)
    }
    return list(clauses.values())


def no_effect(setting: str, need: str) -> str:
    """Returns a clause about a setting and its value, such as `beta_1=0.5`, that has no effect without another one."""
    return f"{setting} has no effect without {need}"


def no_effect_error(clause: str) -> ConfigError:
    """Returns the error for a clause of `no_effect`."""
    return ConfigError(f"{clause}; omit it, or set both.")


def check_metrics(config: TrainConfig, traits: Traits | None = None) -> None:
    """Checks that the metric suite measures the kind of images that the model makes, and has the requested parts.

    Args:
        config: Config to check.
        traits: Traits of the model. None: any images are compared, without a model.

    Raises:
        ConfigError: If the suite is unknown, if it is for image translation and the model is not, or the reverse, if it
            has no number of images or no Inception score, or if a collapse cannot be noticed without a suite.
    """
    check_known("value of metrics", config.metrics, [MetricSuite.AUTO.value, *SUITES.names(), MetricSuite.NONE.value])
    measured = MeasuredImages.GENERATED
    if traits is not None and traits.translates:
        measured = MeasuredImages.PAIRED if traits.takes_pairs else MeasuredImages.TRANSLATED
    suite = SUITES[config.suite] if config.has_metrics else None
    if suite is not None and config.metrics != MetricSuite.AUTO and suite.measures is not measured:
        fitting = [name for name in SUITES.names() if SUITES[name].measures is measured]
        raise ConfigError(
            f"metrics={config.metrics} measures {suite.measures.value}, but model={config.model} makes "
            f"{measured.value}; choose {join_words([MetricSuite.AUTO, *fitting, MetricSuite.NONE])}."
        )
    if config.stop_on_collapse and not config.has_metrics:
        raise ConfigError(
            "stop_on_collapse=True needs evaluations, but metrics=none; choose a metric suite or remove it."
        )
    if config.num_metric_samples is not None and suite is not None and suite.num_samples is None:
        raise ConfigError(
            f"num_metric_samples={config.num_metric_samples} does not fit metrics={config.suite}, which measures a "
            "fixed number of images; omit it."
        )
    if config.inception_score and (suite is None or "inception_score" not in suite.maximized):
        raise ConfigError(
            f"inception_score=True needs metrics={MetricSuite.INCEPTION} or {MetricSuite.PHOTOS}, not {config.suite}; "
            "change one of them."
        )


def check_pairs(config: TrainConfig, *, takes_pairs: bool, input_channels: int) -> None:
    """Checks that a model for pairs gets pairs, and no other model does.

    Args:
        config: Config to check.
        takes_pairs: Value of `Traits.takes_pairs`.
        input_channels: Number of channels of the inputs of the data; 0 if there are no inputs.

    Raises:
        ConfigError: If the data does not fit the model.
    """
    if takes_pairs and not input_channels:
        raise ConfigError(
            f"model={config.model} needs pairs of images, and dataset={config.dataset} has none; prepare them with "
            "--paired, or choose another model."
        )
    if input_channels and not takes_pairs:
        raise ConfigError(
            f"dataset={config.dataset} has pairs of images, which model={config.model} does not take; choose "
            "--recipe=pix2pix, or prepare the images of one side alone."
        )


def check_labels(config: TrainConfig, num_classes: int) -> None:
    """Checks that the data of a model that needs labels has at least two classes.

    Raises:
        ConfigError: If it has one.
    """
    if num_classes < 2:
        raise ConfigError(
            f"model={config.model} needs labels of at least 2 classes, but {config.dataset} has one class; choose "
            "another recipe or --model=gan, or prepare the dataset with one subfolder per class."
        )


def check_architecture(config: TrainConfig, traits: Traits) -> None:
    """Checks that the architecture's generator takes the input that the model provides, and its networks have the part
    that the model uses.

    Raises:
        ConfigError: If the architecture does not fit the model. The message lists the architectures that fit.
    """
    required, received = "images" if traits.translates else "latents", traits.generator_inputs[config.architecture]
    if received != required:
        problem = (
            f"an architecture that maps {required} to images, but architecture={config.architecture} maps {received}"
        )
    elif config.architecture in traits.architectures_without_part:
        problem = f"{traits.needed_part}, which architecture={config.architecture} does not have"
    else:
        return
    fitting = ", ".join(
        name
        for name, kind in traits.generator_inputs.items()
        if kind == required and name not in traits.architectures_without_part
    )
    raise ConfigError(f"model={config.model} needs {problem}; choose one of {fitting}.")


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


def check_separate_updates(model: str, updates: str, *, is_allowed: bool) -> None:
    """Checks that the model allows an update of its discriminator without real images.

    Args:
        model: Name of the model, for messages.
        updates: Value of `discriminator_updates`.
        is_allowed: Value of `Traits.allows_separate_updates`.

    Raises:
        ConfigError: If the updates are separate and the model does not allow it.
    """
    if updates == DiscriminatorUpdates.SEPARATE and not is_allowed:
        raise ConfigError(
            f"discriminator_updates=separate has an update without real images, which model={model} does not allow; "
            "choose together or concatenated."
        )


def check_objective(
    updates: str, *, has_regularizer: bool, adapts: bool, loss: str, is_separable: bool, is_shift_invariant: bool
) -> None:
    """Checks that the discriminator's updates, penalties and augmentation work with the loss.

    Args:
        updates: Value of `discriminator_updates`.
        has_regularizer: True if there are penalties or an augmentation.
        adapts: True if the augmentation's probability is adaptive.
        loss: Name of the loss, for messages.
        is_separable: Value of `Traits.loss_is_separable`.
        is_shift_invariant: Value of `Traits.loss_is_shift_invariant`.

    Raises:
        ConfigError: If `updates` is unknown, or two settings do not work together.
    """
    check_choice("discriminator_updates", updates, DiscriminatorUpdates)
    if updates == DiscriminatorUpdates.SEPARATE and not is_separable:
        raise ConfigError(
            "discriminator_updates=separate needs a loss that is the sum of a real and a fake part, which "
            f"{loss} is not; choose together."
        )
    if updates != DiscriminatorUpdates.TOGETHER and has_regularizer:
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
