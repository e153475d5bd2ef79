"""One training step: all phases once. A step is a pure function of (state, seed, step number).

The stages of a step, in order:

1. `TrainStep._draw_batch` draws the images of a phase.
2. `StepPlan.forward`, which is `GAN.forward`, draws latents, runs the networks, and returns the losses of the phase,
   penalties included.
3. `compute_gradients` in `_gradient_function` differentiates the losses.
4. `TrainStep._apply_gradients` sums gradients over replicas and updates the weights.
5. `TrainStep._merge_replicas` merges buffers, such as batch-norm moments, and logs over replicas.
6. `TrainStep._update_ema` moves the exponential moving averages.

This module depends on phases, not on a GAN class. Legend: `B` images of a replica.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer.data.pipeline.batching import BatchSlice, Chunk, Tensors, flip_horizontally
from trainer.errors import NetworkError
from trainer.networks.layers import PER_SAMPLE_SEED
from trainer.training.distributed import collectives
from trainer.training.distributed.host_shard import order_key
from trainer.training.rng import StepRng, seed_states
from trainer.training.schedules import Schedule

STOP = "stop"
"""Name of the scalar that counts the replicas with a pending stop request."""

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
        horizontal_flips: Whether to mirror each real image with probability one half.
    """

    forward: Forward
    groups: tuple[PhaseGroup, ...]
    networks: tuple[keras.layers.Layer, ...]
    emas: tuple[Ema, ...]
    global_batch_size: int
    seed: int
    jit_compile: bool
    horizontal_flips: bool = False


