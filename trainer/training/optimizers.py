"""Optimizers as the engine runs them: Keras's own, with Adam's update in one kernel instead of a dozen."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError
from trainer.registry import did_you_mean
from trainer.training import schedules


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam whose update is TensorFlow's `ResourceApplyAdam`: same variables, same formula, one pass.

    `beta_2` may be a function of the number of updates, as a learning rate may.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        updates = tf.cast(self.iterations.value + 1, tf.float32)
        beta_2 = schedules.get(self.beta_2)(self.iterations.value)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), updates),
            beta2_power=tf.pow(beta_2, updates),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


def clone(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A fresh optimizer of the same settings, for the current strategy; plain Adam comes back as `FusedAdam`.

    A schedule of the learning rate is taken as it is, for not every one can be written down and read again.
    """
    cls: Any = type(optimizer)
    if cls is keras.optimizers.Adam and not optimizer.amsgrad:
        cls = FusedAdam
    return cls.from_config(_config(optimizer))


def _config(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The optimizer's own config, with the schedule of its learning rate itself where there is one."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        return optimizer.get_config()
    optimizer._learning_rate = 0.0  # get_config would write the schedule down
    try:
        config = optimizer.get_config()
    finally:
        optimizer._learning_rate = rate
    return config | ({"learning_rate": rate} if "learning_rate" in config else {})


def _leave_sums(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer, and those that it hands gradients on to, take gradients as already summed over replicas.

    Keras would sum them after it has clipped them. It has no public way to say who does.
    """
    optimizer._all_reduce_sum_gradients = list
    for held in (getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())):
        if held is not None:
            _leave_sums(held)


def for_phases(given: Any, variables: Mapping[str, Sequence[keras.Variable]]) -> dict[str, keras.optimizers.Optimizer]:
    """The optimizer of each phase, built for its variables inside the current scope.

    They take gradients that are summed over replicas.

    Args:
        given: A Keras optimizer or its name, which each phase gets a clone of, or a mapping with one each.
        variables: Of each phase, by its name.

    Raises:
        ConfigError: The mapping has other keys, or an optimizer is none, scales the loss, or accumulates under several
            replicas.
    """
    each = given if isinstance(given, Mapping) else dict.fromkeys(variables, given)
    if set(each) != set(variables):
        raise ConfigError(
            f"optimizer has the keys {', '.join(map(str, each))}; give one optimizer, or a dict with "
            f"{' and '.join(sorted(variables))}."
        )
    made = {}
    for name, of_phase in variables.items():
        made[name] = clone(_as_optimizer(each[name]))
        made[name].name = name
        made[name].build(list(of_phase))
        _leave_sums(made[name])
        _check_settings(made[name])
    return made


def _check_settings(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses to scale the loss, which no step does, and what TensorFlow cannot run: to accumulate on replicas."""
    if optimizer.loss_scale_factor is not None or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ConfigError(
            "the optimizer scales the loss, as float16 wants it, which nothing here trains in; drop that, for "
            "precision=bfloat16 needs none."
        )
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if optimizer.gradient_accumulation_steps and num_replicas > 1:
        raise ConfigError(
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps} works on one replica, and there are "
            f"{num_replicas}; drop it and give a larger batch."
        )


def _as_optimizer(given: Any) -> keras.optimizers.Optimizer:
    """An optimizer, or Keras's of that name."""
    try:
        optimizer = keras.optimizers.get(given)
    except (TypeError, ValueError):
        optimizer = None
    if optimizer is None:
        known = [name.lower() for name, member in vars(keras.optimizers).items() if isinstance(member, type)]
        advice = did_you_mean(str(given).lower(), known, "give a Keras optimizer or its name, such as adam.")
        raise ConfigError(f"optimizer={given} is unknown; {advice}")
    return optimizer
