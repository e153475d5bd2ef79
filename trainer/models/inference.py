"""The part of `GAN` that generates images after, or during, training."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number, check_seed
from trainer.errors import DataError, quote
from trainer.image_io import tile
from trainer.models.compiled_state import ema_name
from trainer.models.network_inputs import check_latents
from trainer.models.sampler import Sampler
from trainer.training.rng import StepRng


class InferenceMixin:
    """Sampling from a compiled GAN. `trainer.models.GAN` has the attributes that it uses.

    Legend: `B` images of a batch, `N` images, `H W C` an image, `Z` latent size.
    """

    def call(self: Any, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns images [B, H, W, C] of the EMA generator for latents [B, Z]."""
        self.require_compiled()
        check_latents(latents, self.latent_dim)
        return self.generate(latents, None, self.ema_generator, training)

    @property
    def ema_generator(self: Any) -> keras.Model:
        """The generator for sampling: the EMA of the generator, or the generator itself if there is no EMA."""
        return self.ema_network("generator")

    def ema_network(self: Any, name: str) -> keras.Model:
        """Returns the EMA of a network, or the network itself if it has no EMA."""
        return self.networks.get(ema_name(name), self.networks[name])

    def sample(self: Any, num_images: int, *, labels: Any = None, seed: int | None = None) -> tuple[np.ndarray, Any]:
        """Generates images, the same ones for the same seed. A larger number begins with the same images.

        Args:
            num_images: Number of images, N.
            labels: For conditional models, one label or N labels; None for each class in turn.
            seed: Seed of the latents; None for the seed of the run.

        Returns:
            Images uint8 [N, H, W, C], and labels int32 [N], or None if the model has no classes.

        Raises:
            ConfigError: If the model is not compiled, or the number of images is not a whole number from 1 up.
            DataError: If labels are out of range, or the model takes none.
        """
        check_number("num_images", num_images, whole=True, minimum=1)
        seed = self.seed if seed is None else seed
        check_seed(seed)
        chosen = self.labels_to_sample(num_images, labels)
        latents = self.sample_latents(StepRng(seed, 0, num_images, purpose="samples")).numpy()
        return self._sampler(self.image_range, latents, chosen), chosen

    def sample_grid(self: Any, rows: int, columns: int) -> np.ndarray:
        """Returns samples for fixed latents as one picture: uint8 [height, width, C].

        Raises:
            ConfigError: If the model is not compiled, or a number is not a whole number from 1 up.
        """
        check_number("columns", columns, whole=True, minimum=1)
        check_number("rows", rows, whole=True, minimum=1)
        return tile(self.sample(rows * columns)[0], columns)

    def labels_to_sample(self: Any, num_images: int, labels: Any) -> np.ndarray | None:
        """Returns the labels of samples, int32 [N], or None if the model has no classes."""
        if labels is not None:
            name = type(self).__name__
            raise DataError(f"labels={quote(labels)} were passed to {name}, which has no classes; omit them.")
        return None

    @functools.cached_property
    def _sampler(self: Any) -> Sampler:
        return Sampler(lambda latents, labels: self.generate(latents, labels, self.ema_generator, False))
