"""The training loop: executions of several steps, with Keras callbacks in between, and rollbacks."""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Protocol, runtime_checkable

import keras
import numpy as np

from trainer import signals, stopwatch
from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.data.pipeline.loaders import Loader
from trainer.errors import DIVERGENCE_ADVICE, ConfigError, DivergenceError
from trainer.logging import log_fields
from trainer.metrics.extraction import spans_machines
from trainer.stopwatch import Activity
from trainer.training.device_loop import DeviceLoop
from trainer.training.divergence import MAX_ROLLBACKS
from trainer.training.preemption import Preemption, StopRequested
from trainer.training.step import SKIPPED

_logger = logging.getLogger(__name__)


@runtime_checkable
class RollbackCallback(Protocol):
    """A callback with checkpoints to which a run rolls back, such as `Checkpoint`."""

    def find_rollback_step(self, last: int) -> int:
        """Returns the step of the newest checkpoint up to step `last` to which the run may roll back; 0 for none."""
        ...

    def roll_back(self, step: int) -> None:
        """Restores the checkpoint of a step."""
        ...


@runtime_checkable
class RollbackListener(Protocol):
    """A callback that acts after a rollback, such as `MetricsLog`."""

    def on_rollback(self, event: Mapping[str, int]) -> None:
        """Acts after a rollback. `event` has the numbers `diverged_at_step` and `rollbacks`."""
        ...


def _only_saver(callbacks: Sequence[keras.callbacks.Callback]) -> RollbackCallback | None:
    """Returns the callback with checkpoints; None if there is none.

    Raises:
        ConfigError: If there are several, which would restore and delete each other's states.
    """
    savers = [callback for callback in callbacks if isinstance(callback, RollbackCallback)]
    if len(savers) > 1:
        names = ", ".join(type(saver).__name__ for saver in savers)
        raise ConfigError(f"callbacks has {len(savers)} callbacks with checkpoints ({names}); pass one of them.")
    return savers[0] if savers else None


