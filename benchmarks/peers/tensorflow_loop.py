"""A plain TensorFlow loop like the DCGAN tutorial on tensorflow.org: one `tf.function` per step, and tf.data."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import tensorflow as tf

from benchmarks.cases import Case, Contender
from benchmarks.peers.plain_keras import PlainGAN


class TensorFlowLoop:
    """The loop `for batch in dataset: train_step(batch)`."""

    def __init__(self, case: Case, precision: str):
        gan = PlainGAN(case, precision)
        self.precision = precision
        self.num_parameters = gan.num_parameters
        dataset = tf.data.Dataset.from_tensor_slices((case.float_images, case.labels))
        dataset = dataset.shuffle(len(case.images)).batch(case.batch_size, drop_remainder=True)
        self._batches = _epochs(dataset.prefetch(tf.data.AUTOTUNE))
        self._train_step = tf.function(gan.step)

    def run(self, num_steps: int) -> None:
        for images, labels in itertools.islice(self._batches, num_steps):
            self._train_step(images, labels)


def _epochs(dataset: tf.data.Dataset) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    while True:
        yield from dataset


def variants(case: Case, precisions: Sequence[str]) -> dict[str, Callable[[], Contender]]:
    """Returns one variant per precision, otherwise as in the tutorial."""
    return {f"tf.function + tf.data, {precision}": partial(TensorFlowLoop, case, precision) for precision in precisions}
