"""The one `while`: windows of steps on the device, Keras callbacks between them."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError

import keras
import numpy as np
import tensorflow as tf

from trainer.data.feeds import Feed
from trainer.data.windows import Tensors, Window
from trainer.engine import agreement
from trainer.engine.preemption import Preemption
from trainer.engine.step import STOP, Step, StepPlan
from trainer.engine.strategy import spans_machines
from trainer.errors import DivergenceError


class DeviceWindow:
    """Runs several steps in one call.

    It stops after the step in which a replica was asked to, by its `stop`: on all machines after the same one.
    """

    def __init__(self, plan: StepPlan, window: Window, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.is_alone = not spans_machines(strategy)
        self.stopped = False
        self.stop = tf.Variable(False, trainable=False, name="stop")
        with strategy.scope():
            run_step = tf.function(Step(plan, window.outline, strategy, self.stop).__call__, autograph=False)
        self.hold(window)
        signature = tf.TensorSpec([], tf.int64)
        with strategy.scope():
            names = sorted(run_step.get_concrete_function(self._tensors, signature).structured_outputs)

        def run_window(tensors: Tensors, first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            def goes_on(step: tf.Tensor, sums: dict[str, tf.Tensor]) -> tf.Tensor:
                return tf.logical_and(step < last, sums[STOP] == 0.0)

            def body(step: tf.Tensor, sums: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
                scalars = run_step(tensors, step)
                return step + 1, {name: sums[name] + scalars[name] for name in names}

            # One at a time: the counter would otherwise run ahead of the updates of variables, which it does not await.
            none_yet = {name: tf.zeros([]) for name in names}
            return tf.while_loop(goes_on, body, (first, none_yet), parallel_iterations=1)

        self._run_window = tf.function(run_window, autograph=False)

    def hold(self, window: Window) -> None:
        """Takes the next steps from a window; all windows have arrays of the same shapes."""
        self._tensors: Tensors = {}  # the window before makes room first
        self._tensors = self._strategy.experimental_distribute_values_from_function(lambda _: window.tensors())

    def check_step(self, step: int) -> None:
        """Refuses, where several machines train, to go on from different steps; raises CheckpointError."""
        if not self.is_alone:
            agreement.check_step(self._strategy, step)

    def __call__(self, first: int, last: int) -> tuple[int, dict[str, float]]:
        """Runs the steps from `first` up to, without, `last`.

        Returns:
            The number of the next step, and the mean of every logged scalar over the steps that were run.
        """
        with self._strategy.scope():
            reached, sums = self._run_window(self._tensors, tf.constant(first, tf.int64), tf.constant(last, tf.int64))
        reached = int(reached)
        self.stopped = float(sums.pop(STOP)) > 0
        num_steps = max(1, reached - first)
        return reached, {name: float(value) / num_steps for name, value in sums.items()}


class _Last(keras.callbacks.Callback):
    """Hears what the callbacks before it have added to the logs of a window."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.logs = dict(logs or {})


def run(
    model: keras.Model,
    make_device_window: Callable[[Window], DeviceWindow],
    feed: Feed,
    callbacks: keras.callbacks.CallbackList,
    *,
    num_steps: int,
    global_batch_size: int,
    steps_per_window: int,
    preemption: Preemption,
) -> None:
    """Trains from `model.step` to `num_steps`, or until a callback or SIGTERM stops it.

    Windows end at every multiple of `steps_per_window`, at the end of epochs, and at every multiple of a callback's
    `every_steps` attribute, where it has one: so what callbacks see does not depend on where a run was cut.

    Args:
        model: Has the attribute `step`, the number of steps taken, which callbacks may set in `on_train_begin`.
        make_device_window: Called after `on_train_begin` with the first window.
        feed: Of windows.
        callbacks: Keras's list; `on_train_batch_*` runs once a window. What one adds to its logs there, such as
            metrics, is in the logs of the epoch's end as it was last.
        num_steps: The step to stop at.
        global_batch_size: For `images_per_sec`.
        steps_per_window: Most steps of a window.
        preemption: Says whether SIGTERM has come.

    Raises:
        CheckpointError: Machines that train together would go on from different steps.
        DivergenceError: A logged scalar is not finite.
    """
    model.stop_training = False
    callbacks.callbacks.append(last_callback := _Last())
    callbacks.on_train_begin()
    steps_per_epoch = feed.steps_per_epoch
    cadences = [steps_per_window, steps_per_epoch, *_cadences([feed, *callbacks.callbacks])]
    if model.step < num_steps and not model.stop_training:
        device_window = make_device_window(feed.window(model.step, num_steps))
        preemption.on_request(lambda: device_window.stop.assign(True))
        if device_window.is_alone:
            preemption.on_request(feed.cancel)
        device_window.check_step(model.step)
    started_at = model.step
    epoch_sums: dict[str, float] = {}
    added: dict[str, float] = {}
    epoch_start, epoch_started = model.step, time.perf_counter()
    stopped = False
    while model.step < num_steps and not model.stop_training and not stopped:
        if preemption.requested and device_window.is_alone:
            break
        epoch, position = divmod(model.step, steps_per_epoch)
        if position == 0 or model.step == epoch_start:
            callbacks.on_epoch_begin(epoch)
            epoch_sums, added, epoch_start, epoch_started = {}, {}, model.step, time.perf_counter()
        callbacks.on_train_batch_begin(position)
        if feed.every_steps and model.step % feed.every_steps == 0 and model.step != started_at:
            try:
                device_window.hold(feed.window(model.step, num_steps))
            except CancelledError:  # SIGTERM came while it was awaited
                break
        first = model.step
        last = min([num_steps, *((first // every + 1) * every for every in cadences)])
        started = time.perf_counter()
        model.step, logs = device_window(first, last)
        stopped = device_window.stopped
        preemption.requested |= stopped  # on another machine, it may be
        _check_finite(logs, first, model.step)
        logs["images_per_sec"] = (model.step - first) * global_batch_size / (time.perf_counter() - started)
        for name, value in logs.items():
            epoch_sums[name] = epoch_sums.get(name, 0.0) + value * (model.step - first)
        callbacks.on_train_batch_end((model.step - 1) % steps_per_epoch, logs)
        added |= {name: value for name, value in last_callback.logs.items() if name not in logs}
        means = {name: total / (model.step - epoch_start) for name, total in epoch_sums.items()} | added
        means["epoch_secs"] = time.perf_counter() - epoch_started
        if model.step % steps_per_epoch == 0:
            callbacks.on_epoch_end(epoch, means)
    if model.step > started_at and model.step % steps_per_epoch != 0:
        _histories_end(callbacks, epoch, means)
    callbacks.on_train_end()


def _histories_end(callbacks: keras.callbacks.CallbackList, epoch: int, means: dict[str, float]) -> None:
    """Adds to Keras's histories, and to no other callback, an epoch that was not finished."""
    for held in callbacks.callbacks:
        if isinstance(held, keras.callbacks.History):
            held.on_epoch_end(epoch, means)


def _cadences(of: Iterable[object]) -> list[int]:
    found = (getattr(each, "every_steps", 0) for each in of)
    return sorted({every for every in found if every})


def _check_finite(logs: dict[str, float], first: int, last: int) -> None:
    broken = [name for name, value in logs.items() if not np.isfinite(value)]
    if broken:
        raise DivergenceError(
            f"{broken[0]} became {logs[broken[0]]} between steps {first} and {last}; training stopped and nothing "
            "after the last checkpoint was saved: lower the learning rates or choose another loss."
        )
