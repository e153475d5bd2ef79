"""Cases of the throughput benchmark: configs of this package and their data. Does not import TensorFlow.

Legend: `B` batch size, `N` images, `H W C` image shape, `Z` latent size, `K` classes.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.architecture_options import (
    DcganOptions,
    MlpOptions,
    R3ganOptions,
    Stylegan2ModelOptions,
    Stylegan2Options,
)
from trainer.config import TrainConfig, recipes


def _small() -> TrainConfig:
    """Returns a small DCGAN with batch norm in both networks, which a laptop trains in minutes."""
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
    """Returns a conditional DCGAN with dropout, trained with RMSprop."""
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


def _r3gan() -> TrainConfig:
    """Returns R3GAN with grouped convolutions, 8 to 64 channels wide, and both penalties at every step."""
    return TrainConfig(
        architecture="r3gan",
        architecture_options={
            "generator_filters": [64, 64, 16, 8],
            "discriminator_filters": [8, 16, 64, 64],
            "blocks_per_stage": 1,
        },
        latent_dim=64,
        loss="relativistic",
        penalties=("r1", "r2"),
        penalty_weight=1.0,
        generator_learning_rate=2e-3,
        discriminator_learning_rate=2e-3,
        beta_1=0.0,
        beta_2=0.9,
        global_batch_size=64,
    )


def _for_two_cores(name: str) -> TrainConfig:
    """Returns a recipe that depends on images and devices, for two CPU cores. The case has the recipe's name."""
    context = recipes.RecipeContext(image_shape=IMAGE_SHAPES[name], num_images=50_000, size="small")
    return recipes.get(name, context)


CASES: dict[str, Callable[[], TrainConfig]] = {
    "photos": lambda: _for_two_cores("photos"),
    "stylegan2": lambda: _for_two_cores("stylegan2"),
    "r3gan": _r3gan,
    "dcgan_paper": lambda: recipes.get("dcgan_paper"),
    "digits": lambda: recipes.get("digits"),
    "dcgan": lambda: recipes.get("dcgan"),
    "small": _small,
    "vanilla": lambda: recipes.get("vanilla"),
    "cgan": _conditional,
}
"""Configs by name. Any recipe with an architecture of `_OPTION_CLASSES` can be added as one line."""

IMAGE_SHAPES: dict[str, tuple[int, int, int]] = {
    "photos": (32, 32, 3),
    "stylegan2": (32, 32, 3),
    "r3gan": (32, 32, 3),
    "dcgan_paper": (64, 64, 3),
}
"""Shapes (H, W, C) of the images of cases that train on photographs. All others train on the digits."""

_NUM_PHOTOGRAPHS = 2048
_LOSSES = ("non_saturating", "relativistic", "hinge")
_PENALTIES = ("r1", "r2")
_OMITTED: dict[str, Any] = {
    "augment": None,
    "augment_probability": 1.0,
    "augment_probability_end": None,
    "horizontal_flips": False,
    "learning_rate_decay": "none",
    "beta_2_end": None,
    "penalty_weight_end": None,
    "ema_schedule": "early",
    "ema_half_life_images": 0.0,
}

Options = DcganOptions | MlpOptions | R3ganOptions | Stylegan2Options

_OPTION_CLASSES: dict[str, type[Options]] = {
    "dcgan": DcganOptions,
    "mlp": MlpOptions,
    "r3gan": R3ganOptions,
    "stylegan2": Stylegan2Options,
}
_MODELS: dict[str, tuple[str, ...]] = {
    "dcgan": ("gan", "conditional"),
    "mlp": ("gan", "conditional"),
    "r3gan": ("gan",),
    "stylegan2": ("stylegan2",),
}
"""Models that the peers implement, by architecture."""

PEERS = ("tf", "keras", "torch")
"""Names of all peers."""


class VariantError(Exception):
    """A variant of a contender cannot run on this machine."""