class TrainStep:
    """Runs the step of a plan on a chunk of data, under the current strategy.

    Args:
        plan: What the step does.
        chunk: A chunk like those whose tensors the step gets; only its shapes and types are used.
        strategy: The current strategy.
        stop: Boolean variable of this process that requests a stop of all processes; None to disable.
    """

    def __init__(self, plan: StepPlan, chunk: Chunk, strategy: tf.distribute.Strategy, stop: tf.Variable | None = None):
        self._plan = plan
        self._stop = stop
        self._chunk = chunk
        self._strategy = strategy
        self._num_replicas = strategy.num_replicas_in_sync
        self._replica_batch_size = plan.global_batch_size // self._num_replicas
        self._buffers = [variable for network in plan.networks for variable in buffers_of(network)]
        self._updates = [self._compile(group) for group in plan.groups]

    def __call__(self, tensors: Tensors, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs step number `step` (int64 []) on every replica and returns the logged scalars, float32 [].

        The scalar `STOP` is the number of replicas with a pending stop request. It is the same on all replicas.
        """
        logs, buffers = tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0],
            self._strategy.run(self._run_on_replica, args=(tensors, step)),
        )
        for variable, value in zip(self._buffers, buffers, strict=True):
            variable.value.assign(value)
        for ema in self._plan.emas:
            self._update_ema(ema, step)
        return logs

    def _run_on_replica(self, tensors: Tensors, step: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Runs all phases on one replica. Returns the logs and the values of the buffers, merged over replicas."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        buffers = [variable.value.read_value() for variable in self._buffers]
        logs: dict[str, tf.Tensor] = {}
        for group, update in zip(self._plan.groups, self._updates, strict=True):
            for repeat in range(group.repeats):
                images, targets = self._draw_batch(tensors, step, replica, repeat)
                group_logs, buffers = update(images, targets, step, replica, repeat, buffers)
                logs |= group_logs
        return self._merge_replicas(logs, buffers)

    def _draw_batch(
        self, tensors: Tensors, step: tf.Tensor, replica: tf.Tensor, repeat: int
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Draws what a phase sees in its repeat number `repeat`: images [B, ...] and targets [B, ...] or None."""
        batch_slice = BatchSlice(
            order_key(self._plan.seed, repeat), step, replica, self._replica_batch_size, self._num_replicas
        )
        images, targets = self._chunk.batch(tensors, batch_slice)
        if self._plan.horizontal_flips:
            rng = StepRng(self._plan.seed, step, self._replica_batch_size, replica, f"flips/{repeat}")
            images = flip_horizontally(images, rng.integers("images", 2))
            if targets is not None and self._chunk.is_unpaired:
                targets = flip_horizontally(targets, rng.integers("targets", 2))
        return images, targets

    def _compile(self, group: PhaseGroup) -> Callable[..., tuple[dict[str, tf.Tensor], list[tf.Tensor]]]:
        """The forward pass, the gradients and the updates of a group of phases.

        XLA compiles all of it on one replica, and on several replicas the part before their exchange.
        """
        gradients_of = _gradient_function(group, self._plan, self._buffers, self._num_replicas)
        if self._plan.jit_compile and self._num_replicas > 1:
            gradients_of = tf.function(gradients_of, jit_compile=True, autograph=False)

        def update(*inputs: Any) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
            gradients, logs, buffers = gradients_of(*inputs)
            self._apply_gradients(group, gradients)
            return logs, buffers

        if self._plan.jit_compile and self._num_replicas == 1:
            return tf.function(update, jit_compile=True, autograph=False)
        return update

    def _apply_gradients(self, group: PhaseGroup, gradients: list[list[tf.Tensor]]) -> None:
        """Sums the gradients of each phase over replicas, then updates its weights.

        Every replica runs the phases in the same order, because collectives must match. The sum comes first, so
        that an optimizer clips the same gradients on any number of replicas.
        """
        before: list[tf.Tensor] = []
        for phase, phase_gradients in zip(group.phases, gradients, strict=True):
            variables = phase.variables
            if before:
                with tf.control_dependencies(before):
                    phase_gradients = [tf.identity(gradient) for gradient in phase_gradients]
            phase.optimizer.apply(collectives.all_reduce_sum(phase_gradients), variables)
            if self._num_replicas > 1:
                before = [variable.value.read_value() for variable in variables]

    def _merge_replicas(
        self, logs: dict[str, tf.Tensor], buffers: list[tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Sums logs over replicas, and merges buffers by their `aggregation`."""
        logs[STOP] = tf.zeros([]) if self._stop is None else tf.cast(self._stop.read_value(), tf.float32)
        summed = [index for index, variable in enumerate(self._buffers) if _is_summed(variable)]
        totals = iter(collectives.all_reduce_sum([*logs.values(), *(buffers[index] for index in summed)]))
        logs = {name: next(totals) for name in logs}
        for index, total in zip(summed, totals, strict=True):
            buffers[index] = total if self._buffers[index].aggregation == "sum" else total / self._num_replicas
        return logs, buffers

    def _update_ema(self, ema: Ema, step: tf.Tensor) -> None:
        """Moves an average one step towards its source."""
        half_life = ema.half_life_images(step)
        rate = 1.0 - tf.pow(0.5, float(self._plan.global_batch_size) / half_life)

        def decay(target: tf.Variable, source: tf.Tensor) -> None:
            tf.raw_ops.ResourceApplyGradientDescent(var=target.handle, alpha=rate, delta=target - source)

        def copy(target: tf.Variable, source: tf.Tensor) -> None:
            target.assign(source)

        for target, source in zip(ema.target.weights, ema.source.weights, strict=True):
            move = decay if source.trainable else copy
            self._strategy.extended.update(target.value, move, args=(source.value,), group=False)


def buffers_of(network: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that no optimizer updates, such as batch-norm moments.

    The values of replicas are merged by `aggregation`: their sum for `sum`, else their mean. A buffer of whole numbers
    or booleans, such as a count of steps, takes the value of the first replica unless its aggregation is `sum`.
    """
    return list(network.non_trainable_weights)


@contextlib.contextmanager
def discarded_updates(network: keras.layers.Layer) -> Iterator[None]:
    """Discards what a forward pass in this context changes in the network's buffers and random layers."""
    state = [variable for variable in network.variables if not variable.trainable]
    with keras.StatelessScope([(variable, variable.value) for variable in state]):
        yield


def _is_summed(buffer: keras.Variable) -> bool:
    """Returns whether the values of replicas are summed to merge them."""
    dtype = tf.as_dtype(buffer.dtype)
    return dtype.is_floating or (buffer.aggregation == "sum" and not dtype.is_bool)


def _gradient_function(
    group: PhaseGroup, plan: StepPlan, buffers: list[keras.Variable], num_replicas: int
) -> Callable[..., tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]]:
    """Returns a function that computes the gradients of a group of phases. It reads variables and writes none."""
    owned = {id(variable) for phase in group.phases for network in phase.networks for variable in buffers_of(network)}
    seeds = seed_states(plan.networks)
    shared = [PER_SAMPLE_SEED in state.path for state in seeds]

    def compute_gradients(
        images: tf.Tensor,
        targets: tf.Tensor | None,
        step: tf.Tensor,
        replica: tf.Tensor,
        repeat: int,
        values: list[tf.Tensor],
    ) -> tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns the gradients of each phase, the logs, and the values of the buffers after the pass."""
        rng = StepRng(plan.seed, step, images.shape[0], replica, f"{'+'.join(group.names)}/{repeat}", repeat)
        state = [*zip(buffers, values, strict=True), *zip(seeds, rng.seeds(shared), strict=True)]
        with tf.GradientTape(persistent=len(group.phases) > 1) as tape:
            with keras.StatelessScope(state, collect_losses=True) as scope:
                losses, metrics = plan.forward(images, targets, rng, group.names)
            _check_layer_losses(scope)
            objectives = {
                phase.name: _objective(phase, losses, images.shape[0], plan.global_batch_size, num_replicas)
                for phase in group.phases
            }
        gradients = [_gradients(tape, objectives[phase.name], phase) for phase in group.phases]
        logs = {f"loss/{name}": objective for name, objective in objectives.items()}
        for name in group.names:
            for metric, value in metrics.get(name, {}).items():
                logs[metric] = tf.reduce_sum(tf.cast(value, tf.float32)) / plan.global_batch_size
        after = [
            scope.get_current_value(variable) if id(variable) in owned else value
            for variable, value in zip(buffers, values, strict=True)
        ]
        return gradients, logs, after

    return compute_gradients


def _objective(phase: Phase, losses: Losses, num_images: int, global_batch_size: int, num_replicas: int) -> tf.Tensor:
    """The scalar that a phase minimizes: this replica's part of the mean loss, and of the networks' own terms."""
    shape = tuple(losses[phase.name].shape) if phase.name in losses else "nothing"
    if shape != (num_images,):
        raise NetworkError(
            f"forward returns {shape} as the loss of the phase {phase.name}, expected one number per image, "
            f"({num_images},); do not average over the batch."
        )
    terms = [tf.cast(term, tf.float32) / num_replicas for term in phase.regularizers]
    return tf.add_n([tf.reduce_sum(losses[phase.name]) / global_batch_size, *terms])


def _check_layer_losses(scope: keras.StatelessScope) -> None:
    """Rejects losses that layers add during a forward pass."""
    if scope.losses:
        raise NetworkError(
            "a layer has an activity_regularizer or calls add_loss, which have no effect here; remove it, or add the "
            "term in GAN.add_losses."
        )


def _gradients(tape: tf.GradientTape, objective: tf.Tensor, phase: Phase) -> list[tf.Tensor]:
    variables = phase.variables
    gradients = tape.gradient(objective, [variable.value for variable in variables])
    missing = [variable.path for variable, gradient in zip(variables, gradients, strict=True) if gradient is None]
    if missing:
        raise NetworkError(
            f"the {phase.name} phase gives no gradient to {', '.join(missing)}; connect every layer of the network to "
            "its output, or set trainable=False on the layers that must not change."
        )
    return gradients
