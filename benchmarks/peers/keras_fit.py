"""Keras's own `fit` with an overridden `train_step`, like the GAN examples on keras.io."""

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial

import keras
import tensorflow as tf

from benchmarks.cases import Case, Contender, VariantError
from benchmarks.peers.plain_keras import PlainGAN


class _Model(keras.Model):
    def __init__(self, gan: PlainGAN):
        super().__init__()
        self.gan = gan
        self.generator, self.discriminator = gan.generator, gan.discriminator
        self.generator_loss = keras.metrics.Mean(name="g_loss")
        self.discriminator_loss = keras.metrics.Mean(name="d_loss")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.generator_loss, self.discriminator_loss]

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        generator_loss, discriminator_loss = self.gan.step(*data)
        self.generator_loss.update_state(generator_loss)
        self.discriminator_loss.update_state(discriminator_loss)
        return {metric.name: metric.result() for metric in self.metrics}


class _StepGate(keras.callbacks.Callback):
    """Blocks `fit` before a step until steps are requested."""

    def __init__(self) -> None:
        super().__init__()
        self.requested: queue.Queue[int] = queue.Queue()
        self.done: queue.Queue[Exception | None] = queue.Queue()
        self._remaining = 0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if not self._remaining:
            self._remaining = self.requested.get()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._remaining -= 1
        if not self._remaining:
            self.done.put(None)


class KerasFit:
    """One endless `fit` in a thread, so that turns start and end within epochs."""

    def __init__(self, case: Case, precision: str, jit_compile: bool):
        gan = PlainGAN(case, precision)
        self.precision = precision
        self.num_parameters = gan.num_parameters
        self._gate = _StepGate()
        model = _Model(gan)
        model.compile(jit_compile=jit_compile)
        threading.Thread(target=self._fit, args=(model, case), daemon=True).start()

    def run(self, num_steps: int) -> None:
        """Takes some steps.

        Raises:
            VariantError: If TensorFlow cannot compile the step.
        """
        self._gate.requested.put(num_steps)
        error = self._gate.done.get()
        if isinstance(error, tf.errors.OpError):
            raise VariantError(error.message.partition("\n")[0]) from error
        if error is not None:
            raise error

    def _fit(self, model: _Model, case: Case) -> None:
        try:
            model.fit(
                case.float_images,
                case.labels,
                batch_size=case.batch_size,
                epochs=10**9,
                verbose=0,
                callbacks=[self._gate],
            )
        except Exception as error:  # `run` raises it in the thread that waits
            self._gate.done.put(error)


def variants(case: Case, precisions: Sequence[str]) -> dict[str, Callable[[], Contender]]:
    """Returns variants without and with XLA; Keras's `jit_compile="auto"` selects one of them."""
    return {
        f"jit_compile={jit_compile}, {precision}": partial(KerasFit, case, precision, jit_compile)
        for precision in precisions
        for jit_compile in (False, True)
    }
