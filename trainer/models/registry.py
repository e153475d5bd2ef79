"""The registry of models by name."""

import functools
from collections.abc import Callable

from trainer.models.gan import GAN
from trainer.registry import Registry

MODELS: Registry[type[GAN]] = Registry("model")
"""Classes by the name that `--model` accepts."""

MODELS.add("gan", GAN)  # not by the decorator, because this module imports the base class


def register_model(name: str) -> Callable[[type[GAN]], type[GAN]]:
    """Registers a subclass of `GAN` under a name that `--model` accepts.

    The class's own keyword arguments with defaults are its `model_options`. It must pass all others to its base class.
    """
    return functools.partial(MODELS.add, name)
