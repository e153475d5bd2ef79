"""The stages of a training step as data.

Shapes: `B` images of a replica.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from trainer.training.divergence import DivergenceState
from trainer.training.rng import StepRng
from trainer.training.schedules import Schedule

Losses = dict[str, tf.Tensor]
"""Per-example losses, float32 [B], by phase."""

Metrics = dict[str, dict[str, tf.Tensor]]
"""Per-example values to log, float32 [B], by phase and name."""

Forward = Callable[[tf.Tensor, tf.Tensor | None, StepRng, tuple[str, ...]], tuple[Losses, Metrics]]
"""(real_images [B, ...], targets [B, ...] or None, rng, phases) -> the losses and metrics of those phases."""


@dataclass(frozen=True)
class Phase:
    """One optimizer update.

    Attributes:
        name: Name of the loss in the result of `Forward`, and in logs as `loss/NAME`.
        networks: Networks whose weights the phase updates, and whose buffers (such as batch-norm moments) it keeps.
        optimizer: Optimizer that is built for the networks' trainable variables, in order. Phases may share one.
    """

    name: str
    networks: tuple[keras.layers.Layer, ...]
    optimizer: keras.optimizers.Optimizer

    @property
    def variables(self) -> list[keras.Variable]:
        """The weights that the phase updates."""
        return [variable for network in self.networks for variable in network.trainable_variables]

    @property
    def regularizers(self) -> list[tf.Tensor]:
        """The networks' own loss terms, such as weight decay."""
        return [term for network in self.networks for term in network.losses]


@dataclass(frozen=True)
class PhaseGroup:
    """Phases that share one forward pass. Phases in one group are simultaneous; groups alternate."""

    phases: tuple[Phase, ...]
    repeats: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the phases."""
        return tuple(phase.name for phase in self.phases)

    def owns(self, network: keras.layers.Layer) -> bool:
        """Returns whether a phase updates a network."""
        return any(network is owned for phase in self.phases for owned in phase.networks)


@dataclass(frozen=True)
class Ema:
    """An exponential moving average of a network's weights.

    Attributes:
        source: Network that is trained.
        target: Network whose weights decay towards the source's trainable weights, and are copies of all others.
        half_life_images: Half-life in images seen, by step.
    """

    source: keras.Model
    target: keras.Model
    half_life_images: Schedule


@dataclass(frozen=True)
class StepPlan:
    """The stages of a step as data.

    Attributes:
        forward: Function that computes the losses of some phases.
        groups: Groups of phases, in order.
        networks: Networks that take part, for their buffers and the seeds of their random layers.
        emas: Exponential moving averages of networks.
        global_batch_size: Real images per phase, over all replicas.
        seed: Seed of the run.
        jit_compile: Whether to compile forward and backward passes with XLA.
        divergence: Record of the skipped steps.
        horizontal_flips: Whether to mirror each real image with probability one half.
        salt: Number that selects other random numbers for the same steps; 0 before the first rollback.
        accumulate_steps: Number of micro-batches that a replica divides its batch into.
    """

    forward: Forward
    groups: tuple[PhaseGroup, ...]
    networks: tuple[keras.layers.Layer, ...]
    emas: tuple[Ema, ...]
    global_batch_size: int
    seed: int
    jit_compile: bool
    divergence: DivergenceState
    horizontal_flips: bool = False
    salt: int = 0
    accumulate_steps: int = 1

    def owners_of(self, network: keras.layers.Layer) -> tuple[int, ...]:
        """Returns the indices of the groups of phases that update a network."""
        return tuple(index for index, group in enumerate(self.groups) if group.owns(network))


def buffers_of(network: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that layers update, such as batch-norm moments. Frozen weights are none: nothing updates them.

    The values of replicas are merged by `aggregation`: their sum for `sum`, else their mean. A buffer of whole numbers
    or booleans, such as a count of steps, takes the value of the first replica unless its aggregation is `sum`.
    """
    learned = {id(variable) for variable in learned_weights(network)}
    return [variable for variable in network.non_trainable_weights if id(variable) not in learned]


def learned_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of a layer or network that are made for an optimizer, also if they are frozen.

    Keras lists frozen weights among the non-trainable ones. Only its private lists tell them from buffers; a test fails
    if they change.
    """
    return [variable for inner in layer._flatten_layers() for variable in inner._trainable_variables]
