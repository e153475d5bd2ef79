"""Keras optimizers for training steps: Adam with a fused kernel, and gradients that are summed over replicas."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError
from trainer.registry import did_you_mean
from trainer.training import schedules


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with TensorFlow's kernel `ResourceApplyAdam`: the same variables and formula in one pass.

    `beta_2` may be a schedule of the number of updates, like a learning rate.
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
    """Returns a new optimizer with the same settings, for the current strategy. Adam becomes `FusedAdam`.

    The clone shares a schedule of the learning rate, because not every schedule can be serialized.
    """
    cls: Any = type(optimizer)
    if cls is keras.optimizers.Adam and not optimizer.amsgrad:
        cls = FusedAdam
    return cls.from_config(_config(optimizer))


def _config(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns the config of an optimizer, with the schedule object of its learning rate if there is one."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        return optimizer.get_config()
    optimizer._learning_rate = 0.0  # get_config would serialize the schedule
    try:
        config = optimizer.get_config()
    finally:
        optimizer._learning_rate = rate
    return config | ({"learning_rate": rate} if "learning_rate" in config else {})


def kind(optimizer: keras.optimizers.Optimizer) -> str:
    """Returns the name of the class that defines the variables of an optimizer: `Adam` for AdamW, too."""
    name = next(cls.__name__ for cls in type(optimizer).__mro__ if "build" in vars(cls))
    is_scheduled = not isinstance(optimizer._learning_rate, keras.Variable)
    return f"{name} with a learning rate schedule" if is_scheduled else name


def learning_rates(optimizer: keras.optimizers.Optimizer) -> dict[int, float]:
    """Returns the learning rates among the variables of an optimizer, by their index. A schedule is no variable."""
    return {
        index: float(variable.numpy())
        for index, variable in enumerate(optimizer.variables)
        if variable.name == "learning_rate"
    }


def _disable_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    """Stops an optimizer, and the optimizers that it wraps, from summing gradients over replicas.

    Keras would sum them after clipping. It has no public switch for this, so a test checks the private attribute.
    """
    optimizer._all_reduce_sum_gradients = list
    for inner in (getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())):
        if inner is not None:
            _disable_all_reduce(inner)


def for_phases(
    optimizer: Any, variables: Mapping[str, Sequence[keras.Variable]]
) -> dict[str, keras.optimizers.Optimizer]:
    """Builds the optimizer of each phase for its variables, inside the current scope.

    The optimizers take gradients that are summed over replicas.

    Args:
        optimizer: Keras optimizer or its name, of which each phase gets a clone; or a mapping with one per phase.
        variables: Variables of each phase, by its name.

    Raises:
        ConfigError: If the mapping has other keys, or an optimizer is unknown, scales the loss, or accumulates
            gradients on several replicas.
    """
    by_phase = optimizer if isinstance(optimizer, Mapping) else dict.fromkeys(variables, optimizer)
    if set(by_phase) != set(variables):
        raise ConfigError(
            f"optimizer has the keys {', '.join(map(str, by_phase))}; pass one optimizer, or a dict with "
            f"{' and '.join(sorted(variables))}."
        )
    built = {}
    for name, phase_variables in variables.items():
        built[name] = clone(_as_optimizer(by_phase[name]))
        built[name].name = name
        built[name].build(list(phase_variables))
        _disable_all_reduce(built[name])
        _check_settings(built[name])
    return built


def _check_settings(optimizer: keras.optimizers.Optimizer) -> None:
    """Rejects loss scaling, which steps do not do, and accumulation on several replicas, which TensorFlow lacks."""
    if optimizer.loss_scale_factor is not None or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ConfigError(
            "the optimizer scales the loss, which only float16 needs; remove the scaling, because precision=bfloat16 "
            "does not need it."
        )
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if optimizer.gradient_accumulation_steps and num_replicas > 1:
        raise ConfigError(
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps} works on one replica, but there are "
            f"{num_replicas}; remove it and use a larger batch."
        )


def _as_optimizer(identifier: Any) -> keras.optimizers.Optimizer:
    """Returns an optimizer from an optimizer or a name."""
    try:
        optimizer = keras.optimizers.get(identifier)
    except (TypeError, ValueError):
        optimizer = None
    if optimizer is None:
        known = [name.lower() for name, member in vars(keras.optimizers).items() if isinstance(member, type)]
        advice = did_you_mean(str(identifier).lower(), known, "pass a Keras optimizer or its name, such as adam.")
        raise ConfigError(f"optimizer={identifier} is unknown; {advice}")
    return optimizer
