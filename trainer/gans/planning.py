"""From a compiled wiring to the plan of its step: phases, their order, and the averages that follow."""

from typing import TYPE_CHECKING

from trainer.engine.step import Average, Phase, PhaseGroup, StepPlan
from trainer.gans.beside import seeds_beside

if TYPE_CHECKING:
    from trainer.gans.base import GAN


def average_of(name: str) -> str:
    """The name of a network's average."""
    return f"averaged_{name}"


def step_plan(gan: "GAN", global_batch_size: int, horizontal_flips: bool) -> StepPlan:
    """What a step of a compiled GAN does."""
    followed = [name for name in gan.averaged if average_of(name) in gan.networks]
    averages = {average_of(name) for name in followed}
    return StepPlan(
        forward=gan.forward,
        groups=_groups(gan),
        networks=tuple(network for name, network in gan.networks.items() if name not in averages),
        averages=tuple(
            Average(gan.networks[name], gan.networks[average_of(name)], gan.ema_half_life_images) for name in followed
        ),
        global_batch_size=global_batch_size,
        seed=gan.seed,
        jit_compile=gan.with_xla,
        horizontal_flips=horizontal_flips,
        seeds=seeds_beside(gan, gan.networks),
    )


def _groups(gan: "GAN") -> tuple[PhaseGroup, ...]:
    """Both phases from one pass, or the discriminator's (its two parts apart, where asked) and then the generator's."""
    if gan.update_order == "simultaneous":
        return (PhaseGroup((_phase(gan, "discriminator"), _phase(gan, "generator"))),)
    of_discriminator = [
        PhaseGroup((_phase(gan, name),), gan.discriminator_repeats) for name in gan.objective.discriminator_phases
    ]
    return (*of_discriminator, PhaseGroup((_phase(gan, "generator"),)))


def _phase(gan: "GAN", name: str) -> Phase:
    owner = gan.objective.owner_of(name)
    networks = [gan.networks[network] for network in gan.owners[owner]]
    if owner == "discriminator" and gan.objective.augmenter is not None:
        networks.append(gan.objective.augmenter)
    return Phase(name, tuple(networks), gan.optimizers[owner])
