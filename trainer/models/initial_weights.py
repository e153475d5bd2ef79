"""Assigns the weights of another run to a GAN that has not been trained."""

from collections.abc import Callable, Mapping

import keras
import numpy as np

from trainer.errors import CheckpointError, ConfigError, quote
from trainer.models.augmenter import Augmenter
from trainer.models.compiled_state import CompiledModel, ema_name, weights_of
from trainer.networks.layers import ImagePool
from trainer.training.transfer import GENERAL_ADVICE, InitialWeights

_RUN_STATE = Augmenter, ImagePool
"""Networks whose state depends on the images that a run has seen. They start empty."""


def assign(gan: CompiledModel, weights: InitialWeights, explain: Callable[[], str] = lambda: GENERAL_ADVICE) -> None:
    """Assigns weights to the networks of a compiled GAN and to their EMAs. If they do not fit, nothing changes.

    Args:
        gan: Compiled GAN that has taken no step.
        weights: Weights of all its networks.
        explain: Function that returns the end of a sentence about weights that do not fit: why, and what to do.

    Raises:
        CheckpointError: If a network or a weight is missing, superfluous, or has another shape.
        ConfigError: If the GAN has taken steps.
    """
    if gan.step:
        raise ConfigError(
            f"init_from={weights.source} sets the weights before the first step, but the model has taken {gan.step}; "
            "create and compile another one."
        )
    emas = {ema_name(name) for name in gan.ema_networks}
    networks = {
        name: network
        for name, network in gan.networks.items()
        if network.weights and name not in emas and not isinstance(network, _RUN_STATE)
    }
    for name in (*networks, *weights.networks):
        if (name in gan.networks) != (name in weights.networks):
            owner = "this model" if name in gan.networks else "that run"
            raise CheckpointError(
                f"init_from={weights.source} does not fit: only {owner} has {quote(name)}; {explain()}."
            )
    for name, network in networks.items():
        problem = _difference(network, weights.networks[name])
        if problem:
            raise CheckpointError(f"init_from={weights.source} does not fit: in {name}, {problem}; {explain()}.")
    for name in networks:
        for target in (name, ema_name(name)):
            if target in gan.networks:
                for weight, variable in weights_of(gan.networks[target]).items():
                    variable.assign(weights.networks[name][weight])
    gan.has_initial_weights = True
    gan.set_trained_range(weights.image_range)


def _difference(network: keras.layers.Layer, stored: Mapping[str, np.ndarray]) -> str:
    """Returns the first difference between the weights of a network and stored ones; empty if there is none."""
    stored_names = {name.partition("/")[0]: name for name in stored}
    expected = weights_of(network)
    for name, variable in expected.items():
        stored_name = stored_names.get(name.partition("/")[0])
        if stored_name is None:
            return f"{variable.path} of shape {tuple(variable.shape)} is not in that run"
        shape = stored[stored_name].shape
        if stored_name != name or shape != tuple(variable.shape):
            of_name = "" if stored_name == name else f"{quote(stored_name.partition('/')[2])} of "
            return f"{variable.path} has the shape {tuple(variable.shape)}, and that run has {of_name}{shape} there"
    extra = next((name for name in stored if name not in expected), None)
    return "" if extra is None else f"that run has {quote(extra)} of shape {stored[extra].shape}, and this one has not"
