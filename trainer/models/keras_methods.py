"""Methods and arguments of `keras.Model` that a GAN has no use for, each with what to use instead."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, NoReturn

import keras
import numpy as np

from trainer.errors import ConfigError, NetworkError, quote
from trainer.models.compiled_state import CompiledModel
from trainer.registry import did_you_mean

_EMA_GENERATOR = "ema_generator"
_VALIDATION = "add trainer.callbacks.Evaluation to callbacks to measure the samples during training"
_WEIGHTS = "pass balance_classes=True to show every class equally often"

ARGUMENTS: dict[str, dict[str, tuple[Any, str]]] = {
    "compile": {
        "loss_weights": (None, "weight terms of your own in GAN.add_losses"),
        "metrics": (None, _VALIDATION),
        "weighted_metrics": (None, _VALIDATION),
        "run_eagerly": (False, "use tf.print in GAN.forward to look at values"),
        "steps_per_execution": (1, "pass steps_per_execution to fit"),
        "auto_scale_loss": (True, "losses are not scaled, and precision=bfloat16 needs no scaling; omit it"),
    },
    "fit": {
        "validation_split": (0.0, _VALIDATION),
        "validation_data": (None, _VALIDATION),
        "validation_steps": (None, _VALIDATION),
        "validation_batch_size": (None, _VALIDATION),
        "validation_freq": (1, _VALIDATION),
        "shuffle": (True, "the images of an epoch are always shuffled, by the seed; omit it"),
        "class_weight": (None, _WEIGHTS),
        "sample_weight": (None, _WEIGHTS),
        "initial_epoch": (0, "training continues at the attribute step of the model; omit it"),
        "steps_per_epoch": (None, "an epoch is a pass over x; pass steps for the total number of steps"),
    },
}
"""Arguments of Keras's methods that have no meaning here: their defaults, which are accepted, and advice."""

_COMPILED = "a GAN is compiled once; pass it to compile of another one"
ATTRIBUTES: dict[str, tuple[Any, str]] = {
    "run_eagerly": ARGUMENTS["compile"]["run_eagerly"],
    "steps_per_execution": ARGUMENTS["compile"]["steps_per_execution"],
    "loss": (None, _COMPILED),
    "jit_compile": (None, _COMPILED),
    "dtype_policy": (None, "pass precision to compile"),
}
"""Attributes of `keras.Model` that training does not read: their defaults, which are accepted, and advice."""

_LOSSES = "fit trains, GAN.forward computes the losses of a batch, and GAN.add_losses adds terms to them"
_NOT_CALLED = ("train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function")


def check_arguments(method: str, extra: Mapping[str, Any], parameters: Iterable[str]) -> None:
    """Rejects arguments of `compile` or `fit` that a GAN does not have, unless they are Keras's defaults.

    Args:
        method: `compile` or `fit`.
        extra: Arguments that the method of a GAN does not have, by name.
        parameters: Names of those that it has.

    Raises:
        ConfigError: If there is such an argument.
    """
    for name, value in extra.items():
        if name not in ARGUMENTS[method]:
            arguments = [name for name in parameters if name not in ("self", "keras_arguments")]
            advice = did_you_mean(name, arguments, f"its arguments are {', '.join(arguments)}.")
            raise ConfigError(f"{method} has no argument {quote(name)}; {advice}")
        default, advice = ARGUMENTS[method][name]
        if value is not default and (not isinstance(value, type(default)) or value != default):
            is_plain = isinstance(value, (bool, int, float, str))
            received = f"={quote(value)}" if is_plain else f" of type {type(value).__name__}"
            raise ConfigError(f"{method} does not support {name}{received}; {advice}.")


def check_overrides(kind: type[keras.Model]) -> None:
    """Rejects a class that overrides a method of `keras.Model` that `fit` does not call.

    Raises:
        ConfigError: If it overrides one.
    """
    for name in _NOT_CALLED:
        if getattr(kind, name) is not getattr(RestrictedModel, name):
            raise ConfigError(f"{kind.__name__} overrides {name}, which is not used; override forward instead.")


