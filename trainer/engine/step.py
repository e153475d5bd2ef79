"""One step: all phases once, a pure function of (state, seed, step). It knows phases, and no GAN by name.

Legend: `B` images a replica.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer.architectures.layers import PER_SAMPLE_SEED
from trainer.data.windows import Window, batch_indices
from trainer.engine.randomness import Noise, stream_key
from trainer.errors import NetworkError

Losses = dict[str, tf.Tensor]
Metrics = dict[str, dict[str, tf.Tensor]]
Forward = Callable[[tf.Tensor, tf.Tensor | None, Noise], tuple[Losses, Metrics]]
"""(real_images [B, ...], labels [B] or None, noise) -> per-example losses [B] and metrics [B], by phase name."""


@dataclass(frozen=True)
class Phase:
    """One optimiser update.

    Attributes:
        name: Of the loss in what `Forward` returns, and in logs as `loss/NAME`.
        network: The network whose weights move; its buffers (batch-norm moments) move in this phase alone.
        optimizer: Built for the network's trainable variables.
    """

    name: str
    network: keras.Model
    optimizer: keras.optimizers.Optimizer


@dataclass(frozen=True)
class PhaseGroup:
    """Phases that share one forward pass. Several phases in a group are simultaneous; a group alone alternates."""

    phases: tuple[Phase, ...]
    repeats: int = 1


@dataclass(frozen=True)
class Average:
    """An exponential moving average of a network's weights.

    Attributes:
        source: The network that learns.
        target: The network that follows: weights decay towards the source's, buffers are copied.
        half_life_images: In images seen; early on, a twentieth of the images seen so far where that is less.
    """

    source: keras.Model
    target: keras.Model
    half_life_images: float


@dataclass(frozen=True)
class StepPlan:
    """All that a step does.

    Attributes:
        forward: Computes every phase's losses; what a phase does not need of it is pruned from its graph.
        groups: In order.
        networks: Every network that takes part, for the seeds of their random layers.
        average: The average of a network, or None.
        global_batch_size: Real images a phase sees, over all replicas.
        seed: The run's seed.
        jit_compile: Compile forward and backward passes with XLA.
    """

    forward: Forward
    groups: tuple[PhaseGroup, ...]
    networks: tuple[keras.Model, ...]
    average: Average | None
    global_batch_size: int
    seed: int
    jit_compile: bool


class Step:
    """The step of a plan on a window of data, under the current strategy."""

    def __init__(self, plan: StepPlan, window: Window, strategy: tf.distribute.Strategy):
        self._plan = plan
        self._window = window
        self._strategy = strategy
        self._num_replicas = strategy.num_replicas_in_sync
        self._replica_batch_size = plan.global_batch_size // self._num_replicas
        self._buffers = [variable for network in plan.networks for variable in buffers_of(network)]
        self._passes = [self._compiled(group) for group in plan.groups]

    def __call__(self, tensors: tuple[tf.Tensor, ...], step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs step number `step` (int64 []) on every replica and returns the logged scalars, float32 []."""
        metrics, buffers = self._strategy.run(self._on_replica, args=(tensors, step))
        mean, total = tf.distribute.ReduceOp.MEAN, tf.distribute.ReduceOp.SUM
        for variable, value in zip(self._buffers, buffers, strict=True):
            variable.value.assign(self._strategy.reduce(mean, value, axis=None))
        if self._plan.average is not None:
            self._follow(self._plan.average, step)
        return {name: self._strategy.reduce(total, value, axis=None) for name, value in metrics.items()}

    def _on_replica(
        self, tensors: tuple[tf.Tensor, ...], step: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        buffers = [variable.value.read_value() for variable in self._buffers]
        logged: dict[str, tf.Tensor] = {}
        for group, run_pass in zip(self._plan.groups, self._passes, strict=True):
            for repeat in range(group.repeats):
                images, labels = self._window.gather(tensors, self._indices(step, replica, repeat))
                metrics, buffers = run_pass(images, labels, step, replica, repeat, buffers)
                logged |= metrics
        return logged, buffers

    def _compiled(self, group: PhaseGroup) -> Callable[..., tuple[dict[str, tf.Tensor], list[tf.Tensor]]]:
        """One forward pass of a group and its updates; with XLA whole, or up to what replicas exchange."""
        differentiate = _differentiated(group, self._plan, self._buffers, self._num_replicas)
        if self._plan.jit_compile and self._num_replicas > 1:
            differentiate = tf.function(differentiate, jit_compile=True, autograph=False)

        def run_pass(*inputs: Any) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
            gradients, logged, buffers = differentiate(*inputs)
            self._update(group, gradients)
            return logged, buffers

        if self._plan.jit_compile and self._num_replicas == 1:
            return tf.function(run_pass, jit_compile=True, autograph=False)
        return run_pass

    def _update(self, group: PhaseGroup, gradients: list[list[tf.Tensor]]) -> None:
        """Applies the gradients of each phase, in the same order on every replica: collectives must not cross."""
        before: list[tf.Tensor] = []
        for phase, of_phase in zip(group.phases, gradients, strict=True):
            variables = phase.network.trainable_variables
            if before:
                with tf.control_dependencies(before):
                    of_phase = [tf.identity(gradient) for gradient in of_phase]
            phase.optimizer.apply(of_phase, variables)
            if self._num_replicas > 1:
                before = [variable.value.read_value() for variable in variables]

    def _indices(self, step: tf.Tensor, replica: tf.Tensor, repeat: int) -> tf.Tensor:
        key = stream_key(self._plan.seed, f"order/{repeat}")
        return batch_indices(
            key, step, replica, self._replica_batch_size, self._num_replicas, self._window.num_examples
        )

    def _follow(self, average: Average, step: tf.Tensor) -> None:
        """Moves the average one step towards its source."""
        batch = float(self._plan.global_batch_size)
        images_seen = (tf.cast(step, tf.float32) + 1.0) * batch
        half_life = tf.minimum(float(average.half_life_images), 0.05 * images_seen)
        rate = 1.0 - tf.pow(0.5, batch / half_life)

        def towards(target: tf.Variable, source: tf.Tensor) -> None:
            tf.raw_ops.ResourceApplyGradientDescent(var=target.handle, alpha=rate, delta=target - source)

        def copy(target: tf.Variable, source: tf.Tensor) -> None:
            target.assign(source)

        update = self._strategy.extended.update
        source, target = average.source, average.target
        for ours, theirs in zip(target.trainable_variables, source.trainable_variables, strict=True):
            update(ours.value, towards, args=(theirs.value,), group=False)
        for ours, theirs in zip(buffers_of(target), buffers_of(source), strict=True):
            update(ours.value, copy, args=(theirs.value,), group=False)


def buffers_of(network: keras.Model) -> list[keras.Variable]:
    """The weights that no optimiser moves, such as batch-norm moments."""
    return list(network.non_trainable_weights)


def _differentiated(
    group: PhaseGroup, plan: StepPlan, buffers: list[keras.Variable], num_replicas: int
) -> Callable[..., tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]]:
    """A function of (images, labels, step, replica, repeat, buffers' values) that reads variables and writes none.

    It returns the gradients of each phase, what to log, and the values of the buffers after the pass.
    """
    owned = {id(variable) for phase in group.phases for variable in buffers_of(phase.network)}
    purpose = "+".join(phase.name for phase in group.phases)
    states = [variable for network in plan.networks for variable in network.variables]
    states = [variable for variable in states if variable.name == "seed_generator_state"]
    shared = [PER_SAMPLE_SEED in variable.path for variable in states]

    def differentiate(
        images: tf.Tensor,
        labels: tf.Tensor | None,
        step: tf.Tensor,
        replica: tf.Tensor,
        repeat: int,
        values: list[tf.Tensor],
    ) -> tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]:
        noise = Noise(plan.seed, step, images.shape[0], replica, f"{purpose}/{repeat}")
        mapping = [*zip(buffers, values, strict=True), *zip(states, noise.seeds(shared), strict=True)]
        with tf.GradientTape(persistent=len(group.phases) > 1) as tape:
            with keras.StatelessScope(mapping) as scope:
                losses, metrics = plan.forward(images, labels, noise)
            objectives = {}
            for phase in group.phases:
                terms = [tf.cast(term, tf.float32) / num_replicas for term in phase.network.losses]
                objectives[phase.name] = tf.add_n([tf.reduce_sum(losses[phase.name]) / plan.global_batch_size, *terms])
        gradients = [_gradients(tape, objectives[phase.name], phase) for phase in group.phases]
        logged = {f"loss/{name}": objective for name, objective in objectives.items()}
        for phase in group.phases:
            for name, value in metrics.get(phase.name, {}).items():
                logged[name] = tf.reduce_sum(tf.cast(value, tf.float32)) / plan.global_batch_size
        after = [
            scope.get_current_value(variable) if id(variable) in owned else value
            for variable, value in zip(buffers, values, strict=True)
        ]
        return gradients, logged, after

    return differentiate


def _gradients(tape: tf.GradientTape, objective: tf.Tensor, phase: Phase) -> list[tf.Tensor]:
    variables = phase.network.trainable_variables
    gradients = tape.gradient(objective, [variable.value for variable in variables])
    missing = [variable.path for variable, gradient in zip(variables, gradients, strict=True) if gradient is None]
    if missing:
        raise NetworkError(
            f"the {phase.name} phase gives no gradient to {', '.join(missing)}; "
            "connect every layer of the network to its output, or set trainable=False on what should rest."
        )
    return gradients
