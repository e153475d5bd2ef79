"""What is measured: the cases, as configs of this package, and what a contender gets of them. Imports no TensorFlow.

Legend: `B` batch, `N` images, `H W C` an image, `Z` latent size, `K` classes.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainer.config import TrainConfig, recipes


def _small() -> TrainConfig:
    """A small DCGAN with batch norm in both networks: the size of GAN that a laptop trains in minutes."""
    return TrainConfig(
        architecture="dcgan",
        architecture_options={
            "generator_filters": [128, 64],
            "generator_strides": [2, 2],
            "kernel_size": 4,
            "discriminator_filters": [64, 128],
            "discriminator_batch_norm": "all",
        },
        latent_dim=64,
        update_order="simultaneous",
        global_batch_size=64,
    )


def _conditional() -> TrainConfig:
    """A conditional DCGAN with dropout, under RMSprop."""
    return TrainConfig(
        model="conditional",
        architecture="dcgan",
        architecture_options={
            "generator_filters": [128, 64],
            "generator_strides": [2, 2],
            "kernel_size": 4,
            "generator_activation": "relu",
            "discriminator_filters": [64, 128],
            "discriminator_batch_norm": "none",
            "leaky_slope": 0.1,
            "dropout": 0.4,
            "batch_norm_momentum": 0.9,
            "initializer": "he_normal",
        },
        latent_dim=100,
        optimizer="rmsprop",
        generator_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        global_batch_size=128,
        steps_per_execution=10,
    )


CASES: dict[str, Callable[[], TrainConfig]] = {
    "digits": lambda: recipes.get("digits"),
    "dcgan": lambda: recipes.get("dcgan"),
    "small": _small,
    "vanilla": lambda: recipes.get("vanilla"),
    "cgan": _conditional,
}
"""What is trained; a recipe whose networks the peers know is one line here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganOptions:
    """The options of the architecture `dcgan` that the peers know; the others must have their defaults."""

    generator_filters: list[int]
    generator_strides: list[int]
    generator_activation: str
    discriminator_filters: list[int]
    discriminator_batch_norm: str
    kernel_size: int
    leaky_slope: float
    batch_norm_momentum: float
    dropout: float
    initializer: str

    def normalizes(self, depth: int) -> bool:
        """Whether batch norm follows the discriminator's convolution number `depth`."""
        chosen = self.discriminator_batch_norm
        return chosen == "all" or (chosen == "hidden" and depth > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpOptions:
    """Every option of the architecture `mlp`."""

    generator_units: list[int]
    discriminator_units: list[int]
    generator_activation: str
    discriminator_activation: str
    leaky_slope: float
    batch_norm_momentum: float | None
    dropout: float
    initializer: str


_KNOWN: dict[str, type[DcganOptions] | type[MlpOptions]] = {"dcgan": DcganOptions, "mlp": MlpOptions}


class Contender(Protocol):
    """One way to train the networks of a case, built and ready."""

    num_parameters: tuple[int, int]
    """All weights of generator and discriminator, batch-norm moments included."""

    def run(self, num_steps: int) -> None:
        """Trains that many steps, and returns when they are done."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A config without moving average, the same for all, and the data in memory.

    Attributes:
        config: Its `architecture_options` are complete.
        images: uint8 [N, H, W, C]; N is a multiple of the batch.
        labels: int32 [N].
        num_classes: K of a conditional config, else 0.
    """

    config: TrainConfig
    images: np.ndarray
    labels: np.ndarray
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]

    @property
    def batch(self) -> int:
        """B."""
        return self.config.global_batch_size

    @property
    def options(self) -> DcganOptions | MlpOptions:
        """The architecture's options, all of them."""
        return _KNOWN[self.config.architecture](**self.config.architecture_options)

    @property
    def float_images(self) -> np.ndarray:
        """float32 [N, H, W, C] in [-1, 1]."""
        return self.images.astype(np.float32) / 127.5 - 1.0

    def save(self, folder: Path) -> None:
        """Writes the case for the workers, which read it without TensorFlow."""
        (folder / "config.json").write_text(self.config.to_json())
        np.savez(folder / "data.npz", images=self.images, labels=self.labels, num_classes=self.num_classes)

    @classmethod
    def load(cls, folder: Path) -> "Case":
        """What `save` wrote."""
        config = TrainConfig.from_dict(json.loads((folder / "config.json").read_text()))
        data = np.load(folder / "data.npz")
        return cls(config, data["images"], data["labels"], int(data["num_classes"]))


def get(name: str) -> Case:
    """A case of `CASES`. Imports TensorFlow."""
    return of(CASES[name]())


def of(config: TrainConfig) -> Case:
    """The case of a config, on the embedded digits. Imports TensorFlow."""
    from trainer.data.loading import load

    config = config.override(ema_half_life_images=0.0, architecture_options=_complete_options(config))
    data = load("digits")
    size = len(data.images) // config.global_batch_size * config.global_batch_size
    num_classes = data.info.num_classes if config.model == "conditional" else 0
    return Case(config, data.images[:size], data.labels[:size], num_classes)


def _complete_options(config: TrainConfig) -> dict[str, Any]:
    """The options that the peers know, defaults included; refuses others that are not at their defaults."""
    from trainer import networks

    known = {option.name for option in dataclasses.fields(_KNOWN[config.architecture])}
    defaults = networks.default_options(config.architecture)
    unknown = [
        name for name, value in config.architecture_options.items() if name not in known and value != defaults[name]
    ]
    if unknown:
        raise ValueError(f"the peers do not know {', '.join(unknown)} of {config.architecture}; teach them first.")
    return {name: value for name, value in (defaults | dict(config.architecture_options)).items() if name in known}