def _check_factories(gan: keras.Model) -> None:
    """Rejects networks, and properties, in the place of the methods `get_*` that build them.

    Raises:
        NetworkError: If there is one. `compile` calls these methods, once more for an EMA.
    """
    for name in dir(type(gan)):
        if name.startswith("get_"):
            value = inspect.getattr_static(gan, name)
            if isinstance(value, (keras.layers.Layer, property)):
                kind = "property" if isinstance(value, property) else type(value).__name__
                raise NetworkError(
                    f"{name} of {type(gan).__name__} is a {kind}; make it a method that returns a new network."
                )


def check_can_compile(gan: CompiledModel) -> None:
    """Rejects a GAN that is compiled, or whose class does not call its base constructor or has no methods `get_*`.

    Raises:
        ConfigError: If it is compiled, or the attributes that `GAN.__init__` sets are missing.
        NetworkError: If a network, or a property, is in the place of a method `get_*` that builds a network.
    """
    if getattr(gan, "compiled", False):
        raise ConfigError(f"{type(gan).__name__} is compiled already; create another one to change its settings.")
    if "_factories" not in vars(gan):
        raise ConfigError(
            f"{type(gan).__name__}.__init__ does not call super().__init__; call super().__init__(latent_dim) first."
        )
    _check_factories(gan)


def as_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Returns callbacks as a list. As in Keras, `callbacks` may be None, one callback, or a nested list.

    Raises:
        ConfigError: If something in it is not a callback.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    flat: list[Any] = [] if callbacks is None else keras.tree.flatten(callbacks)
    for index, callback in enumerate(flat):
        if not isinstance(callback, keras.callbacks.Callback):
            kind = f"the class {callback.__name__}" if isinstance(callback, type) else f"a {type(callback).__name__}"
            raise ConfigError(f"callbacks[{index}] is {kind}; pass an instance of a keras.callbacks.Callback.")
        _check_callback(callback)
    return flat


def _check_callback(callback: keras.callbacks.Callback) -> None:
    """Rejects callbacks of Keras that need what a GAN does not have, before training instead of after an epoch."""
    if isinstance(callback, keras.callbacks.SwapEMAWeights):
        raise ConfigError(
            "SwapEMAWeights needs an optimizer with use_ema=True, which a GAN does not have; pass ema_half_life_images "
            "to compile, and use ema_generator."
        )
    if isinstance(callback, keras.callbacks.OrbaxCheckpoint):
        raise ConfigError("OrbaxCheckpoint does not save the step of a GAN; use trainer.callbacks.Checkpoint.")
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only:
        raise ConfigError("ModelCheckpoint has save_weights_only=False, but a GAN has no save; pass True.")
    if isinstance(callback, keras.callbacks.EarlyStopping) and callback.restore_best_weights:
        raise ConfigError(
            "EarlyStopping has restore_best_weights=True, which restores neither the step nor the optimizers; pass "
            "False, and keep the best step with trainer.callbacks.Checkpoint(FOLDER, best=NAME)."
        )


def _refused(name: str, advice: str) -> Callable[..., NoReturn]:
    """Returns a method that is refused with advice, in which `ema_generator` stands for the first EMA network."""

    def method(self: Any, *args: Any, **settings: Any) -> NoReturn:
        first = self.ema_networks[0]
        network = _EMA_GENERATOR if first == "generator" else f"ema_network('{first}')"
        raise ConfigError(f"{type(self).__name__} has no {name}; {advice.replace(_EMA_GENERATOR, network)}.")

    method.__name__ = name
    method.__doc__ = f"Raises ConfigError: {advice}."
    return method


def _fixed(name: str) -> property:
    """Returns a property in place of an attribute in `ATTRIBUTES`. Setting it to another value raises ConfigError."""
    default, advice = ATTRIBUTES[name]
    inherited = getattr(keras.Model, name, None)
    read: Callable[[Any], Any] = getattr(inherited, "fget", None) or (lambda self: default)

    def refuse(self: Any, value: Any) -> None:
        if value not in (default, read(self)):
            raise ConfigError(f"{name}={quote(value)} cannot be set on a {type(self).__name__}; {advice}.")

    return property(read, refuse, doc=f"The `{name}` of Keras, which cannot be set: {advice}.")


