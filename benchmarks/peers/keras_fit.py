"""Keras's own `fit` with an overridden `train_step`, as the GAN examples on keras.io write it."""

import queue
import threading
from collections.abc import Callable

import keras
import tensorflow as tf

from benchmarks.cases import Case, Contender
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


class _Pace(keras.callbacks.Callback):
    """Holds `fit` before each step until a step is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: queue.Queue[int] = queue.Queue()
        self.done: queue.Queue[None] = queue.Queue()
        self._left = 0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if not self._left:
            self._left = self.asked.get()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._left -= 1
        if not self._left:
            self.done.put(None)


class KerasFit:
    """One endless `fit` in a thread of its own, so that rounds begin and end inside epochs as in any training."""

    def __init__(self, case: Case, jit_compile: bool):
        gan = PlainGAN(case)
        self.num_parameters = gan.num_parameters
        self._pace = _Pace()
        model = _Model(gan)
        model.compile(jit_compile=jit_compile)
        arguments = {"batch_size": case.batch, "epochs": 10**9, "verbose": 0, "callbacks": [self._pace]}
        data = (case.float_images, case.labels)
        threading.Thread(target=model.fit, args=data, kwargs=arguments, daemon=True).start()

    def run(self, num_steps: int) -> None:
        self._pace.asked.put(num_steps)
        self._pace.done.get()


def variants(case: Case) -> dict[str, Callable[[], Contender]]:
    """Without XLA and with it, which is what Keras's `jit_compile="auto"` chooses."""
    return {
        "jit_compile=False": lambda: KerasFit(case, jit_compile=False),
        "jit_compile=True": lambda: KerasFit(case, jit_compile=True),
    }
