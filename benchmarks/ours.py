"""This engine as a contender: the networks, the plan and the loop that `GAN.fit` runs, compiled once."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from benchmarks.cases import Case
from trainer import gans
from trainer.callbacks import Checkpoint
from trainer.data.feeds import Resident
from trainer.data.windows import Place, Tensors, Window
from trainer.engine import loop
from trainer.engine.preemption import Preemption

CHECKPOINT_EVERY_STEPS = 200


@dataclasses.dataclass(frozen=True)
class _ConstantWindow(Window):
    """A window whose every batch is the same one: a step on it does no input work at all."""

    held: tuple[np.ndarray | None, ...] = ()

    def batch(self, tensors: Tensors, place: Place) -> tuple[tf.Tensor, tf.Tensor | None]:
        images, targets = (None if array is None else tf.constant(array) for array in self.held)
        return images, targets

    @classmethod
    def of(cls, window: Window, size: int) -> "_ConstantWindow":
        """The first batch of a window, for ever."""
        batch = window.batch(window.tensors(), Place(0, tf.constant(0, tf.int64), 0, size, 1))
        arrays = tuple(None if tensor is None else tensor.numpy() for tensor in batch)
        return cls(window.images, window.targets, window.image_range, held=arrays)


class Engine:
    """`GAN.fit`'s loop over a device window that is traced once.

    Args:
        case: What to train.
        constant_input: Trains on one batch that is part of the graph.
        checkpoints: Every call of `run` starts at step 0, commits a checkpoint every `CHECKPOINT_EVERY_STEPS` and at
            its end to a new folder, and waits for the last one.
    """

    def __init__(self, case: Case, *, constant_input: bool = False, checkpoints: bool = False):
        tf.config.experimental.enable_op_determinism()
        self._config = case.config
        self._checkpoints = checkpoints
        self.gan = gans.from_config(case.config, case.image_shape, case.num_classes)
        self.num_parameters = self.gan.generator.count_params(), self.gan.discriminator.count_params()
        window = self.gan._window(case.images, case.labels if case.num_classes else None)
        if constant_input:
            window = _ConstantWindow.of(window, case.batch)
        self._feed = Resident(window, case.batch)
        self.plan = self.gan._plan(case.batch)
        self._device_window = loop.DeviceWindow(self.plan, window, tf.distribute.get_strategy())

    def run(self, num_steps: int) -> None:
        with self._callbacks() as callbacks:
            if self._checkpoints:
                self.gan.step = 0
            end = self.gan.step + num_steps
            loop.run(
                self.gan,
                lambda window: self._device_window,
                self._feed,
                keras.callbacks.CallbackList(callbacks, add_history=True, model=self.gan, num_steps=end),
                num_steps=end,
                global_batch_size=self._config.global_batch_size,
                steps_per_window=self._config.steps_per_window,
                preemption=Preemption(),
            )

    @contextmanager
    def _callbacks(self) -> Iterator[list[keras.callbacks.Callback]]:
        if not self._checkpoints:
            yield []
            return
        with tempfile.TemporaryDirectory() as folder:
            yield [Checkpoint(folder, CHECKPOINT_EVERY_STEPS)]
