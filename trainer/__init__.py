"""gan-trainer: train generative adversarial networks on a laptop or on Vertex AI with the same configuration.

Public names are imported on first use, so that `import trainer` is fast and does not import TensorFlow. As soon as
Keras is imported, the layers are, too: `keras.models.load_model` finds the layers of a saved network by their names.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "ACGAN": "trainer.models",
    "GAN": "trainer.models",
    "ConditionalGAN": "trainer.models",
    "ConditionalStyleGAN2": "trainer.models",
    "CycleGAN": "trainer.models",
    "FastGAN": "trainer.models",
    "InfoGAN": "trainer.models",
    "Pix2Pix": "trainer.models",
    "StyleGAN2": "trainer.models",
    "TrainConfig": "trainer.config",
    "augment": "trainer.models.augment",
    "callbacks": "trainer.callbacks",
    "losses": "trainer.models.losses",
    "networks": "trainer.networks",
    "penalties": "trainer.models.penalties",
    "recipes": "trainer.config.recipes",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    module = importlib.import_module(_MODULES[name])
    return module if module.__name__.rpartition(".")[2] == name else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _LayerRegistration:
    """Finder that imports the layers right after the first import of Keras, which registers their names in Keras.

    Its base class would be `importlib.abc.MetaPathFinder`, whose module imports many others before the commands handle
    signals.
    """

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns None, except for Keras, whose loader it wraps."""
        if fullname != "keras":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = functools.partial(self._execute_and_register, spec.loader.exec_module)
            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec

    def _execute_and_register(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        sys.meta_path.remove(self)
        importlib.import_module("trainer.networks")


if "keras" in sys.modules:
    importlib.import_module("trainer.networks")
else:
    sys.meta_path.insert(0, _LayerRegistration())
