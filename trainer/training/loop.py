"""The training loop: several steps per call of the device, with Keras callbacks in between."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError

import keras
import numpy as np
import tensorflow as tf

from trainer import signals
from trainer.data.pipeline.batching import Chunk, Tensors
from trainer.data.pipeline.loaders import Loader
from trainer.errors import DIVERGENCE_ADVICE, DivergenceError
from trainer.training.distributed import consensus
from trainer.training.distributed.strategy import spans_machines
from trainer.training.preemption import Preemption
from trainer.training.step import STOP, StepPlan, TrainStep

_logger = logging.getLogger(__name__)


class DeviceLoop:
    """Runs several steps on the device in one call.

    It stops after the step in which a replica received a stop request, on all machines after the same step.

    Attributes:
        stopped: Whether the last call ended because of a request to stop.
        stop: Boolean variable of this process that requests a stop.
        is_single_machine: Whether no other process trains the same model.
    """

    def __init__(self, plan: StepPlan, chunk: Chunk, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.is_single_machine = not spans_machines(strategy)
        self.stopped = False
        self.stop = tf.Variable(False, trainable=False, name="stop")
        self._next_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="next_step")
        with strategy.scope():
            run_step = tf.function(TrainStep(plan, chunk.template, strategy, self.stop).__call__, autograph=False)
        self.load(chunk)
        signature = tf.TensorSpec([], tf.int64)
        with strategy.scope():
            names = sorted(run_step.get_concrete_function(self._tensors, signature).structured_outputs)

        def run_steps(tensors: Tensors, first: tf.Tensor, last: tf.Tensor) -> dict[str, tf.Tensor]:
            def has_next(step: tf.Tensor, sums: dict[str, tf.Tensor]) -> tf.Tensor:
                return tf.logical_and(step < last, sums[STOP] == 0.0)

            def body(step: tf.Tensor, sums: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
                scalars = run_step(tensors, step)
                self._next_step.assign(step + 1)
                return step + 1, {name: sums[name] + scalars[name] for name in names}

            # One iteration at a time: the counter does not wait for the updates of variables.
            zeros = {name: tf.zeros([]) for name in names}
            _, sums = tf.while_loop(has_next, body, (first, zeros), parallel_iterations=1)
            return sums

        self._run_steps = tf.function(run_steps, autograph=False)

    def load(self, chunk: Chunk) -> None:
        """Takes the next steps from a chunk. All chunks have arrays of the same shapes."""
        self._tensors: Tensors = {}  # frees the memory of the previous chunk first
        self._tensors = self._strategy.experimental_distribute_values_from_function(lambda _: chunk.tensors())

    def restart(self, chunk: Chunk) -> None:
        """Prepares another use of the compiled step, from a chunk whose arrays have the same shapes and types."""
        self.stopped = False
        self.stop.assign(False)
        self.load(chunk)

    def unload(self) -> None:
        """Frees the memory of the data."""
        self._tensors = {}

    @property
    def next_step(self) -> int:
        """Number of the step after the last one that ran, also if an exception has interrupted a call."""
        return int(self._next_step.numpy())

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
            The mean of every logged scalar over the steps that ran.
        """
        self._next_step.assign(first)
        with self._strategy.scope():
            sums = self._run_steps(self._tensors, tf.constant(first, tf.int64), tf.constant(last, tf.int64))
        self.stopped = float(sums.pop(STOP)) > 0
        return {name: float(value) / (self.next_step - first) for name, value in sums.items()}


