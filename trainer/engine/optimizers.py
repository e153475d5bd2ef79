"""Optimisers as the engine runs them: Keras's own, with Adam's update in one kernel instead of a dozen."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam whose update is TensorFlow's `ResourceApplyAdam`: same variables, same formula, one pass."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        updates = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), updates),
            beta2_power=tf.pow(tf.constant(self.beta_2, tf.float32), updates),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


def clone(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A fresh optimiser of the same settings, for the current strategy; plain Adam comes back as `FusedAdam`."""
    cls = type(optimizer)
    if cls is keras.optimizers.Adam and not optimizer.amsgrad:
        cls = FusedAdam
    return cls.from_config(optimizer.get_config())


def for_networks(given: Any, networks: Mapping[str, keras.Model]) -> dict[str, keras.optimizers.Optimizer]:
    """The optimisers of a generator and a discriminator, built for their weights inside the current scope.

    Args:
        given: A Keras optimiser or its name, which each network gets a clone of, or a mapping with one each.
        networks: By name; those that no optimiser moves are passed over.

    Raises:
        ConfigError: The mapping has other keys.
    """
    prototype = keras.optimizers.get(given) if isinstance(given, str) else given
    wanted = {"generator", "discriminator"}
    each = prototype if isinstance(prototype, Mapping) else dict.fromkeys(sorted(wanted), prototype)
    if set(each) != wanted:
        raise ConfigError(
            f"optimizer has the keys {', '.join(map(str, each))}; give one optimiser, or a dict with generator and "
            "discriminator."
        )
    made = {}
    for name, optimizer in each.items():
        made[name] = clone(keras.optimizers.get(optimizer))
        made[name].build(networks[name].trainable_variables)
    return made
