"""Optimisers as the engine runs them: Keras's own, with Adam's update in one kernel instead of a dozen."""

import keras
import tensorflow as tf


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
    """A fresh optimiser of the same settings; plain Adam comes back as `FusedAdam`. Call it inside a strategy's scope."""
    cls = type(optimizer)
    if cls is keras.optimizers.Adam and not optimizer.amsgrad:
        cls = FusedAdam
    return cls.from_config(optimizer.get_config())


def build(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]) -> None:
    """Creates the optimiser's slots now, inside the scope, so that a checkpoint finds them."""
    optimizer.build(variables)