class _LogsRecorder(keras.callbacks.Callback):
    """Keeps the logs of the last execution, with what other callbacks added to them."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.logs = dict(logs or {})


class TrainingLoop:
    """Trains a model from `model.step` to `num_steps`, or until a callback or SIGTERM stops it.

    Executions end at every multiple of `steps_per_execution`, at the end of epochs, and at every multiple of the
    `every_steps` attribute of a callback. What callbacks see therefore does not depend on where a run was interrupted.

    Args:
        model: Model with the attribute `step`, the number of steps taken. Callbacks may set it in `on_train_begin`.
        make_device_loop: Function that returns the compiled step for a first chunk, after `on_train_begin`.
        loader: Source of chunks.
        callbacks: Keras's list of callbacks. `on_train_batch_*` runs once per execution. Values that a callback adds to
            its logs there, such as metrics, also appear in the logs of the end of the epoch.
        num_steps: Step to stop at.
        global_batch_size: Images per step, for `images_per_sec`.
        steps_per_execution: Largest number of steps in one execution.
        preemption: Source of requests to stop.
    """

    def __init__(
        self,
        model: keras.Model,
        make_device_loop: Callable[[Chunk], DeviceLoop],
        loader: Loader,
        callbacks: keras.callbacks.CallbackList,
        *,
        num_steps: int,
        global_batch_size: int,
        steps_per_execution: int,
        preemption: Preemption,
    ):
        self._model, self._make_device_loop, self._loader = model, make_device_loop, loader
        self._callbacks, self._preemption = callbacks, preemption
        self._num_steps, self._global_batch_size = num_steps, global_batch_size
        self._recorder = _LogsRecorder()
        callbacks.callbacks.append(self._recorder)
        intervals = [getattr(source, "every_steps", 0) for source in (loader, *callbacks.callbacks)]
        self._intervals = {steps_per_execution, loader.steps_per_epoch, *(every for every in intervals if every)}
        self._epoch_sums: dict[str, float] = {}
        self._epoch_extras: dict[str, float] = {}

    def run(self) -> None:
        """Trains.

        Raises:
            CheckpointError: If machines that train together would continue from different steps.
            DivergenceError: If a logged scalar is not finite.
        """
        model = self._model
        model.stop_training = False
        self._callbacks.on_train_begin()
        if model.step >= self._num_steps:
            _logger.warning(
                f"There is nothing to train: epochs and steps are totals, and the model has taken {model.step} of "
                f"{self._num_steps} steps."
            )
        elif not model.stop_training:
            device_loop = self._start_device_loop()
            try:
                self._train(device_loop)
            finally:
                device_loop.unload()
        self._callbacks.on_train_end()

    def _start_device_loop(self) -> DeviceLoop:
        device_loop = self._make_device_loop(self._loader.chunk(self._model.step, self._num_steps))
        self._preemption.on_request(lambda: device_loop.stop.assign(True))
        if device_loop.is_single_machine:
            self._preemption.on_request(self._loader.cancel)
        device_loop.check_step(self._model.step)
        return device_loop

    def _train(self, device_loop: DeviceLoop) -> None:
        model, steps_per_epoch = self._model, self._loader.steps_per_epoch
        started_at = model.step
        self._begin_epoch()
        while model.step < self._num_steps and not model.stop_training and not device_loop.stopped:
            signals.check()
            if self._preemption.requested and device_loop.is_single_machine:
                break
            if model.step != started_at and model.step % steps_per_epoch == 0:
                self._begin_epoch()
            self._callbacks.on_train_batch_begin(model.step % steps_per_epoch)
            if model.step != started_at and not self._load_chunk_if_due(device_loop):
                break
            self._execute(device_loop)
            if model.step % steps_per_epoch == 0:
                self._callbacks.on_epoch_end(self._epoch, self._epoch_means())
        if model.step > started_at and model.step % steps_per_epoch != 0:
            self._end_histories()

    def _begin_epoch(self) -> None:
        self._epoch = self._model.step // self._loader.steps_per_epoch
        self._callbacks.on_epoch_begin(self._epoch)
        self._epoch_sums, self._epoch_extras = {}, {}
        self._epoch_start, self._epoch_started = self._model.step, time.perf_counter()

    def _load_chunk_if_due(self, device_loop: DeviceLoop) -> bool:
        """Loads the next chunk if one begins at this step. Returns False if SIGTERM arrived meanwhile."""
        step, every_steps = self._model.step, self._loader.every_steps
        if every_steps and step % every_steps == 0:
            try:
                device_loop.load(self._loader.chunk(step, self._num_steps))
            except CancelledError:
                return False
        return True

    def _execute(self, device_loop: DeviceLoop) -> None:
        """Runs one execution and reports it to the callbacks."""
        model, first = self._model, self._model.step
        last = min([self._num_steps, *((first // every + 1) * every for every in self._intervals)])
        started = time.perf_counter()
        try:
            logs = device_loop(first, last)
        finally:
            model.step = device_loop.next_step  # also if Ctrl-C interrupts: weights and step belong together
        if device_loop.stopped:
            self._preemption.requested = True  # the request may come from another machine
        _check_finite(logs, first, model.step)
        num_steps = model.step - first
        logs["images_per_sec"] = num_steps * self._global_batch_size / (time.perf_counter() - started)
        for name, value in logs.items():
            self._epoch_sums[name] = self._epoch_sums.get(name, 0.0) + value * num_steps
        self._callbacks.on_train_batch_end((model.step - 1) % self._loader.steps_per_epoch, logs)
        self._epoch_extras |= {name: value for name, value in self._recorder.logs.items() if name not in logs}

    def _epoch_means(self) -> dict[str, float]:
        num_steps = self._model.step - self._epoch_start
        means = {name: total / num_steps for name, total in self._epoch_sums.items()}
        return means | self._epoch_extras | {"epoch_secs": time.perf_counter() - self._epoch_started}

    def _end_histories(self) -> None:
        """Adds an unfinished epoch to Keras's histories, and to no other callback."""
        means = self._epoch_means()
        for callback in self._callbacks.callbacks:
            if isinstance(callback, keras.callbacks.History):
                callback.on_epoch_end(self._epoch, means)


def _check_finite(logs: dict[str, float], first: int, last: int) -> None:
    broken = [name for name, value in logs.items() if not np.isfinite(value)]
    if broken:
        raise DivergenceError(
            f"{broken[0]} became {logs[broken[0]]} between steps {first} and {last}; training stopped and nothing "
            f"after the last checkpoint was saved: {DIVERGENCE_ADVICE}."
        )
