"""`model.optimizer` of a GAN, for callbacks that expect one optimizer."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import ConfigError, quote
from trainer.training.optimizers import check_learning_rate


class OptimizerView:
    """The optimizers of a GAN as one. It has no state of its own.

    An attribute that it does not define, such as `beta_1` or `clipnorm`, has the value that all optimizers share.

    Args:
        by_name: The optimizers `generator` and `discriminator`.
    """

    __slots__ = ("_by_name",)

    name = "optimizer"
    built = True

    def __init__(self, by_name: Mapping[str, keras.optimizers.Optimizer]):
        object.__setattr__(self, "_by_name", dict(by_name))

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The optimizers whose learning rates can be set; of a `MultiOptimizer`, those that it wraps."""
        return [inner for outer in self._by_name.values() for inner in getattr(outer, "optimizers", [outer])]

    @property
    def iterations(self) -> Any:
        """The number of updates of the generator: int64 []."""
        return self._by_name["generator"].iterations

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the generator. Setting it, or calling its `assign`, sets the rate of all optimizers.

        Raises:
            ConfigError: If it is set while the rates differ, or to a value that is not a finite number from 0 up.
        """
        generator = self._by_name["generator"]
        rate = getattr(generator, "optimizers", [generator])[0].learning_rate
        return _SharedRate.of(rate, self) if isinstance(rate, keras.Variable) else rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        check_learning_rate("learning_rate", value)
        rates = {
            optimizer.name: float(keras.ops.convert_to_numpy(optimizer.learning_rate)) for optimizer in self.optimizers
        }
        if len(set(rates.values())) > 1:
            listed = " and ".join(f"{name} {rate:g}" for name, rate in rates.items())
            raise ConfigError(
                f"learning_rate={quote(value)} would replace different rates ({listed}); set the learning_rate of "
                'each optimizer, such as model.optimizers["generator"], instead.'
            )
        for optimizer in self.optimizers:
            optimizer.learning_rate = value

    @property
    def variables(self) -> list[keras.Variable]:
        """The state of all optimizers."""
        return [variable for optimizer in self._by_name.values() for variable in optimizer.variables]

    def build(self, variables: Any) -> None:
        """Does nothing: `GAN.compile` has built the optimizers."""

    def get_config(self) -> dict[str, Any]:
        """Returns the config of each optimizer, by `generator` and `discriminator`."""
        return {name: optimizer.get_config() for name, optimizer in self._by_name.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return OptimizerView, (self._by_name,)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "learning_rate":
            raise AttributeError(
                f'{name} cannot be set for both; set model.optimizers["generator"].{name}, for example.'
            )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        values = [getattr(optimizer, name) for optimizer in self._by_name.values()]
        if all(value is values[0] or _equal(value, values[0]) for value in values):
            return values[0]
        raise AttributeError(
            f'the optimizers of this GAN differ in {name}; read model.optimizers["generator"].{name} or '
            f'model.optimizers["discriminator"].{name}.'
        )


class _SharedRate(keras.Variable):
    """The variable of the generator's learning rate, whose `assign` sets the rates of all optimizers."""

    _view: OptimizerView

    @classmethod
    def of(cls, rate: keras.Variable, view: OptimizerView) -> "_SharedRate":
        """Returns a variable with the value and the attributes of `rate`, without a value of its own."""
        shared = cls.__new__(cls)
        shared.__dict__.update(vars(rate), _view=view)
        return shared

    def assign(self, value: Any) -> Any:
        """Sets the rates of all optimizers, as setting `learning_rate` does."""
        self._view.learning_rate = value
        return value


def _equal(first: Any, second: Any) -> bool:
    """Returns whether two settings are equal. Tensors and variables are state, not settings."""
    return not tf.is_tensor(first) and not isinstance(first, keras.Variable) and bool(first == second)
