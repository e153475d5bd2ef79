"""gan-trainer: train generative adversarial networks on a laptop or on Vertex AI with one job and one config.

The public names load on first use, so that `import trainer` costs nothing and does not import TensorFlow.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "ACGAN": "trainer.gans",
    "GAN": "trainer.gans",
    "ConditionalGAN": "trainer.gans",
    "CycleGAN": "trainer.gans",
    "InfoGAN": "trainer.gans",
    "TrainConfig": "trainer.config",
    "architectures": "trainer.architectures",
    "augment": "trainer.augment",
    "callbacks": "trainer.callbacks",
    "losses": "trainer.losses",
    "penalties": "trainer.penalties",
    "recipes": "trainer.recipes",
}

__all__ = [
    "ACGAN",
    "GAN",
    "ConditionalGAN",
    "CycleGAN",
    "InfoGAN",
    "TrainConfig",
    "architectures",
    "augment",
    "callbacks",
    "losses",
    "penalties",
    "recipes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}; it has {', '.join(__all__)}")
    module = importlib.import_module(_HOME_OF[name])
    return module if module.__name__ == f"trainer.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
