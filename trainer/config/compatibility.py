"""Which settings go together: the rules that need neither data nor TensorFlow.

The trainer asks them before it touches a device, `submit` before a machine is started.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config import SUITES, TrainConfig
from trainer.config.fields import check_number
from trainer.errors import ConfigError

DISCRIMINATOR_UPDATES = ("together", "separate", "concatenated")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the rules ask of the parts that a config names."""

    translates: bool
    """Whether the model maps images to images."""
    loss: str
    """What sentences call the loss."""
    loss_is_separable: bool
    """Whether the discriminator may be updated on real and on fake images apart."""
    is_shift_invariant: bool
    """Whether a number added to all outputs of the discriminator changes nothing in the loss."""
    maps: Mapping[str, str]
    """What each architecture's generator takes: `latents` or `images`."""


def check(config: TrainConfig, traits: Traits) -> None:
    """Refuses settings that the trainer takes one by one and not together.

    Raises:
        ConfigError: The first two that do not fit.
    """
    check_metrics(config, translates=traits.translates)
    if traits.translates != (config.dataset_b is not None):
        raise ConfigError(
            f"model={config.model} with dataset_b={config.dataset_b}: a second data set belongs to model=cyclegan, "
            "and to no other."
        )
    if config.balance_classes and config.dataset_b is not None:
        raise ConfigError(
            "balance_classes needs classes, which the two data sets of model=cyclegan do not show; drop it."
        )
    check_architecture(config, translates=traits.translates, maps=traits.maps)
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
    """Refuses a suite of metrics that does not measure what the model makes.

    Raises:
        ConfigError: It is of translations and the model of latents, or the other way round.
    """
    if config.metrics not in ("auto", "none") and translates != (config.metrics == "cycle"):
        translated = "translations" if config.metrics == "cycle" else "images that are made of latents"
        others = [name for name in SUITES if (name == "cycle") == translates]
        raise ConfigError(
            f"metrics={config.metrics} measures {translated}, which model={config.model} does not give; "
            f"choose auto, {', '.join(others)} or none."
        )


def check_architecture(config: TrainConfig, *, translates: bool, maps: Mapping[str, str]) -> None:
    """Refuses an architecture whose generator does not take what the model gives it.

    Raises:
        ConfigError: With those whose does.
    """
    wanted = "images" if translates else "latents"
    if maps[config.architecture] != wanted:
        raise ConfigError(
            f"model={config.model} needs an architecture that maps {wanted} to images, which {config.architecture} "
            f"does not; choose one of {', '.join(name for name, given in maps.items() if given == wanted)}."
        )


def check_updates(
    update_order: str, updates: str, repeats: int, penalties: Sequence[Any], penalty_every_steps: int
) -> None:
    """Refuses what a step is to do where it is unknown, out of range, or does not fit the rest of it.

    Raises:
        ConfigError: The first mistake.
    """
    check_number("discriminator_repeats", repeats, whole=True, minimum=1)
    check_number("penalty_every_steps", penalty_every_steps, whole=True, minimum=1)
    if update_order not in ("alternating", "simultaneous"):
        raise ConfigError(f"update_order={update_order} is unknown; choose alternating or simultaneous.")
    if update_order == "simultaneous" and (repeats != 1 or updates == "separate"):
        raise ConfigError(
            f"discriminator_repeats={repeats} and discriminator_updates={updates} need update_order=alternating; a "
            "simultaneous step updates both networks once."
        )
    if update_order == "simultaneous" and penalties and penalty_every_steps > 1:
        raise ConfigError(f"penalty_every_steps={penalty_every_steps} needs update_order=alternating.")
    if updates == "separate" and repeats != 1:
        raise ConfigError(f"discriminator_repeats={repeats} needs discriminator_updates=together.")


def check_objective(
    updates: str, *, regularized: bool, adapts: bool, loss: str, is_separable: bool, is_shift_invariant: bool
) -> None:
    """Refuses an order of updates, penalties or an augmentation that the loss cannot be used with.

    Args:
        updates: Of the discriminator.
        regularized: Whether there are penalties or an augmentation.
        adapts: Whether the augmentation's probability is adapted.
        loss: As in `Traits`, as are the two below.
        is_separable: As `Traits.loss_is_separable`.
        is_shift_invariant: As in `Traits`.

    Raises:
        ConfigError: The first mistake.
    """
    if updates not in DISCRIMINATOR_UPDATES:
        raise ConfigError(
            f"discriminator_updates={updates} is unknown; choose one of {', '.join(DISCRIMINATOR_UPDATES)}."
        )
    if updates == "separate" and not is_separable:
        raise ConfigError(
            f"discriminator_updates=separate needs a loss that is a sum of a real and a fake part, which {loss} is "
            "not; choose together."
        )
    if updates != "together" and regularized:
        raise ConfigError(f"penalties and augmentation need discriminator_updates=together, not {updates}.")
    if adapts and is_shift_invariant:
        raise ConfigError(
            f"augment_probability=None adapts to how many real images D takes for real, which no output says alone "
            f"under {loss}; give a probability, or choose another loss."
        )


def check_strategy(strategy: str, num_machines: int) -> None:
    """Refuses a strategy that wants several machines where there is one, or leaves all but one out.

    Raises:
        ConfigError: With what to choose.
    """
    if strategy == "multi_worker" and num_machines == 1:
        raise ConfigError("strategy=multi_worker needs several machines in TF_CONFIG; choose mirrored or one_device.")
    if strategy in ("one_device", "mirrored") and num_machines > 1:
        raise ConfigError(
            f"strategy={strategy} trains on one machine, and each of the {num_machines} of this job would train the "
            "same alone; choose auto, or start one."
        )
