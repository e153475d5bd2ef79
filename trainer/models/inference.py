"""The part of `GAN` that generates images after, or during, training."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.choices import LatentDistribution
from trainer.config.fields import check_number, check_seed
from trainer.errors import DataError, quote
from trainer.image_io import tile
from trainer.metrics.extraction import BLOCK_SIZE
from trainer.models.arrays import as_array
from trainer.models.compiled_state import ema_name
from trainer.models.keras_methods import RestrictedModel
from trainer.models.network_inputs import check_latents
from trainer.models.sampler import Function, Sampler
from trainer.models.validation import check_takes_latents
from trainer.registry import check_known
from trainer.training.rng import StepRng, seed_states

MAX_SAMPLE_INDEX = 10**8 - 1
"""Largest index of a sample, which is the seed of its image. It has as many digits as the names of files."""
_TRUNCATION_LIMIT = 2.0


class SamplingModel(RestrictedModel):
    """A compiled model that generates images from latents.

    Shapes: `B` images of a batch, `N` images, `H W C` an image, `Z` latent size: that of `latent_size`.

    Attributes:
        latent_dim: Number of latent variables.
        latent_distribution: Name of their distribution.
    """

    latent_dim: int
    latent_distribution: str

    @property
    def latent_size(self) -> int:
        """Size of the generator's input without labels: Z here."""
        return self.latent_dim

    @property
    def network_latent_size(self) -> int:
        """Size of the part of the latents that the generator network takes: all of it here."""
        return self.latent_size

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        """Returns fake images [B, H, W, C] of the generator `network` for latents [B, Z]."""
        check_takes_latents(network, latents.shape[-1])
        return network(latents, training=training)

    def sample_latents(self, rng: StepRng) -> tf.Tensor:
        """Returns latents float32 [B, Z]."""
        draw = rng.normal if self.latent_distribution == LatentDistribution.NORMAL else rng.uniform
        return draw("latents", self.latent_dim)

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns images [B, H, W, C] of the EMA generator for latents [B, Z] or [B, network_latent_size]."""
        self.require_compiled()
        check_latents(latents, self.latent_size, self.network_latent_size)
        return self.generate(latents, None, self.ema_generator, training)

    def predict(self, x: Any, *arguments: Any, **settings: Any) -> Any:
        """Returns images float [N, H, W, C] for inputs as `call` takes them, or for batches of them.

        Raises:
            ConfigError: If the model is not compiled.
            DataError: If latents have another shape, or the model takes labels, and `x` is no pair of latents and
                labels or a label is no class. In batches, Keras reports wrong values.
        """
        self.require_compiled()
        return super().predict(self._check_inputs(x), *arguments, **settings)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns images for one batch. Its argument and errors are those of `predict`."""
        self.require_compiled()
        return super().predict_on_batch(self._check_inputs(x))

    def _check_inputs(self, inputs: Any) -> Any:
        """Returns inputs, checked if they are an array of latents. Models with another `call` take other inputs."""
        if hasattr(inputs, "shape") and type(self).call is SamplingModel.call:
            check_latents(inputs, self.latent_size, self.network_latent_size)
        return inputs

    @property
    def ema_generator(self) -> keras.Model:
        """The generator for sampling: the EMA of the generator, or the generator itself if there is no EMA."""
        return self.ema_network("generator")

    def ema_network(self, name: str) -> keras.Model:
        """Returns the EMA of a network, or the network itself if it has no EMA.

        Raises:
            ConfigError: If the model is not compiled, or has no network of that name.
        """
        check_known("network", name, self.networks)
        return self.networks.get(ema_name(name), self.networks[name])

    def sample(self, num_images: int, *, labels: Any = None, seed: int | None = None) -> tuple[np.ndarray, Any]:
        """Generates images, the same ones for the same seed. A larger number begins with the same images.

        Args:
            num_images: Number of images, N.
            labels: For conditional models, one label or N labels; None for each class in turn.
            seed: Seed of the latents; None for the seed of the run.

        Returns:
            Images uint8 [N, H, W, C], and labels int32 [N], or None if the model has no classes.

        Raises:
            ConfigError: If the model is not compiled, or the number of images is not a whole number from 1 to
                `MAX_SAMPLE_INDEX + 1`.
            DataError: If labels are out of range, or the model takes none.
        """
        seed = self._resolve_seed(seed)
        latents, labels = self._inputs_to_sample(num_images, labels, seed)
        return self._sampler(self.image_range, latents, labels, seed=seed), labels

    def sample_features(self, num_images: int, function: Function) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
        """Applies a function, such as a feature extractor, to the images that `sample(num_images)` generates.

        Images are generated on all replicas, block by block, and are never in memory all at once. If other machines
        train the same model, all of them must make the same call.

        Args:
            num_images: Number of images, N.
            function: Function of images uint8 [B, H, W, C] that returns tensors [B, ...]. It runs in a `tf.function`
                on the replica that generated the images. It stays compiled for the next call.

        Returns:
            The function's outputs for all images, [N, ...] each, and labels int32 [N], or None if the model has no
            classes; the same ones in every process and on any number of replicas.

        Raises:
            ConfigError: If the model is not compiled, or the number of images is not a whole number from 1 to
                `MAX_SAMPLE_INDEX + 1`.
        """
        latents, labels = self._inputs_to_sample(num_images, None, self.seed)
        strategy = self.compiled_state.strategy
        outputs = self._sampler.outputs(function, strategy, self.image_range, latents, labels, seed=self.seed)
        return outputs, labels

    def latents_of(self, indices: np.ndarray, *, seed: int | None = None) -> np.ndarray:
        """Returns the latents of single samples: those that `sample` uses for the images with these indices.

        Args:
            indices: Indices of the samples in [0, `MAX_SAMPLE_INDEX`], integers [N] in any order.
            seed: Seed of the latents; None for the seed of the run.

        Returns:
            Latents float32 [N, Z].

        Raises:
            DataError: If an index is out of range or not a whole number, or there is none.
        """
        seed, indices = self._resolve_seed(seed), as_array(indices, "indices")
        if indices.ndim != 1 or indices.dtype.kind not in "iu":
            raise DataError(
                f"indices is {indices.dtype} of shape {indices.shape}; pass the indices of samples, integers [N]."
            )
        for index in (np.min(indices), np.max(indices)):
            if not 0 <= index <= MAX_SAMPLE_INDEX:
                raise DataError(f"indices has {index}, expected 0 to {MAX_SAMPLE_INDEX}; choose other samples.")
        blocks, rows = np.divmod(indices, BLOCK_SIZE)
        unique, inverse = np.unique(blocks, return_inverse=True)
        latents = [
            self.sample_latents(StepRng(seed, 0, BLOCK_SIZE, int(block), purpose="samples")).numpy() for block in unique
        ]
        return np.stack(latents)[inverse, rows]

    def truncate(self, latents: tf.Tensor, psi: tf.Tensor | float) -> tf.Tensor:
        """Moves latents towards the center of their distribution, which trades variety for typical images.

        Normal latents become `psi` times a normal distribution that is truncated to [-2, 2]. Uniform latents are scaled
        by `psi` around their mean. Codes beside the latents keep their values. A network with an intermediate latent
        space may override this method. Exported models contain it.

        Args:
            latents: Latents float32 [N, Z].
            psi: Number in [0, 1], or a tensor of them, float32 [N, 1].

        Returns:
            Latents of the same shape.
        """
        variables, codes = latents[:, : self.latent_dim], latents[:, self.latent_dim :]
        if self.latent_distribution == LatentDistribution.NORMAL:
            low, high = (
                _normal_cdf(tf.constant(limit, tf.float64)) for limit in (-_TRUNCATION_LIMIT, _TRUNCATION_LIMIT)
            )
            truncated = tf.math.ndtri(low + _normal_cdf(tf.cast(variables, tf.float64)) * (high - low))
            variables = tf.cast(psi, tf.float32) * tf.cast(truncated, tf.float32)
        else:
            variables = 0.5 + psi * (variables - 0.5)
        return tf.concat([variables, codes], axis=1)

    def truncate_latents(self, latents: np.ndarray, psi: float) -> np.ndarray:
        """Applies `truncate` to latents float32 [N, Z].

        Raises:
            ConfigError: If `psi` is not a number from 0 to 1.
            DataError: If the latents have another shape, or are not finite.
        """
        check_number("psi", psi, maximum=1)
        latents = self._as_latents(latents)
        return self.truncate(tf.constant(latents, tf.float32), psi).numpy()

    def images_from(
        self,
        latents: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        indices: np.ndarray | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Returns the images of latents. It is called most efficiently with multiples of 50 latents.

        Args:
            latents: Latents float32 [N, Z].
            labels: For conditional models, labels as for `sample`, or weights of the classes float32 [N, K].
            indices: Indices of the samples, of which random layers of the generator that are active during inference
                are a function. None: they are a function of the row.
            seed: Seed of such layers; None for the seed of the run.

        Returns:
            Images uint8 [N, H, W, C].

        Raises:
            ConfigError: If the model is not compiled.
            DataError: If the latents have another shape, or are not finite; or as for the labels of `sample`.
        """
        self.require_compiled()
        seed, latents = self._resolve_seed(seed), self._as_latents(latents)
        labels = self._labels_for(latents, labels)
        if indices is None or not seed_states([self.ema_generator]):
            return self._sampler(self.image_range, latents, labels, seed=seed)
        blocks, rows = np.divmod(indices, BLOCK_SIZE)
        images = [np.empty(0)] * len(indices)
        for block in np.unique(blocks):
            (positions,) = np.nonzero(blocks == block)
            order = np.full(BLOCK_SIZE, positions[0])
            order[rows[positions]] = positions
            inputs = [None if array is None else array[order] for array in (latents, labels)]
            decoded = self._sampler(self.image_range, *inputs, seed=seed, first_block=int(block))
            for position in positions:
                images[position] = decoded[rows[position]]
        return np.stack(images)

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns samples for fixed latents as one picture: uint8 [height, width, C].

        Raises:
            ConfigError: If the model is not compiled, or a number is not a whole number from 1 up.
        """
        check_number("columns", columns, whole=True, minimum=1)
        check_number("rows", rows, whole=True, minimum=1)
        return tile(self.sample(rows * columns)[0], columns)

    def _as_latents(self, latents: Any) -> np.ndarray:
        """Returns latents as float32 [N, Z]."""
        latents = as_array(latents, "latents")
        check_latents(latents, self.latent_size, self.network_latent_size)
        is_finite = latents.dtype.kind in "iuf" and np.isfinite(latents.astype(np.float32)).all()
        if not is_finite:
            raise DataError(f"latents are {latents.dtype} with values that are not finite numbers; pass floats.")
        return latents.astype(np.float32)

    def labels_to_sample(self, num_images: int, labels: Any) -> np.ndarray | None:
        """Returns the labels of samples, int32 [N], or None if the model has no classes."""
        if labels is not None:
            name = type(self).__name__
            raise DataError(f"labels={quote(labels)} were passed to {name}, which has no classes; omit them.")
        return None

    def _labels_for(self, latents: np.ndarray, labels: Any) -> np.ndarray | None:
        """Returns the labels of latents [N, Z], as `labels_to_sample` reads them."""
        return self.labels_to_sample(len(latents), labels)

    def _resolve_seed(self, seed: Any) -> int:
        """Returns a seed of samples as an int, also if it is an integer of NumPy; the seed of the run for None.

        Raises:
            ConfigError: If it is not a whole number of 64 bits, or it is None and the model is not compiled.
        """
        if seed is None:
            return self.seed
        check_seed(seed)
        return int(seed)

    def _inputs_to_sample(self, num_images: int, labels: Any, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the latents [N, Z] and the labels int32 [N], or None, of samples."""
        check_number("num_images", num_images, whole=True, minimum=1, maximum=MAX_SAMPLE_INDEX + 1)
        labels = self.labels_to_sample(num_images, labels)
        return self.sample_latents(StepRng(seed, 0, num_images, purpose="samples")).numpy(), labels

    @functools.cached_property
    def _sampler(self) -> Sampler:
        return Sampler(
            lambda latents, labels: self.generate(latents, labels, self.ema_generator, False), self.networks.values()
        )


def _normal_cdf(values: tf.Tensor) -> tf.Tensor:
    """Returns the distribution function of N(0, 1) at float64 values."""
    return 0.5 * tf.math.erfc(-values * 0.5**0.5)
