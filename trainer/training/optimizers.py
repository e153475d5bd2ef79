"""Keras optimizers for training steps: Adam with a fused kernel, and gradients that are summed over replicas."""

import contextlib
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.errors import ConfigError, quote
from trainer.registry import did_you_mean
from trainer.training import schedules

_RANGES: dict[str, dict[str, Any]] = {
    **{name: {"below": 1} for name in ("beta_1", "beta_2", "rho")},
    **{name: {"above": 0} for name in ("clipnorm", "clipvalue", "global_clipnorm")},
    **{name: {} for name in ("momentum", "weight_decay", "epsilon")},
}
"""Limits of settings that Keras does not check, by name, in addition to the minimum 0."""


@keras.saving.register_keras_serializable("trainer")
class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with TensorFlow's kernel `ResourceApplyAdam`: the same variables and formula in one pass.

    `beta_2` may be a schedule of the number of updates, like a learning rate.

    Attributes:
        condition: Condition of the updates, bool []; None to update always.
    """

    condition: tf.Tensor | None = None

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index, dtype = self._get_variable_index(variable), variable.dtype
        iterations = tf.convert_to_tensor(self.iterations)
        updates = tf.cast(iterations + 1, dtype)
        beta_2 = tf.cast(schedules.get(self.beta_2)(iterations), dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, dtype), updates),
            beta2_power=tf.pow(beta_2, updates),
            lr=self._value_or(0.0, tf.cast(learning_rate, dtype)),
            beta1=self._value_or(1.0, tf.constant(self.beta_1, dtype)),
            beta2=self._value_or(1.0, beta_2),
            epsilon=self._value_or(1.0, tf.constant(self.epsilon, dtype)),
            grad=self._value_or(0.0, tf.cast(gradient, dtype)),
        )

    def _value_or(self, neutral: float, value: tf.Tensor) -> tf.Tensor:
        """Returns a value, or if the condition is false, the number with which the formula changes nothing."""
        return value if self.condition is None else tf.where(self.condition, value, tf.cast(neutral, value.dtype))


def clone(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns a new optimizer with the same settings, for the current strategy. Adam becomes `FusedAdam`.

    The settings are the attributes of the optimizer. `get_config` would omit those that no argument sets, such as the
    exclusions from weight decay, and not every optimizer has it. The clone shares schedules, and has new variables.

    Raises:
        ConfigError: If an optimizer of another library was used before and has variables of its constructor.
    """
    cls: Any = type(optimizer)
    if cls is keras.optimizers.Adam and not optimizer.amsgrad:
        cls = FusedAdam
    rate = optimizer._learning_rate  # `learning_rate` would be the current value of a schedule
    copy = cls.__new__(cls)
    rate = rate if callable(rate) else float(keras.ops.convert_to_numpy(rate))
    keras.optimizers.Optimizer.__init__(copy, learning_rate=rate, name=optimizer.name)
    own = {name for name in vars(copy) if name.startswith("_")} | {"built"}  # the base class's state, not settings
    for name, value in vars(optimizer).items():
        if name not in own:
            _copy_attribute(optimizer, copy, name, value)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        _clone_inner_optimizers(optimizer, copy)
    return copy


def _copy_attribute(
    optimizer: keras.optimizers.Optimizer, copy: keras.optimizers.Optimizer, name: str, value: Any
) -> None:
    """Copies a setting. Variables of the constructor become new ones; `build` makes all others."""
    is_variable = isinstance(value, keras.Variable)
    if is_variable and not optimizer.built:
        initial = value.numpy()
        value = copy.add_variable(
            initial.shape, lambda shape, dtype: initial, value.dtype, value.aggregation, name=name
        )
    elif is_variable and not type(optimizer).__module__.startswith("keras."):
        raise ConfigError(
            f"the optimizer {type(optimizer).__name__} was used before, so that its variable {name} no longer has its "
            "first value; pass a new optimizer."
        )
    elif any(isinstance(leaf, keras.Variable) for leaf in keras.tree.flatten(value)):
        return
    setattr(copy, name, value)


