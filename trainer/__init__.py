"""gan-trainer: train generative adversarial networks on a laptop or on Vertex AI with the same configuration.

Public names are imported on first use, so that `import trainer` is fast and does not import TensorFlow.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "ACGAN": "trainer.models",
    "GAN": "trainer.models",
    "ConditionalGAN": "trainer.models",
    "CycleGAN": "trainer.models",
    "InfoGAN": "trainer.models",
    "TrainConfig": "trainer.config",
    "networks": "trainer.networks",
    "augment": "trainer.models.augment",
    "callbacks": "trainer.callbacks",
    "losses": "trainer.models.losses",
    "penalties": "trainer.models.penalties",
    "recipes": "trainer.config.recipes",
}

__all__ = [
    "ACGAN",
    "GAN",
    "ConditionalGAN",
    "CycleGAN",
    "InfoGAN",
    "TrainConfig",
    "augment",
    "callbacks",
    "losses",
    "networks",
    "penalties",
    "recipes",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    module = importlib.import_module(_MODULES[name])
    return module if module.__name__.rpartition(".")[2] == name else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
