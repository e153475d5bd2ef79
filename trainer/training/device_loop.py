"""Several training steps per call of the device."""

from collections.abc import Sequence

import tensorflow as tf

from trainer.data.pipeline.batching import Chunk, Tensors
from trainer.training.distributed import consensus
from trainer.training.distributed.strategy import spans_machines
from trainer.training.plan import StepPlan
from trainer.training.step import ROLLBACK, SKIPPED, STOP, TrainStep

_FLAGS = (STOP, ROLLBACK, SKIPPED)
"""Scalars of a step that are not logged. The first two end an execution."""


class DeviceLoop:
    """Runs several steps on the device in one call.

    It stops after the step in which a replica received a stop request, and after the step in which a rollback is due,
    on all machines after the same step.

    Attributes:
        stopped: Whether the last call ended because of a request to stop.
        is_rollback_due: Whether the last call ended because too many steps were skipped.
        num_skipped: Number of updates that the last call skipped.
        num_counted: Number of steps of the last call without a skipped update.
        last_skipped: The scalars of the last skipped step, by name.
        stop: Boolean variable of this process that requests a stop.
        is_single_machine: Whether no other process trains the same model.
    """

    def __init__(self, plan: StepPlan, chunk: Chunk, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.is_single_machine = not spans_machines(strategy)
        self.stopped = self.is_rollback_due = False
        self.num_skipped, self.num_counted = 0, 0
        self.last_skipped: dict[str, float] = {}
        self.stop = tf.Variable(False, trainable=False, name="stop")
        self._next_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="next_step")
        with strategy.scope():
            run_step = tf.function(TrainStep(plan, chunk.template, strategy, self.stop).__call__, autograph=False)
        self.load(chunk)
        signature = tf.TensorSpec([], tf.int64)
        with strategy.scope():
            names = sorted(run_step.get_concrete_function(self._tensors, signature).structured_outputs)
        self._names = [name for name in names if name not in _FLAGS]

        def run_steps(tensors: Tensors, first: tf.Tensor, last: tf.Tensor) -> Sequence[tf.Tensor]:
            def has_next(step: tf.Tensor, flags: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
                return tf.logical_and(step < last, tf.reduce_sum(flags[:2]) == 0.0)

            def body(
                step: tf.Tensor, flags: tf.Tensor, sums: tf.Tensor, skipped: tf.Tensor
            ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
                scalars = run_step(tensors, step)
                self._next_step.assign(step + 1)
                logs = tf.stack([scalars[name] for name in self._names])
                is_skipped = scalars[SKIPPED] > 0.0
                flags += tf.stack([*(scalars[name] for name in _FLAGS), tf.cast(is_skipped, tf.float32)])
                return step + 1, flags, tf.where(is_skipped, sums, sums + logs), tf.where(is_skipped, logs, skipped)

            # One iteration at a time: the counter does not wait for the updates of variables.
            zeros = tf.zeros([len(self._names)])
            start = (first, tf.zeros([len(_FLAGS) + 1]), zeros, zeros)
            return tf.while_loop(has_next, body, start, parallel_iterations=1)[1:]

        self._run_steps = tf.function(run_steps, autograph=False)

    def load(self, chunk: Chunk) -> None:
        """Takes the next steps from a chunk. All chunks have arrays of the same shapes."""
        self._tensors: Tensors = {}  # frees the memory of the previous chunk first
        self._tensors = self._strategy.experimental_distribute_values_from_function(lambda _: chunk.tensors())

    def restart(self, chunk: Chunk) -> None:
        """Prepares another use of the compiled step, from a chunk whose arrays have the same shapes and types."""
        self.stopped = self.is_rollback_due = False
        self.stop.assign(False)
        self.load(chunk)

    def unload(self) -> None:
        """Frees the memory of the data."""
        self._tensors = {}

    @property
    def next_step(self) -> int:
        """Number of the step after the last one that ran, also if an exception has interrupted a call."""
        return int(self._next_step.numpy())

    def maximum(self, number: int) -> int:
        """Returns the largest number that a machine passes. All machines wait for each other."""
        return number if self.is_single_machine else max(consensus.gather_per_replica(self._strategy, number))

    def check_step(self, step: int) -> None:
        """Checks that all machines continue from the same step.

        Raises:
            CheckpointError: If they do not.
        """
        if not self.is_single_machine:
            consensus.check_same_step(self._strategy, step)

    def __call__(self, first: int, last: int) -> dict[str, float]:
        """Runs the steps from `first` up to but not including `last`.

        Returns:
            The mean of every logged scalar over the steps that ran without a skipped update; empty if there are none.
        """
        self._next_step.assign(first)
        with self._strategy.scope():
            results = self._run_steps(self._tensors, tf.constant(first, tf.int64), tf.constant(last, tf.int64))
        (stop, rollback, num_skipped, num_skipped_steps), sums, skipped = (value.numpy() for value in results)
        self.stopped, self.is_rollback_due, self.num_skipped = bool(stop), bool(rollback), int(num_skipped)
        if self.num_skipped:
            self.last_skipped = dict(zip(self._names, skipped.tolist(), strict=True))
        self.num_counted = self.next_step - first - int(num_skipped_steps)
        if not self.num_counted:
            return {}
        return {name: total / self.num_counted for name, total in zip(self._names, sums.tolist(), strict=True)}
