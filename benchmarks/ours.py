"""This package as a contender: the networks, the step plan and the loop of `GAN.fit`, compiled once."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from benchmarks.cases import Case
from trainer import models
from trainer.callbacks import Checkpoint
from trainer.data.pipeline.batching import BatchSlice, Chunk, Tensors
from trainer.data.pipeline.loaders import InMemoryLoader
from trainer.models.step_plan import step_plan
from trainer.training import loop
from trainer.training.device_loop import DeviceLoop
from trainer.training.preemption import Preemption

CHECKPOINT_EVERY_STEPS = 200


@dataclasses.dataclass(frozen=True)
class _ConstantChunk(Chunk):
    """A chunk that returns the same batch at every step, so that steps do no input work."""

    arrays: tuple[np.ndarray | None, ...] = ()

    def batch(self, tensors: Tensors, batch_slice: BatchSlice) -> tuple[tf.Tensor, tf.Tensor | None]:
        images, targets = (None if array is None else tf.constant(array) for array in self.arrays)
        return images, targets

    @classmethod
    def from_chunk(cls, chunk: Chunk, batch_size: int) -> "_ConstantChunk":
        """Returns a chunk that always returns the first batch of another chunk."""
        batch = chunk.batch(chunk.tensors(), BatchSlice(0, tf.constant(0, tf.int64), 0, batch_size, 1))
        arrays = tuple(None if tensor is None else tensor.numpy() for tensor in batch)
        return cls(chunk.images, chunk.targets, chunk.image_range, arrays=arrays)


class Engine:
    """The loop of `GAN.fit` with a device loop that is traced once.

    Args:
        case: Case to train.
        precision: Precision of the networks: float32 or bfloat16.
        constant_input: True to train on one batch that is part of the graph.
        checkpoints: True to start every call of `run` at step 0, and to commit checkpoints to a new folder, one per
            `CHECKPOINT_EVERY_STEPS` steps and one at the end.
    """

    def __init__(self, case: Case, precision: str, *, constant_input: bool = False, checkpoints: bool = False):
        tf.config.experimental.enable_op_determinism()
        self.config, self.precision = case.config.override(precision=precision), precision
        self._checkpoints = checkpoints
        self.gan = models.from_config(self.config, case.image_shape, case.num_classes)
        self.num_parameters = self.gan.generator.count_params(), self.gan.discriminator.count_params()
        chunk = self.gan.make_chunk(case.images, case.labels if case.num_classes else None)
        if constant_input:
            chunk = _ConstantChunk.from_chunk(chunk, case.batch_size)
        self._loader = InMemoryLoader(chunk, case.batch_size)
        self.plan = step_plan(self.gan, case.batch_size)
        self._device_loop = DeviceLoop(self.plan, chunk, tf.distribute.get_strategy())

    def run(self, num_steps: int) -> None:
        with self._callbacks() as callbacks:
            if self._checkpoints:
                self.gan.step = 0
            end = self.gan.step + num_steps
            loop.TrainingLoop(
                self.gan,
                self._restart,
                self._loader,
                keras.callbacks.CallbackList(callbacks, add_history=True, model=self.gan, num_steps=end),
                num_steps=end,
                global_batch_size=self.config.global_batch_size,
                steps_per_execution=self.config.steps_per_execution,
                preemption=Preemption(),
            ).run()

    def _restart(self, chunk: Chunk) -> DeviceLoop:
        """Returns the compiled step, which the next steps take from a chunk."""
        self._device_loop.restart(chunk)
        return self._device_loop

    @contextmanager
    def _callbacks(self) -> Iterator[list[keras.callbacks.Callback]]:
        if not self._checkpoints:
            yield []
            return
        with tempfile.TemporaryDirectory() as folder:
            yield [Checkpoint(folder, CHECKPOINT_EVERY_STEPS)]
