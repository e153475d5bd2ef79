"""Dropout with masks that do not depend on the number of replicas."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from trainer.config.fields import check_number
from trainer.networks.layers.normal_rows import PHILOX
from trainer.networks.layers.sample_position import part_of_batch

PER_SAMPLE_SEED = "per_sample_seed"
"""Name of a seed state whose random numbers belong to samples: all replicas get the same seed, at different offsets."""

MAX_DROPOUT_RATE = 1 - 2**-16
"""Largest rate, because a mask has 16 random bits per element."""

_ELEMENTS_PER_COUNTER = 8  # One counter of the generator gives 128 bits: eight elements of 16 bits.


@keras.saving.register_keras_serializable("trainer")
class Dropout(layers.Layer):
    """Dropout with 16 random bits per element, drawn by the sample's position in the global batch.

    The mask of a sample therefore does not depend on the number of replicas. With
    `discriminator_updates="concatenated"` it does, because a replica's batch is its real images, then its fake ones.

    Args:
        rate: Fraction of elements to set to 0, in [0, 1 - 1/65,536], exact to 1/65,536. The others are scaled up.

    Raises:
        ConfigError: If the rate is out of range.
    """

    def __init__(self, rate: float, **kwargs: object):
        super().__init__(**kwargs)
        check_number("dropout", rate, maximum=MAX_DROPOUT_RATE)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(seed=0, name=PER_SAMPLE_SEED)
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"rate": self.rate}

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        size = int(np.prod(inputs.shape[1:]))
        num_counters = -(-size // _ELEMENTS_PER_COUNTER)
        num_samples = tf.shape(inputs)[0]
        first_counter = tf.cast(num_samples * part_of_batch()[0], tf.uint64) * num_counters
        seed = self.seed_generator.next()
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[num_samples, num_counters * 2],
            key=tf.bitcast(tf.cast(seed, tf.uint32), tf.uint64)[tf.newaxis],
            counter=tf.stack([first_counter, tf.zeros([], tf.uint64)]),
            alg=PHILOX,
            dtype=tf.uint64,
        )
        bits = tf.reshape(tf.bitcast(bits, tf.uint16), [num_samples, num_counters * _ELEMENTS_PER_COUNTER])[:, :size]
        mask = tf.reshape(bits, tf.shape(inputs)) >= np.uint16(round(self.rate * 65536))
        return tf.where(mask, inputs * (1.0 / (1.0 - self.rate)), tf.zeros([], inputs.dtype))
