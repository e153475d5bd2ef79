"""Noise that is added to maps, with values that do not depend on the number of replicas."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.networks.layers.dropout import PER_SAMPLE_SEED
from trainer.networks.layers.normal_rows import normal_rows
from trainer.networks.layers.sample_position import part_of_batch


@keras.saving.register_keras_serializable("trainer")
class NoiseInjection(layers.Layer):
    """Adds one map of N(0, 1) noise per sample, times a learned strength, to all channels of [B, H, W, C].

    The strength starts at 0. Outside training, no noise is added, so that a generator is a function of its latents.
    """

    def __init__(self, **kwargs: object):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(seed=0, name=PER_SAMPLE_SEED)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.strength = self.add_weight(shape=(), initializer="zeros", name="strength")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        height, width = inputs.shape[1:3]
        noise = draw_noise(self.seed_generator, tf.shape(inputs)[0], height * width)
        noise = tf.reshape(noise, [-1, height, width, 1])
        return inputs + tf.cast(noise, inputs.dtype) * tf.convert_to_tensor(self.strength)


def draw_noise(seed_generator: keras.random.SeedGenerator, num_samples: tf.Tensor, size: int) -> tf.Tensor:
    """Returns N(0, 1) noise for each sample of this pass: float32 [B, size].

    All parts of the global batch have the same seed and different counters.

    Args:
        seed_generator: Seed of the step, whose variable has the name `PER_SAMPLE_SEED`.
        num_samples: Number of samples, int32 [].
        size: Numbers per sample.
    """
    key = tf.bitcast(tf.cast(seed_generator.next(), tf.uint32), tf.uint64)[tf.newaxis]
    return normal_rows(key, num_samples * part_of_batch()[0], num_samples, size)
