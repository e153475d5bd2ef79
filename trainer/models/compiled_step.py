"""The compiled step of the last `fit`, which the next one uses again if nothing that it depends on has changed."""

import types
from collections import deque
from collections.abc import Mapping
from typing import Any

import keras

from trainer.training.loop import DeviceLoop

_PLAIN = (type(None), bool, int, float, complex, str, bytes, frozenset)
_OPAQUE_MODULES = ("tensorflow", "numpy", "keras.src.backend", "keras.src.utils.tracking", "builtins")
"""Modules whose objects are compared by identity."""

_IGNORED = frozenset(
    {
        *("step", "history", "stop_training", "grid_images", "_compiled_step", "_preemption"),  # of the GAN: inputs
        *("_called", "_jit_compile", "_parent_path", "predict_function"),  # of Keras: changed by sampling and saving
    }
)
"""Attributes that a compiled step does not depend on."""


class CompiledStep:
    """A device loop, and the facts that it was compiled for.

    Args:
        gan: Compiled GAN.
        key: Settings of `fit` and facts about its data that the step depends on.
        device_loop: Compiled step.
    """

    def __init__(self, gan: Any, key: tuple[Any, ...], device_loop: DeviceLoop):
        self.device_loop = device_loop
        self._key, self._settings = key, settings_of(gan)

    def fits(self, gan: Any, key: tuple[Any, ...]) -> bool:
        """Returns whether the step may be used for another `fit`."""
        return key == self._key and _includes(settings_of(gan), self._settings)


def settings_of(gan: Any) -> dict[str, Any]:
    """Returns everything in Python that a step may depend on, by path.

    A compiled step keeps the values that attributes had when it was compiled, such as the rate of a dropout layer or
    the weight of a loss. The result has all plain values that can be reached from the attributes of a GAN, and all
    other objects, such as functions and tensors, as they are.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    pending: deque[tuple[str, Any]] = deque([("", gan)])
    while pending:
        path, value = pending.popleft()
        if isinstance(value, keras.Variable):
            found[f"{path}.trainable"] = value.trainable
            pending += [(f"{path}.{name}", getattr(value, name)) for name in ("constraint", "regularizer")]
        if isinstance(value, tuple):
            found[path] = len(value)
            pending += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, _PLAIN) or id(value) in seen or _is_opaque(value):
            found[path] = value
        else:
            seen.add(id(value))
            found[path] = type(value)
            found[f"{path}()"] = " ".join(_replaced_methods(value))
            pending += [(f"{path}{name}", item) for name, item in _members(value).items()]
    return found


def _is_opaque(value: Any) -> bool:
    if isinstance(value, (Mapping, list, set)):
        return False
    return not getattr(value, "__dict__", None) or type(value).__module__.startswith(_OPAQUE_MODULES)


def _replaced_methods(value: Any) -> list[str]:
    """Returns the names of methods that attributes of an object replace."""
    names = getattr(value, "__dict__", {})
    return sorted(name for name in names if isinstance(getattr(type(value), name, None), types.FunctionType))


def _members(value: Any) -> dict[str, Any]:
    """Returns the items of a container, or the attributes of another object."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": item for key, item in value.items()}
    if isinstance(value, (list, set)):
        return {f"[{index}]": item for index, item in enumerate(value)}
    return {f".{name}": item for name, item in vars(value).items() if name not in _IGNORED}


def _includes(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Returns whether nothing was changed or removed. What was added, such as a cache, has not been in use."""
    return all(path in new and _same(new[path], value) for path, value in old.items())


def _same(new: Any, old: Any) -> bool:
    return new is old or (isinstance(old, _PLAIN) and type(new) is type(old) and bool(new == old))
