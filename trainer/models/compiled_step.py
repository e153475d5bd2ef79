"""The compiled step of the last `fit`, which the next one uses again if nothing that it depends on has changed."""

import functools
import hashlib
import types
from collections import deque
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from trainer.training.device_loop import DeviceLoop

_PLAIN = (type(None), bool, int, float, complex, str, bytes, frozenset)
_OPAQUE_MODULES = ("tensorflow.", "numpy.", "keras.src.backend.", "keras.src.utils.tracking.", "builtins.")
"""Modules whose objects are compared by identity."""
_LIBRARIES = ("tensorflow.", "keras.", "builtins.")
"""Modules whose classes nobody changes."""
_LAZY = (property, functools.cached_property)

_IGNORED_OF_GAN = frozenset(
    {
        *("_step", "history", "stop_training", "grid_images", "_compiled_step", "_preemption"),  # inputs
        *("initial_optimizer_settings", "_sampler", "_samplers", "_sample_translator"),  # set by restoring and sampling
    }
)
"""Attributes of a GAN that a compiled step does not depend on. The same names of other objects may be settings."""
_IGNORED_OF_LAYERS = frozenset({"_called", "_jit_compile", "_parent_path", "_tracked", "predict_function"})
"""Attributes of Keras's layers and models that sampling and saving change."""
_IGNORED = frozenset({"_self_unconditional_checkpoint_dependencies", "_self_unconditional_dependency_names"})
"""Attributes that TensorFlow adds to objects that it tracks."""


class CompiledStep:
    """A device loop, and the facts that it was compiled for.

    Args:
        gan: Compiled GAN.
        key: Settings of `fit` and facts about its data that the step depends on.
        device_loop: Compiled step.
    """

    def __init__(self, gan: object, key: tuple[Any, ...], device_loop: DeviceLoop):
        self.device_loop = device_loop
        self._key, self._settings = key, settings_of(gan)

    def fits(self, gan: object, key: tuple[Any, ...]) -> bool:
        """Returns whether the step may be used for another `fit`."""
        return key == self._key and _includes(settings_of(gan), self._settings)


def settings_of(gan: object) -> dict[str, Any]:
    """Returns everything in Python that a step may depend on, by path.

    A compiled step keeps the values that attributes had when it was compiled, such as the rate of a dropout layer or
    the weight of a loss. The result has all plain values and the contents of all arrays that can be reached from the
    attributes of a GAN and of its classes, and all other objects, such as functions and tensors, as they are.
    """
    settings: dict[str, Any] = {}
    visited: set[int] = set()
    pending: deque[tuple[str, Any]] = deque([("", gan)])
    while pending:
        path, value = pending.popleft()
        if isinstance(value, keras.Variable):
            settings[f"{path}.trainable"] = value.trainable
            pending += [(f"{path}.{name}", getattr(value, name)) for name in ("constraint", "regularizer")]
        if isinstance(value, np.ndarray):
            settings[f"{path}.content"] = _digest(value)
        if isinstance(value, (tuple, list, set, Mapping)):
            settings[f"{path}.length"] = len(value)
        if isinstance(value, tuple):
            pending += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, _PLAIN) or id(value) in visited or _is_opaque(value):
            settings[path] = value
        else:
            visited.add(id(value))
            settings[path] = type(value)
            settings[f"{path}()"] = " ".join(_replaced_methods(value))
            ignored = _IGNORED | (_IGNORED_OF_GAN if value is gan else frozenset())
            pending += [(f"{path}{name}", item) for name, item in _members(value, ignored).items()]
    return settings


def _is_opaque(value: Any) -> bool:
    if isinstance(value, (Mapping, list, set)):
        return False
    return not getattr(value, "__dict__", None) or f"{type(value).__module__}.".startswith(_OPAQUE_MODULES)


def _replaced_methods(value: Any) -> list[str]:
    """Returns the names of methods that attributes of an object replace."""
    names = getattr(value, "__dict__", {})
    return sorted(name for name in names if isinstance(getattr(type(value), name, None), types.FunctionType))


def _members(value: Any, ignored: frozenset[str]) -> dict[str, Any]:
    """Returns the items of a container, or the attributes of another object and of its class except ignored ones."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": item for key, item in value.items()}
    if isinstance(value, (list, set)):
        return {f"[{index}]": item for index, item in enumerate(value)}
    members = {} if isinstance(value, type) else _class_attributes(type(value))
    members |= vars(value)
    if isinstance(value, keras.layers.Layer):
        ignored |= _IGNORED_OF_LAYERS
    return {f".{name}": item for name, item in members.items() if name not in ignored and not name.startswith("__")}


def _class_attributes(kind: type) -> dict[str, Any]:
    """Returns the attributes of a class and its bases, which an instance may override, except those of libraries."""
    attributes: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if not f"{base.__module__}.".startswith(_LIBRARIES):
            attributes |= {name: item for name, item in vars(base).items() if not isinstance(item, _LAZY)}
    return attributes


def _digest(array: np.ndarray) -> str:
    """Returns a hash of the values of an array, which may be changed in place."""
    values = array if array.dtype != object else np.frompyfunc(id, 1, 1)(array).astype(np.int64)
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _includes(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Returns whether nothing was changed or removed. An attribute that was added has not been in use."""
    return all(path in new and _same(new[path], value) for path, value in old.items())


def _same(new: Any, old: Any) -> bool:
    return new is old or (isinstance(old, _PLAIN) and type(new) is type(old) and bool(new == old))
