"""One training step: all phases once. A step is a pure function of (state, seed, step number).

The stages of a step, in order:

1. `TrainStep._draw_batch` draws the images of a phase.
2. `StepPlan.forward`, which is `GAN.forward`, draws latents, runs the networks, and returns the losses of the phase,
   penalties included.
3. `compute_gradients` in `gradients.py` differentiates the losses.
4. `TrainStep._compile` sums gradients and logs over replicas and updates the weights. If they are not finite, it skips
   the update: weights, optimizer and buffers stay as they are.
5. `TrainStep._merge_replicas` merges buffers, such as batch-norm moments, over replicas.
6. `TrainStep._update_ema` moves the exponential moving averages.

This module depends on phases, not on a GAN class. Shapes: `B` images of a replica.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from trainer.data.pipeline.batching import BatchSlice, Chunk, Tensors, flip_horizontally
from trainer.training import optimizers
from trainer.training.distributed import collectives
from trainer.training.distributed.host_shard import order_key
from trainer.training.gradients import gradient_function, is_summed
from trainer.training.plan import Ema, PhaseGroup, StepPlan, buffers_of
from trainer.training.rng import StepRng

STOP = "stop"
"""Name of the scalar that counts the replicas with a pending stop request."""

SKIPPED = "skipped_updates"
"""Name of the scalar that counts the updates of a step that were skipped."""

ROLLBACK = "rollback"
"""Name of the scalar that is 1 if the run must return to an earlier checkpoint."""


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
        owned = [(variable, plan.owners_of(network)) for network in plan.networks for variable in buffers_of(network)]
        self._buffers, self._owners = [variable for variable, _ in owned], [owners for _, owners in owned]
        self._updates = [self._compile(group) for group in plan.groups]

    def __call__(self, tensors: Tensors, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs step number `step` (int64 []) on every replica and returns the logged scalars, float32 [].

        The scalars `STOP`, `SKIPPED` and `ROLLBACK` are the same on all replicas.
        """
        logs, buffers, skips = tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0],
            self._strategy.run(self._run_on_replica, args=(tensors, step)),
        )
        for variable, value in zip(self._buffers, buffers, strict=True):
            variable.value.assign(value)
        for ema in self._plan.emas:
            self._update_ema(ema, step, skips)
        return logs | self._record_skips(tf.add_n(skips), step)

    def _record_skips(self, num_skipped: tf.Tensor, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Records the step if any of its updates was skipped."""
        is_due = tf.cond(num_skipped > 0.0, lambda: self._plan.divergence.add_skip(step), lambda: tf.constant(False))
        return {SKIPPED: num_skipped, ROLLBACK: tf.cast(is_due, tf.float32)}

    def _run_on_replica(
        self, tensors: Tensors, step: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """Runs all phases on one replica.

        Returns:
            The logs and the values of the buffers, merged over replicas, and the number of skipped updates of each
            group, float32 [].
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        initial = buffers = [variable.value.read_value() for variable in self._buffers]
        logs: dict[str, tf.Tensor] = {}
        skips: list[tf.Tensor] = []
        for group, update in zip(self._plan.groups, self._updates, strict=True):
            skipped = []
            for repeat in range(group.repeats):
                images, targets = self._draw_batch(tensors, step, replica, repeat)
                group_logs, buffers, is_applied = update(images, targets, step, replica, repeat, buffers)
                logs |= group_logs
                skipped.append(1.0 - tf.cast(is_applied, tf.float32))
            skips.append(tf.add_n(skipped))
        stop = tf.zeros([]) if self._stop is None else tf.cast(self._stop.read_value(), tf.float32)
        logs[STOP], *buffers = self._merge_replicas(stop, initial, buffers, skips)
        return logs, buffers, skips

    def _draw_batch(
        self, tensors: Tensors, step: tf.Tensor, replica: tf.Tensor, repeat: int
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Draws what a phase sees in its repeat number `repeat`: images [B, ...] and targets [B, ...] or None."""
        batch_slice = BatchSlice(
            order_key(self._plan.seed, repeat), step, replica, self._replica_batch_size, self._num_replicas
        )
        images, targets = self._chunk.batch(tensors, batch_slice)
        if self._plan.horizontal_flips:
            rng = StepRng(
                self._plan.seed, step, self._replica_batch_size, replica, f"flips/{repeat}", salt=self._plan.salt
            )
            images = flip_horizontally(images, rng.integers("images", 2))
            if targets is not None and self._chunk.is_unpaired:
                targets = flip_horizontally(targets, rng.integers("targets", 2))
        return images, targets

    def _compile(self, group: PhaseGroup) -> Callable[..., tuple[dict[str, tf.Tensor], list[tf.Tensor], tf.Tensor]]:
        """The forward pass, the gradients and the updates of a group of phases.

        XLA compiles all of it on one replica, and on several replicas the part before their exchange. On several
        replicas, that part is a function of its own: TensorFlow's graph optimizer adds in the order of names, and the
        names in a function do not contain the number of the device.
        """
        gradients_of = gradient_function(group, self._plan, self._buffers, self._num_replicas)
        compiles_all = self._plan.jit_compile and self._num_replicas == 1
        if self._num_replicas > 1:
            gradients_of = tf.function(gradients_of, jit_compile=self._plan.jit_compile or None, autograph=False)

        def apply(*gradients: tf.Tensor, condition: tf.Tensor | None = None) -> None:
            remaining = iter(gradients)
            for phase in group.phases:
                variables = phase.variables
                phase_gradients = list(itertools.islice(remaining, len(variables)))
                if condition is None:
                    phase.optimizer.apply(phase_gradients, variables)
                else:
                    optimizers.apply_where(condition, phase.optimizer, phase_gradients, variables)

        def update(
            images: tf.Tensor,
            targets: tf.Tensor | None,
            step: tf.Tensor,
            replica: tf.Tensor,
            repeat: int,
            buffers: list[tf.Tensor],
        ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor], tf.Tensor]:
            """Returns logs, buffers, and whether all gradients and logs are finite.

            All replicas have the same sums, and so make the same decision. The sum comes first, so that an optimizer
            clips the same gradients on any number of replicas.
            """
            gradients, logs, new_buffers = gradients_of(images, targets, step, replica, repeat, buffers)
            flat = [gradient for phase_gradients in gradients for gradient in phase_gradients]
            totals = collectives.all_reduce_sum([*flat, *logs.values()])
            flat, scalars = totals[: len(flat)], totals[len(flat) :]
            is_finite = optimizers.is_finite(flat, scalars, is_compiled=compiles_all)
            pairs = zip(new_buffers, buffers, strict=True)
            buffers = [old if new is old else tf.where(is_finite, new, old) for new, old in pairs]
            if compiles_all:
                apply(*flat, condition=is_finite)
            else:
                optimizers.run_if(is_finite, apply, *flat)
            return dict(zip(logs, scalars, strict=True)), buffers, is_finite

        return tf.function(update, jit_compile=True, autograph=False) if compiles_all else update

    def _merge_replicas(
        self, stop: tf.Tensor, initial: list[tf.Tensor], buffers: list[tf.Tensor], skips: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Sums stop requests over replicas, and merges buffers by their `aggregation`.

        Buffers of a network keep their initial values if all of its updates were skipped.
        """
        summed = [index for index, variable in enumerate(self._buffers) if is_summed(variable)]
        stop, *totals = collectives.all_reduce_sum([stop, *(buffers[index] for index in summed)])
        if self._num_replicas == 1:
            return [stop, *buffers]
        merged = list(buffers)
        for index, total in zip(summed, totals, strict=True):
            merged[index] = total if self._buffers[index].aggregation == "sum" else total / self._num_replicas
        for index, owners in enumerate(self._owners):
            if owners:
                merged[index] = tf.where(self._are_skipped(owners, skips), initial[index], merged[index])
        return [stop, *merged]

    def _are_skipped(self, groups: Sequence[int], skips: list[tf.Tensor]) -> tf.Tensor:
        """Returns whether all updates of some groups were skipped: bool []."""
        num_updates = sum(self._plan.groups[index].repeats for index in groups)
        return tf.add_n([skips[index] for index in groups]) == float(num_updates)

    def _update_ema(self, ema: Ema, step: tf.Tensor, skips: list[tf.Tensor]) -> None:
        """Moves an average one step towards its source, unless the update of the source was skipped."""
        half_life = ema.half_life_images(step)
        rate = 1.0 - tf.pow(0.5, float(self._plan.global_batch_size) / half_life)
        owners = self._plan.owners_of(ema.source)
        if owners:
            rate = tf.where(self._are_skipped(owners, skips), 0.0, rate)

        def decay(target: tf.Variable, source: tf.Tensor) -> None:
            tf.raw_ops.ResourceApplyGradientDescent(var=target.handle, alpha=rate, delta=target - source)

        def copy(target: tf.Variable, source: tf.Tensor) -> None:
            target.assign(source)

        for target, source in zip(ema.target.weights, ema.source.weights, strict=True):
            move = decay if source.trainable else copy
            self._strategy.extended.update(target.value, move, args=(source.value,), group=False)


@contextlib.contextmanager
def discarded_updates(*networks: keras.layers.Layer) -> Iterator[None]:
    """Discards what a forward pass in this context changes in the buffers and random layers of networks.

    Name every network of the pass: the values that the step has for the buffers of others are hidden.
    """
    state = [variable for network in networks for variable in network.variables if not variable.trainable]
    with keras.StatelessScope([(variable, variable.value) for variable in state]):
        yield