def _clone_inner_optimizers(optimizer: Any, copy: Any) -> None:
    """Makes a copy of a `MultiOptimizer` use clones of the optimizers that its map or function returns.

    Keras has no public attribute for the map and the optimizers.
    """
    is_map = isinstance(optimizer._optimizer_map, keras.optimizers.OptimizerMap)
    clones = {id(inner): (inner, clone(inner)) for inner in optimizer._inner_optimizers if is_map}

    def select(variable: keras.Variable) -> Any:
        inner = optimizer._optimizer_map(variable)
        if id(inner) not in clones and isinstance(inner, keras.optimizers.Optimizer):
            clones[id(inner)] = inner, clone(inner)
        return clones[id(inner)][1] if id(inner) in clones else inner  # Keras rejects what is not an optimizer

    copy._inner_optimizers = [new for _, new in clones.values()]
    copy._optimizer_map = select


def kind(optimizer: keras.optimizers.Optimizer) -> str:
    """Returns the name of the class that defines the variables of an optimizer: `Adam` for AdamW, too."""
    name = next(cls.__name__ for cls in type(optimizer).__mro__ if "build" in vars(cls))
    # `learning_rate` would be the current value of a schedule.
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


def build_optimizers(
    optimizer: Any, variables: Mapping[str, Sequence[keras.Variable]], strategy: tf.distribute.Strategy
) -> dict[str, keras.optimizers.Optimizer]:
    """Builds the optimizer of each group of networks for its variables.

    The optimizers take gradients that are summed over replicas.

    Args:
        optimizer: Keras optimizer or its name, of which each group gets a clone; or a mapping with one per group.
        variables: Variables of each group, by its name: `generator` and `discriminator`.
        strategy: Strategy in whose scope the optimizers are built.

    Raises:
        ConfigError: If the mapping has other keys, or an optimizer is unknown, scales the loss, averages weights, has a
            setting that is out of range, or accumulates gradients on several replicas.
    """
    by_group = optimizer if isinstance(optimizer, Mapping) else dict.fromkeys(variables, optimizer)
    if set(by_group) != set(variables):
        raise ConfigError(
            f"optimizer has the keys {quote(list(by_group))}; pass one optimizer, or a dict with "
            f"{' and '.join(sorted(variables))}."
        )
    with strategy.scope():
        originals = {group: _as_optimizer(by_group[group]) for group in variables}
        for group, original in originals.items():
            _check_settings(original, group)
        built = {}
        for group, group_variables in variables.items():
            built[group] = clone(originals[group])
            built[group].name = group
            built[group].build(list(group_variables))
            _disable_all_reduce(built[group])
            _check_settings(built[group], group)  # a function of a `MultiOptimizer` returns optimizers while it builds
    return built


def check_learning_rate(name: str, rate: Any) -> None:
    """Checks a learning rate: a number, array, tensor, variable, or schedule, or a function without arguments of one.

    Args:
        name: Name of the learning rate, for the message.
        rate: Value to check.

    Raises:
        ConfigError: If it is not a finite number from 0 up, or a schedule that begins with one.
    """
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        schedules.check(name, rate)
        return
    rate = rate() if callable(rate) else rate
    if not isinstance(rate, (str, bytes)):  # which float() would parse
        with contextlib.suppress(TypeError, ValueError):  # `check_number` rejects what has no float
            rate = float(keras.ops.convert_to_numpy(rate))
    check_number(name, rate)


def is_finite(gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor], *, is_compiled: bool) -> tf.Tensor:
    """Returns whether scalars, and the squares of gradients, are finite: bool [].

    Gradients whose squares overflow would make Adam's moments infinite.

    Args:
        gradients: Gradients.
        scalars: float32 [].
        is_compiled: Whether XLA compiles this function. Its sums are slow on CPUs, but it combines other operations;
            without XLA, a sum takes one pass over a gradient, and other forms take several.
    """
    values = [item.values if isinstance(item, tf.IndexedSlices) else item for item in gradients]
    if is_compiled:
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(tf.square(value))) for value in (*values, *scalars)])
    norms = [tf.cast(tf.nn.l2_loss(value), tf.float32) for value in values]
    return tf.math.is_finite(tf.add_n([*norms, *scalars]))