class _LogsRecorder(keras.callbacks.Callback):
    """Keeps the logs of the last execution, with what other callbacks added to them."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.logs = dict(logs or {})


class _EpochMeans:
    """The logs of an epoch: means over its steps, and the number of skipped updates.

    Attributes:
        extras: Values that callbacks added to the logs.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._started = time.perf_counter()
        self.extras: dict[str, float] = {}

    def add(self, logs: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Adds the means of an execution, each over `counts` steps. A value without a count is summed."""
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * counts.get(name, 1)
            self._counts[name] = self._counts.get(name, 0) + counts.get(name, 0)

    def result(self) -> dict[str, float]:
        """Returns the logs of the epoch."""
        means = {name: total / (self._counts[name] or 1) for name, total in self._sums.items()}
        return means | self.extras | {"epoch_secs": time.perf_counter() - self._started}


class TrainingLoop:
    """Trains a model from `model.step` to `num_steps`, or until a callback or SIGTERM stops it.

    Executions end at every multiple of `steps_per_execution`, at the end of epochs, and at every multiple of the
    `every_steps` attribute of a callback, on all machines at those of the callbacks of any machine. What callbacks see
    therefore does not depend on where a run was interrupted.

    Args:
        model: Model with the attributes `step`, the number of steps taken, and `divergence`. Callbacks may set the
            step in `on_train_begin`.
        make_device_loop: Function that returns the compiled step for a first chunk, after `on_train_begin`.
        loader: Source of chunks.
        callbacks: Keras's list of callbacks. `on_train_batch_*` runs once per execution. Values that a callback adds to
            its logs there, such as metrics, also appear in the logs of the end of the epoch.
        num_steps: Step to stop at.
        global_batch_size: Images per step, for `images_per_sec`.
        steps_per_execution: Largest number of steps in one execution.
        preemption: Source of requests to stop.

    Raises:
        ConfigError: If several callbacks have checkpoints, or `every_steps` of one is not a whole number from 0 up.
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
        self._saver = _only_saver(callbacks.callbacks)
        self._recorder = _LogsRecorder()
        callbacks.callbacks.append(self._recorder)
        intervals = [getattr(source, "every_steps", 0) for source in (loader, *callbacks.callbacks)]
        for every in intervals:
            check_number("every_steps", every or 0, whole=True)  # a negative one would never be reached
        self._intervals = {steps_per_execution, loader.steps_per_epoch, *(every for every in intervals if every)}
        self._epoch_means = _EpochMeans()
        self._has_warned = False

    def run(self) -> None:
        """Trains.

        Raises:
            CheckpointError: If machines that train together would continue from different steps.
            DivergenceError: If losses or gradients are not finite in too many steps, and there is no checkpoint to
                return to, or the run has returned too often.
        """
        model = self._model
        model.stop_training = False
        stopwatch.restart()
        self._callbacks.on_train_begin()
        if model.step >= self._num_steps:
            _logger.warning(
                f"There is nothing to train: epochs and steps are totals, and the model has taken {model.step} of "
                f"{self._num_steps} steps."
            )
        elif not model.stop_training:
            while not self._train_until_divergence():
                pass
        self._callbacks.on_train_end()

    def _train_until_divergence(self) -> bool:
        """Trains from `model.step`. Returns False after a rollback, after which training continues."""
        try:
            device_loop = self._start_device_loop()
        except (CancelledError, StopRequested):
            return True  # SIGTERM has arrived while data was loaded, or while the step was traced
        try:
            self._train(device_loop)
            return True
        except DivergenceError as error:
            self._roll_back(device_loop, error)
            return self._preemption.requested and device_loop.is_single_machine
        finally:
            device_loop.unload()

    def _start_device_loop(self) -> DeviceLoop:
        chunk = self._load_chunk()
        # On several machines, all of them agree on the step after which they stop.
        is_single_machine = not spans_machines(self._model.compiled_state.strategy)
        with self._preemption.interrupting() if is_single_machine else contextlib.nullcontext():
            device_loop = self._make_device_loop(chunk)
        self._preemption.on_request(lambda: device_loop.stop.assign(True))
        if device_loop.is_single_machine:
            self._preemption.on_request(self._loader.cancel)
        device_loop.check_step(self._model.step)
        # Machines exchange values only within the same execution, and some have callbacks that others lack.
        self._intervals = device_loop.union(self._intervals)
        return device_loop

    def _roll_back(self, device_loop: DeviceLoop, error: DivergenceError) -> None:
        """Returns to the last checkpoint before the skipped steps, on all machines to the same one.

        The `RollbackCallback` is asked for one. Afterwards, every `RollbackListener` is called.

        Raises:
            DivergenceError: The given error, if there is no such checkpoint, or if the run has returned too often.
        """
        model, step = self._model, self._model.step
        num_rollbacks = model.divergence.num_rollbacks + 1
        last_applied_step = min(model.divergence.last_applied_step(step), step - 1)
        reason = str(error).partition(";")[0].rstrip(".")
        if self._saver is None:
            raise error
        target = device_loop.maximum(self._saver.find_rollback_step(last_applied_step))
        if target == 0:
            raise error
        if num_rollbacks > MAX_ROLLBACKS:
            raise DivergenceError(
                f"{reason}, also after {MAX_ROLLBACKS} rollbacks; earlier checkpoints remain: {DIVERGENCE_ADVICE}."
            ) from error
        self._saver.roll_back(target)
        model.divergence.restart(num_rollbacks)
        _logger.warning(
            f"{reason}; the run continues from the checkpoint of step {target} with other random numbers (rollback "
            f"{num_rollbacks} of at most {MAX_ROLLBACKS}).",
            extra=log_fields({"step": target, "diverged_at_step": step, "rollbacks": num_rollbacks}),
        )
        for callback in self._callbacks.callbacks:
            if isinstance(callback, RollbackListener):
                callback.on_rollback({"diverged_at_step": step, "rollbacks": num_rollbacks})

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
                self._callbacks.on_epoch_end(self._epoch, self._epoch_means.result())
        if model.step > started_at and model.step % steps_per_epoch != 0:
            self._end_histories()

    def _begin_epoch(self) -> None:
        self._epoch = self._model.step // self._loader.steps_per_epoch
        self._callbacks.on_epoch_begin(self._epoch)
        self._epoch_means = _EpochMeans()

    def _load_chunk_if_due(self, device_loop: DeviceLoop) -> bool:
        """Loads the next chunk if one begins at this step. Returns False if SIGTERM arrived meanwhile."""
        every_steps = self._loader.every_steps
        if every_steps and self._model.step % every_steps == 0:
            try:
                device_loop.load(self._load_chunk())
            except CancelledError:
                return False
        return True

    def _load_chunk(self) -> Chunk:
        with stopwatch.measured(Activity.DATA):
            return self._loader.chunk(self._model.step, self._num_steps)

    def _execute(self, device_loop: DeviceLoop) -> None:
        """Runs one execution and reports it to the callbacks."""
        model, first = self._model, self._model.step
        last = min([self._num_steps, *((first // every + 1) * every for every in self._intervals)])
        started = time.perf_counter()
        try:
            with stopwatch.measured(Activity.TRAINING):
                logs = device_loop(first, last)
        finally:
            model.step = device_loop.next_step  # also if Ctrl-C interrupts: weights and step belong together
        if device_loop.stopped:
            self._preemption.requested = True  # the request may come from another machine
        if device_loop.num_skipped:
            self._report_skips(device_loop, first)
        counts = dict.fromkeys(logs, device_loop.num_counted)
        num_steps = model.step - first
        logs["images_per_sec"] = num_steps * self._global_batch_size / (time.perf_counter() - started)
        if device_loop.num_skipped:
            logs[SKIPPED] = float(device_loop.num_skipped)
        self._epoch_means.add(logs, counts | {"images_per_sec": num_steps})
        self._callbacks.on_train_batch_end((model.step - 1) % self._loader.steps_per_epoch, logs)
        self._epoch_means.extras |= {name: value for name, value in self._recorder.logs.items() if name not in logs}

    def _report_skips(self, device_loop: DeviceLoop, first: int) -> None:
        """Logs the first skipped update.

        Raises:
            DivergenceError: If a rollback is due.
        """
        step = self._model.step
        broken = [
            f"{name} became {value}" for name, value in device_loop.last_skipped.items() if not np.isfinite(value)
        ]
        reason = broken[0] if broken else "a gradient became infinite or nan"
        if not self._has_warned:
            self._has_warned = True
            _logger.warning(
                f"Between steps {first} and {step}, {reason}; such updates are skipped, and counted in the logs as "
                f"{SKIPPED}. {DIVERGENCE_ADVICE.capitalize()} if this happens often."
            )
        if device_loop.is_rollback_due:
            raise DivergenceError(
                f"{reason} in too many steps up to step {step}; training stopped, and only its checkpoints were saved: "
                f"{DIVERGENCE_ADVICE}."
            )

    def _end_histories(self) -> None:
        """Adds an unfinished epoch to Keras's histories, and to no other callback."""
        means = self._epoch_means.result()
        for callback in self._callbacks.callbacks:
            if isinstance(callback, keras.callbacks.History):
                callback.on_epoch_end(self._epoch, means)
