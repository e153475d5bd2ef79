"""Several training steps per call of the device."""

from collections.abc import Set
from typing import NamedTuple

import tensorflow as tf

from trainer.data.pipeline.batching import Chunk, Tensors
from trainer.metrics.extraction import spans_machines
from trainer.training.distributed import consensus
from trainer.training.plan import StepPlan
from trainer.training.step import ROLLBACK, SKIPPED, STOP, TrainStep

_NOT_LOGGED = (STOP, ROLLBACK, SKIPPED)
"""Names of scalars of a step that are no logs."""


class _LoopVariables(NamedTuple):
    """The variables of the loop over steps. All but `step` are float32, and have the shape [] unless stated.

    Attributes:
        step: Number of the next step, int64.
        stop: Number of replicas with a stop request; more than 0 ends the loop.
        rollback: More than 0 if a rollback is due, which ends the loop.
        num_skipped: Number of skipped updates.
        num_skipped_steps: Number of steps with a skipped update.
        sums: Sums of the logs of all other steps, [number of logs].
        last_skipped: Logs of the last step with a skipped update, [number of logs].
    """

    step: tf.Tensor
    stop: tf.Tensor
    rollback: tf.Tensor
    num_skipped: tf.Tensor
    num_skipped_steps: tf.Tensor
    sums: tf.Tensor
    last_skipped: tf.Tensor


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
            train_step = TrainStep(plan, chunk.template, strategy, self.stop)
            self._train_step = tf.function(train_step.__call__, autograph=False)
        self.load(chunk)
        signature = tf.TensorSpec([], tf.int64)
        with strategy.scope():
            names = sorted(self._train_step.get_concrete_function(self._tensors, signature).structured_outputs)
        self._names = [name for name in names if name not in _NOT_LOGGED]
        self._run_steps = tf.function(self._loop, autograph=False)

    def load(self, chunk: Chunk) -> None:
        """Takes the next steps from a chunk, with a copy on each device. All chunks have arrays of the same shapes."""
        self._tensors: Tensors = {}  # frees the memory of the previous chunk first
        if self._strategy.num_replicas_in_sync == 1:
            with self._strategy.scope():
                self._tensors = chunk.tensors()
            return
        devices = self._strategy.extended.worker_devices

        def tensors_of_replica(context: tf.distribute.experimental.ValueContext) -> Tensors:
            with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
                return chunk.tensors()

        self._tensors = self._strategy.experimental_distribute_values_from_function(tensors_of_replica)

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

    def union(self, numbers: Set[int]) -> set[int]:
        """Returns the positive numbers that all machines pass together. All machines wait for each other."""
        return set(numbers) if self.is_single_machine else consensus.union(self._strategy, numbers)

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
        results = _LoopVariables(*(value.numpy() for value in results))
        self.stopped, self.is_rollback_due = bool(results.stop), bool(results.rollback)
        self.num_skipped = int(results.num_skipped)
        if self.num_skipped:
            self.last_skipped = dict(zip(self._names, results.last_skipped.tolist(), strict=True))
        self.num_counted = self.next_step - first - int(results.num_skipped_steps)
        if not self.num_counted:
            return {}
        return {name: total / self.num_counted for name, total in zip(self._names, results.sums.tolist(), strict=True)}

    def _loop(self, tensors: Tensors, first: tf.Tensor, last: tf.Tensor) -> _LoopVariables:
        """Runs the steps from `first` up to but not including `last`, both int64 []."""

        def has_next(variables: _LoopVariables) -> tf.Tensor:
            return (variables.step < last) & (variables.stop + variables.rollback == 0.0)

        def body(variables: _LoopVariables) -> tuple[_LoopVariables]:
            return (self._next_variables(tensors, variables),)

        zero, zeros = tf.zeros([]), tf.zeros([len(self._names)])
        start = _LoopVariables(first, zero, zero, zero, zero, zeros, zeros)
        # One iteration at a time: the counter does not wait for the updates of variables.
        return tf.while_loop(has_next, body, (start,), parallel_iterations=1)[0]

    def _next_variables(self, tensors: Tensors, variables: _LoopVariables) -> _LoopVariables:
        """Runs one step."""
        scalars = self._train_step(tensors, variables.step)
        next_step = variables.step + 1
        self._next_step.assign(next_step)
        logs = tf.stack([scalars[name] for name in self._names])
        is_skipped = scalars[SKIPPED] > 0.0
        return _LoopVariables(
            step=next_step,
            stop=variables.stop + scalars[STOP],
            rollback=variables.rollback + scalars[ROLLBACK],
            num_skipped=variables.num_skipped + scalars[SKIPPED],
            num_skipped_steps=variables.num_skipped_steps + tf.cast(is_skipped, tf.float32),
            sums=tf.where(is_skipped, variables.sums, variables.sums + logs),
            last_skipped=tf.where(is_skipped, logs, variables.last_skipped),
        )