def run_if(condition: tf.Tensor, update: Callable[..., None], *args: Any) -> None:
    """Calls `update(*args)`, which may update variables, on all replicas if a condition is true on all of them.

    Optimizers leave the replica context to update variables, and a branch inside a replica cannot leave it. Therefore
    the branch surrounds the replicas, as in Keras's `LossScaleOptimizer`.

    Args:
        condition: bool [], the same on all replicas.
        update: Function that is called in a replica context.
        *args: Values of this replica.
    """

    def run_on_replicas(strategy: tf.distribute.Strategy, condition: tf.Tensor, *args: Any) -> None:
        def run() -> tf.Tensor:
            strategy.run(update, args)
            return tf.constant(True)

        tf.cond(strategy.experimental_local_results(condition)[0], run, lambda: tf.constant(False))

    tf.distribute.get_replica_context().merge_call(run_on_replicas, args=(condition, *args))


def apply_where(
    condition: tf.Tensor,
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
) -> None:
    """Updates variables if a condition is true, without a branch. XLA combines selections with the update's formula.

    If the condition is false, `FusedAdam` computes with numbers that change nothing except the sign of a zero. With
    other optimizers, and with settings that also change weights, such as weight decay, old values are assigned again.

    Args:
        condition: bool [].
        optimizer: Optimizer that is built for the variables.
        gradients: Gradients of the variables.
        variables: Variables to update.
    """
    is_selective = (
        isinstance(optimizer, FusedAdam)
        and optimizer.weight_decay is None
        and optimizer.gradient_accumulation_steps is None
        and all(variable.constraint is None for variable in variables)
    )
    selected = [optimizer.iterations] if is_selective else [*variables, *optimizer.variables]
    before = [variable.value.read_value() for variable in selected]
    if is_selective:
        optimizer.condition = condition
    try:
        optimizer.apply(list(gradients), list(variables))
    finally:
        if is_selective:
            optimizer.condition = None
    for variable, old in zip(selected, before, strict=True):
        variable.value.assign(tf.where(condition, variable.value.read_value(), old))


def _check_settings(optimizer: keras.optimizers.Optimizer, group: str) -> None:
    """Rejects settings of an optimizer, or of those that it wraps, that steps do not support."""
    if optimizer.loss_scale_factor is not None or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ConfigError(
            f"the optimizer of the {group} scales the loss, which only float16 needs; remove the scaling, because "
            "precision=bfloat16 does not need it."
        )
    if optimizer.use_ema:
        raise ConfigError(
            f"the optimizer of the {group} has use_ema=True, whose averages a GAN does not use; remove it, and pass "
            "ema_half_life_images to compile."
        )
    check_learning_rate(f"learning_rate of the {group}", optimizer._learning_rate)  # a schedule as it is
    for name, limits in _RANGES.items():
        value = getattr(optimizer, name, None)
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            check_number(f"{name} of the optimizer of the {group}", value, **limits)
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if optimizer.gradient_accumulation_steps and num_replicas > 1:
        raise ConfigError(
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps} works on one replica, but there are "
            f"{num_replicas}; remove it and use a larger batch."
        )
    for inner in getattr(optimizer, "optimizers", ()):
        _check_settings(inner, group)


def _as_optimizer(identifier: Any) -> keras.optimizers.Optimizer:
    """Returns an optimizer from an optimizer or a name."""
    try:
        optimizer = keras.optimizers.get(identifier)
    except (TypeError, ValueError):
        optimizer = None
    if optimizer is None:
        known = [name.lower() for name, member in vars(keras.optimizers).items() if isinstance(member, type)]
        advice = did_you_mean(str(identifier).lower(), known, "pass a Keras optimizer or its name, such as adam.")
        raise ConfigError(f"optimizer={quote(identifier)} is unknown; {advice}")
    return optimizer