class RestrictedModel(CompiledModel):
    """A compiled model with those methods of `keras.Model` that a GAN refuses or changes."""

    run_eagerly = _fixed("run_eagerly")
    steps_per_execution = _fixed("steps_per_execution")
    loss = _fixed("loss")
    jit_compile = _fixed("jit_compile")
    dtype_policy = _fixed("dtype_policy")

    evaluate = _refused(
        "evaluate",
        "use sample to generate images, and trainer.callbacks.Evaluation in fit or a suite of trainer.metrics to "
        "measure them",
    )
    train_on_batch = _refused("train_on_batch", "pass all images to fit, with steps for the total number of steps")
    test_on_batch = _refused("test_on_batch", "the losses of each step are in the logs of fit and in its History")
    train_step = _refused("train_step", _LOSSES)
    test_step = _refused("test_step", _LOSSES)
    compute_loss = _refused("compute_loss", _LOSSES)
    compute_metrics = _refused("compute_metrics", _VALIDATION)
    make_train_function = _refused("make_train_function", _LOSSES)
    quantize = _refused("quantize", "call ema_generator.save(FILE), load that file, and quantize the loaded generator")
    export = _refused("export", "use ema_generator.export(FOLDER), or the command python -m trainer export")
    to_json = _refused("to_json", "call to_json of one of networks")
    add_loss = _refused("add_loss", "add the term in GAN.add_losses")
    compile_from_config = _refused("compile_from_config", "call compile")
    save = _refused(
        "save",
        "use ema_generator.save(FILE) for the generator, save_weights(FILE) for all weights, or "
        "trainer.callbacks.Checkpoint to resume exactly",
    )

    get_config = _refused(
        "get_config", "a GAN is the code of its class and the state that save_weights saves, so create another one"
    )

    def save_weights(self, filepath: str | os.PathLike[str], *args: Any, **settings: Any) -> None:
        """Saves the weights of all networks and the state of the optimizers, as `keras.Model.save_weights` does.

        The file also has `step`, the record of skipped steps, and the range of the images.

        Raises:
            ConfigError: If the model is not compiled.
        """
        self.require_compiled()
        super().save_weights(filepath, *args, **settings)

    def load_weights(self, filepath: str | os.PathLike[str], *args: Any, **settings: Any) -> None:
        """Loads what `save_weights` saved, and sets `step` to the number of steps that the loaded state has taken.

        The range of the images becomes the one in the file, unless the user has set one.

        Raises:
            ConfigError: If the model is not compiled.
        """
        self.require_compiled()
        self._counts: dict[str, np.ndarray] = {}
        super().load_weights(filepath, *args, **settings)
        counts = self._counts
        del self._counts
        self.step = _num_updates(self)  # as saved by earlier versions, and if Keras has skipped another optimizer
        if counts.get(_UPDATES) == self.step:
            self.step = int(counts[_STEP])
            for name, variable in self.divergence.variables.items():
                variable.assign(counts[_key(name)])
        low_high = counts.get(_IMAGE_RANGE)
        self.set_trained_range(None if low_high is None else (float(low_high[0]), float(low_high[1])))

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Adds `step`, skipped steps, and the range to a file of `save_weights`. Keras calls this method."""
        super().save_own_variables(store)
        store[_STEP], store[_UPDATES] = self.step, _num_updates(self)
        for name, variable in self.divergence.variables.items():
            store[_key(name)] = variable
        if self.step and self.is_range_known:
            store[_IMAGE_RANGE] = np.array(self.image_range)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Reads what `save_own_variables` adds. Keras calls this method."""
        names = {_STEP, _UPDATES, _IMAGE_RANGE, *(_key(name) for name in self.divergence.variables)}
        values = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 -- a class of Keras
        self._counts = {name: value for name, value in values.items() if name in names}
        super().load_own_variables({name: value for name, value in values.items() if name not in names})


_STEP, _UPDATES, _IMAGE_RANGE = "step", "updates", "image_range"


def _key(name: str) -> str:
    """Returns the name of a variable in a file of weights, in which slashes separate layers."""
    return name.replace("/", "_")


def _num_updates(gan: CompiledModel) -> int:
    """Returns the number of updates of the generator, also accumulated ones."""
    return int(gan.optimizers["generator"].variables[0].numpy())
