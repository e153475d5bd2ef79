"""What a subclass of `GAN` keeps on itself beside its networks: random layers, and weights that nothing would train."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import keras

from trainer.engine.step import SEED_STATE
from trainer.errors import NetworkError

Kept: TypeAlias = keras.layers.Layer | keras.Variable | keras.random.SeedGenerator

_LISTS_OF_KERAS = (
    "_layers",
    "_metrics",
    "_non_trainable_variables",
    "_seed_generators",
    "_tracked",
    "_trainable_variables",
)
"""Where Keras keeps all that an attribute ever was; TensorFlow's own such attributes begin with `_self_`."""


def seeds_beside(gan: keras.Model, networks: Mapping[str, keras.layers.Layer]) -> tuple[keras.Variable, ...]:
    """The seed states of random layers and seed generators beside the networks, in the order of the attributes."""
    of_networks = {id(variable) for network in networks.values() for variable in network.variables}
    states = [state for _, kept in _kept(gan) for state in _variables(kept) if state.name == SEED_STATE]
    return tuple({id(state): state for state in states if id(state) not in of_networks}.values())


def check_beside(gan: keras.Model, known: set[int]) -> None:
    """Refuses weights that would learn, were they in a network.

    Args:
        gan: After its networks were made.
        known: `id` of every variable of a network, of those of an earlier `compile` too.

    Raises:
        NetworkError: There are such weights.
    """
    for name, kept in _kept(gan):
        if any(variable.trainable and id(variable) not in known for variable in _trainable(kept)):
            raise NetworkError(
                f"{type(gan).__name__}.{name} has weights and is outside get_networks(), so nothing would train or "
                "save it; return it there and name it in owners, or set its trainable to False."
            )


def _variables(kept: Kept) -> list[keras.Variable]:
    if isinstance(kept, keras.random.SeedGenerator):
        return [kept.state]
    return [kept] if isinstance(kept, keras.Variable) else kept.variables


def _trainable(kept: Kept) -> list[keras.Variable]:
    return kept.trainable_variables if isinstance(kept, keras.layers.Layer) else _variables(kept)


def _kept(gan: keras.Model) -> Iterator[tuple[str, Kept]]:
    """What the attributes hold now, lists and the like included, by the attribute's name."""
    for name, value in vars(gan).items():
        if name not in _LISTS_OF_KERAS and not name.startswith("_self_"):
            yield from ((name, kept) for kept in _inside(value))


def _inside(value: Any) -> Iterator[Kept]:
    if isinstance(value, Kept):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _inside(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _inside(each)
