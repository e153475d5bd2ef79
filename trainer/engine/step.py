"""One step: all phases once, a pure function of (state, seed, step). It knows phases, and no GAN by name.

Legend: `B` images a replica.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer.architectures.layers import PER_SAMPLE_SEED
from trainer.data.windows import Place, Tensors, Window, mirrored
from trainer.engine import reduction
from trainer.engine.randomness import Noise
from trainer.engine.schedules import Scheduled
from trainer.engine.share import order_key
from trainer.errors import NetworkError

STOP = "stop"
SEED_STATE = "seed_generator_state"
"""Keras's name of a random layer's state."""
Losses = dict[str, tf.Tensor]
Metrics = dict[str, dict[str, tf.Tensor]]
Forward = Callable[[tf.Tensor, tf.Tensor | None, Noise], tuple[Losses, Metrics]]
"""(real_images [B, ...], targets [B, ...] or None, noise) -> per-example losses [B] and metrics [B], by phase name."""


@dataclass(frozen=True)
class Phase:
    """One optimiser update.

    Attributes:
        name: Of the loss in what `Forward` returns, and in logs as `loss/NAME`.
        networks: Those whose weights move; their buffers (batch-norm moments and the like) move with them.
        optimizer: Built for the networks' trainable variables, in order. Phases may share one.
    """

    name: str
    networks: tuple[keras.layers.Layer, ...]
    optimizer: keras.optimizers.Optimizer

    @property
    def variables(self) -> list[keras.Variable]:
        """The weights that move."""
        return [variable for network in self.networks for variable in network.trainable_variables]

    @property
    def regularisers(self) -> list[tf.Tensor]:
        """The networks' own loss terms, such as weight decay."""
        return [term for network in self.networks for term in network.losses]


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
        half_life_images: In images seen; a number, which early on gives way to a twentieth of the images seen so far
            where that is less; or a function of the step, used as it is.
    """

    source: keras.Model
    target: keras.Model
    half_life_images: Scheduled


@dataclass(frozen=True)
class StepPlan:
    """All that a step does.

    Attributes:
        forward: Computes every phase's losses; what a phase does not need of it is pruned from its graph.
        groups: In order.
        networks: Every network that takes part, for their buffers and the seeds of their random layers.
        averages: The averages of networks.
        global_batch_size: Real images a phase sees, over all replicas.
        seed: The run's seed.
        jit_compile: Compile forward and backward passes with XLA.
        horizontal_flips: Mirror every other real image, at random, left to right.
        seeds: States of random layers that the forward pass runs beside the networks.
    """

    forward: Forward
    groups: tuple[PhaseGroup, ...]
    networks: tuple[keras.layers.Layer, ...]
    averages: tuple[Average, ...]
    global_batch_size: int
    seed: int
    jit_compile: bool
    horizontal_flips: bool = False
    seeds: tuple[keras.Variable, ...] = ()


class Step:
    """The step of a plan on a window of data, under the current strategy.

    Args:
        plan: What it does.
        window: Like those that it is given the tensors of; its content is not looked at.
        strategy: The current one.
        stop: A boolean variable of this process, which asks for a stop when it is set; None: none will be asked for.
    """

    def __init__(
        self, plan: StepPlan, window: Window, strategy: tf.distribute.Strategy, stop: tf.Variable | None = None
    ):
        self._plan = plan
        self._stop = stop
        self._window = window
        self._strategy = strategy
        self._num_replicas = strategy.num_replicas_in_sync
        self._replica_batch_size = plan.global_batch_size // self._num_replicas
        self._buffers = [variable for network in plan.networks for variable in buffers_of(network)]
        self._passes = [self._compiled(group) for group in plan.groups]

    def __call__(self, tensors: Tensors, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs step number `step` (int64 []) on every replica and returns the logged scalars, float32 [].

        `STOP` is one of them: how many replicas were asked to stop. All see the same number.
        """
        metrics, buffers = tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0],
            self._strategy.run(self._on_replica, args=(tensors, step)),
        )
        for variable, value in zip(self._buffers, buffers, strict=True):
            variable.value.assign(value)
        for average in self._plan.averages:
            self._follow(average, step)
        return metrics

    def _on_replica(self, tensors: Tensors, step: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        buffers = [variable.value.read_value() for variable in self._buffers]
        logged: dict[str, tf.Tensor] = {}
        for group, run_pass in zip(self._plan.groups, self._passes, strict=True):
            for repeat in range(group.repeats):
                images, targets = self._batch(tensors, step, replica, repeat)
                metrics, buffers = run_pass(images, targets, step, replica, repeat, buffers)
                logged |= metrics
        logged[STOP] = tf.zeros([]) if self._stop is None else tf.cast(self._stop.read_value(), tf.float32)
        added = [index for index, variable in enumerate(self._buffers) if _is_added(variable)]
        totals = iter(reduction.sums([*logged.values(), *(buffers[index] for index in added)]))
        logged = {name: next(totals) for name in logged}
        for index, total in zip(added, totals, strict=True):
            buffers[index] = total if self._buffers[index].aggregation == "sum" else total / self._num_replicas
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
        """Applies the gradients of each phase, in the same order on every replica: collectives must not cross.

        They are summed over replicas first, so that an optimiser clips what one replica alone would clip.
        """
        before: list[tf.Tensor] = []
        for phase, of_phase in zip(group.phases, gradients, strict=True):
            variables = phase.variables
            if before:
                with tf.control_dependencies(before):
                    of_phase = [tf.identity(gradient) for gradient in of_phase]
            phase.optimizer.apply(reduction.sums(of_phase), variables)
            if self._num_replicas > 1:
                before = [variable.value.read_value() for variable in variables]

    def _batch(
        self, tensors: Tensors, step: tf.Tensor, replica: tf.Tensor, repeat: int
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """What a phase sees in its repeat number `repeat`: images [B, ...] and targets [B, ...] or None."""
        images, targets = self._window.batch(tensors, self._place(step, replica, repeat))
        if self._plan.horizontal_flips:
            noise = Noise(self._plan.seed, step, self._replica_batch_size, replica, f"flips/{repeat}")
            images = mirrored(images, noise.integers("images", 2))
            if targets is not None and self._window.is_unpaired:
                targets = mirrored(targets, noise.integers("targets", 2))
        return images, targets

    def _place(self, step: tf.Tensor, replica: tf.Tensor, repeat: int) -> Place:
        return Place(order_key(self._plan.seed, repeat), step, replica, self._replica_batch_size, self._num_replicas)

    def _follow(self, average: Average, step: tf.Tensor) -> None:
        """Moves the average one step towards its source."""
        batch = float(self._plan.global_batch_size)
        if callable(average.half_life_images):
            half_life = average.half_life_images(step)
        else:
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


def buffers_of(network: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that no optimiser moves, such as batch-norm moments.

    Replicas' values of one are merged by its `aggregation`: their sum where that is `sum`, else their mean. Of whole
    numbers and booleans, such as a count of steps, the first replica's is taken, unless their sum is asked for.
    """
    return list(network.non_trainable_weights)


_SEEDS: ContextVar[tuple[keras.Variable, ...]] = ContextVar("_SEEDS", default=())
"""The plan's `seeds`, inside its forward pass."""


@contextlib.contextmanager
def _beside(seeds: tuple[keras.Variable, ...]) -> Iterator[None]:
    token = _SEEDS.set(seeds)
    try:
        yield
    finally:
        _SEEDS.reset(token)


@contextlib.contextmanager
def discarded_updates(network: keras.layers.Layer) -> Iterator[None]:
    """Inside a forward pass: a network called here reads its buffers as they stand, and leaves them so.

    So do random layers beside the networks.
    """
    kept = [v for v in network.variables if not v.trainable]
    with keras.StatelessScope([(v, v.value) for v in (*kept, *_SEEDS.get())]):
        yield


def _is_added(buffer: keras.Variable) -> bool:
    """Whether replicas' values are added."""
    kind = tf.as_dtype(buffer.dtype)
    return kind.is_floating or (buffer.aggregation == "sum" and not kind.is_bool)


def _differentiated(
    group: PhaseGroup, plan: StepPlan, buffers: list[keras.Variable], num_replicas: int
) -> Callable[..., tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]]:
    """A function of (images, targets, step, replica, repeat, buffers' values) that reads variables and writes none.

    It returns the gradients of each phase, what to log, and the values of the buffers after the pass.
    """
    owned = {id(variable) for phase in group.phases for network in phase.networks for variable in buffers_of(network)}
    purpose = "+".join(phase.name for phase in group.phases)
    states = [variable for network in plan.networks for variable in network.variables]
    states = [*(variable for variable in states if variable.name == SEED_STATE), *plan.seeds]
    shared = [PER_SAMPLE_SEED in variable.path for variable in states]

    def differentiate(
        images: tf.Tensor,
        targets: tf.Tensor | None,
        step: tf.Tensor,
        replica: tf.Tensor,
        repeat: int,
        values: list[tf.Tensor],
    ) -> tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]:
        noise = Noise(plan.seed, step, images.shape[0], replica, f"{purpose}/{repeat}", repeat)
        mapping = [*zip(buffers, values, strict=True), *zip(states, noise.seeds(shared), strict=True)]
        with tf.GradientTape(persistent=len(group.phases) > 1) as tape:
            with keras.StatelessScope(mapping, collect_losses=True) as scope, _beside(plan.seeds):
                losses, metrics = plan.forward(images, targets, noise)
            for phase in group.phases:
                _check_loss(phase.name, losses, images.shape[0])
            if scope.losses:
                raise NetworkError(
                    "a layer has an activity_regularizer or calls add_loss, which have no effect here; remove it, or "
                    "add the term in add_losses of a GAN of your own."
                )
            objectives = {}
            for phase in group.phases:
                terms = [tf.cast(term, tf.float32) / num_replicas for term in phase.regularisers]
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


def _check_loss(phase: str, losses: Losses, num_images: int) -> None:
    """Refuses a forward pass that has no loss of a phase, or one that is not float [num_images]."""
    shape = tuple(losses[phase].shape) if phase in losses else "nothing"
    if shape != (num_images,):
        raise NetworkError(
            f"forward gives {shape} as the loss of the phase {phase} where one number an image, ({num_images},), is "
            "expected; leave their mean to the trainer."
        )


def _gradients(tape: tf.GradientTape, objective: tf.Tensor, phase: Phase) -> list[tf.Tensor]:
    variables = phase.variables
    gradients = tape.gradient(objective, [variable.value for variable in variables])
    missing = [variable.path for variable, gradient in zip(variables, gradients, strict=True) if gradient is None]
    if missing:
        raise NetworkError(
            f"the {phase.name} phase gives no gradient to {', '.join(missing)}; "
            "connect every layer of the network to its output, or set trainable=False on what should rest."
        )
    return gradients