class Contender(Protocol):
    """An implementation of a case that is ready to train.

    Attributes:
        num_parameters: Number of weights of generator and discriminator, including batch-norm moments.
        precision: Precision of its networks: float32 or bfloat16.
    """

    num_parameters: tuple[int, int]
    precision: str

    def run(self, num_steps: int) -> None:
        """Trains `num_steps` steps and returns when they are finished."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A config without EMA, augmentation and schedules, and its data in memory.

    Attributes:
        config: Config with complete `architecture_options` and `model_options`.
        images: uint8 array of shape [N, H, W, C]; N is a multiple of the batch size.
        labels: int32 array of shape [N].
        num_classes: K of a conditional config, otherwise 0.
    """

    config: TrainConfig
    images: np.ndarray
    labels: np.ndarray
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of an image."""
        return self.images.shape[1:]

    @property
    def batch_size(self) -> int:
        """Global batch size."""
        return self.config.global_batch_size

    @property
    def options(self) -> Options:
        """All options of the architecture."""
        return _OPTION_CLASSES[self.config.architecture](**self.config.architecture_options)

    @property
    def model_options(self) -> Stylegan2ModelOptions | None:
        """All options of the model; None if it has none."""
        return Stylegan2ModelOptions(**self.config.model_options) if self.config.model == "stylegan2" else None

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the peers that implement the networks."""
        return ("torch",) if self.config.architecture == "stylegan2" else PEERS

    @property
    def steps_per_cycle(self) -> int:
        """Number of steps after which the penalties of both networks repeat."""
        options, every = self.model_options, self.config.penalty_every_steps if self.config.penalties else 1
        if options is None or not options.path_length_weight:
            return every
        return math.lcm(every, options.path_length_every_steps)

    @property
    def float_images(self) -> np.ndarray:
        """Images as float32 array of shape [N, H, W, C] in [-1, 1]."""
        return self.images.astype(np.float32) / 127.5 - 1.0

    def save(self, folder: Path) -> None:
        """Writes the case to a folder for the worker processes."""
        (folder / "config.json").write_text(self.config.to_json())
        np.savez(folder / "data.npz", images=self.images, labels=self.labels, num_classes=self.num_classes)

    @classmethod
    def load(cls, folder: Path) -> "Case":
        """Reads a case that `save` wrote."""
        config = TrainConfig.from_dict(json.loads((folder / "config.json").read_text()))
        data = np.load(folder / "data.npz")
        return cls(config, data["images"], data["labels"], int(data["num_classes"]))


def get(name: str) -> Case:
    """Returns a case of `CASES`. Imports TensorFlow."""
    return from_config(CASES[name](), IMAGE_SHAPES.get(name))


def from_config(config: TrainConfig, image_shape: tuple[int, int, int] | None = None) -> Case:
    """Returns the case of a config. Imports TensorFlow.

    Args:
        config: Config with any EMA, augmentation and schedules, which the case omits.
        image_shape: Shape of random images, whose content does not affect speed; None for the embedded digits.

    Raises:
        ValueError: If the peers do not implement a setting.
    """
    from trainer.data.loading import load

    config = config.override(
        architecture_options=_complete_options(config),
        model_options=_complete_model_options(config),
        padding=0 if image_shape else config.padding,
        **_OMITTED,
    )
    _check_implemented(config)
    if image_shape is not None:
        size = _NUM_PHOTOGRAPHS // config.global_batch_size * config.global_batch_size
        images = np.random.default_rng(0).integers(0, 256, (size, *image_shape), np.uint8)
        return Case(config, images, np.zeros(size, np.int32), 0)
    data = load("digits")
    size = len(data.images) // config.global_batch_size * config.global_batch_size
    num_classes = data.info.num_classes if config.model == "conditional" else 0
    return Case(config, data.images[:size], data.labels[:size], num_classes)


def _check_implemented(config: TrainConfig) -> None:
    """Checks the settings that the peers implement only for some values."""
    implemented: dict[str, bool] = {
        "loss": config.loss in _LOSSES,
        "penalties": all(penalty in _PENALTIES for penalty in config.penalties),
        "discriminator_repeats": config.discriminator_repeats == 1,
        "penalty_every_steps": config.update_order == "alternating" or config.penalty_every_steps == 1,
        "discriminator_updates": config.discriminator_updates == "together",
        "model": config.model in _MODELS[config.architecture],
    }
    for name, is_implemented in implemented.items():
        if not is_implemented:
            raise ValueError(f"the peers do not implement {name}={getattr(config, name)}; add it first.")


def _complete_options(config: TrainConfig) -> dict[str, Any]:
    """Returns the options that the peers implement, including defaults.

    Raises:
        ValueError: If another option does not have its default.
    """
    from trainer import networks

    supported = {option.name for option in dataclasses.fields(_OPTION_CLASSES[config.architecture])}
    defaults = networks.default_options(config.architecture)
    options = config.architecture_options
    unsupported = [name for name in options if name not in supported and options[name] != defaults[name]]
    if unsupported:
        raise ValueError(
            f"the peers do not implement the options {', '.join(unsupported)} of {config.architecture}; add them first."
        )
    return {name: value for name, value in (defaults | dict(options)).items() if name in supported}


def _complete_model_options(config: TrainConfig) -> dict[str, Any]:
    """Returns the options of the model, including defaults."""
    from trainer.models import StyleGAN2

    if config.model != "stylegan2":
        return dict(config.model_options)
    parameters = inspect.signature(StyleGAN2).parameters
    names = [option.name for option in dataclasses.fields(Stylegan2ModelOptions)]
    return {name: parameters[name].default for name in names} | dict(config.model_options)
