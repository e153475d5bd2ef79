"""`ImageTranslator`: base class of models whose generator maps images to images.

Shapes: `B` images of a replica, `N` images, `H W C` an image.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.errors import ConfigError, DataError, count_of
from trainer.models.arrays import as_array, as_images, read_images
from trainer.models.gan import GAN
from trainer.models.sampler import Function, Sampler, as_bytes
from trainer.models.validation import input_shapes, matches

NUM_GRID_IMAGES = 100
"""Number of images that grids and samples translate."""


class ImageTranslator(GAN):
    """A model that translates images instead of latents. Samples are translations of its grid images.

    Args:
        latent_dim: Not used, because there are no latents.
        **settings: Arguments of `GAN`.
    """

    takes_targets = True

    def __init__(self, latent_dim: int | None = None, **settings: Any):
        has_default = latent_dim is None and settings.get("input_dim") is None
        super().__init__(1 if has_default else latent_dim, **settings)
        self.grid_images: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def translator(self) -> keras.Model:
        """Network that `call`, samples and exported models translate with: [B, H, W, C] -> [B, H, W, C]."""
        raise NotImplementedError

    @property
    def _sample_translator(self) -> Sampler:
        """Sampler of the translator."""
        raise NotImplementedError

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Translates images [B, H, W, C]: float in the range of the training images.

        Raises:
            DataError: If they are integers.
        """
        if not tf.as_dtype(images.dtype).is_floating:
            low, high = self.image_range
            raise DataError(f"images are {images.dtype}; pass floats in {low:g}..{high:g}, or call translate.")
        return self.translator(images, training=training)

    def _check_inputs(self, inputs: Any) -> Any:
        """Returns an array of images as floats, as `translate` reads them; other inputs unchanged."""
        return self._as_floats(as_array(inputs, "x")) if hasattr(inputs, "shape") else inputs

    def sample(self, num_images: int, *, labels: Any = None, seed: int | None = None) -> tuple[np.ndarray, Any]:
        """Translates the first images that `set_grid_images` has set.

        Returns:
            Images uint8 [N, H, W, C], and None.

        Raises:
            DataError: If there are fewer images, or labels were passed.
        """
        self.labels_to_sample(num_images, labels)
        floats = self._floats_to_sample(num_images)
        return self._sample_translator(self.image_range, floats, seed=self._resolve_seed(seed)), None

    def sample_features(self, num_images: int, function: Function) -> tuple[tuple[np.ndarray, ...], None]:
        """Applies a function to the translations of the first grid images, as `GAN.sample_features` does to samples.

        Args:
            num_images: Number of images, N.
            function: Function of images uint8 [B, H, W, C] that returns tensors [B, ...].

        Returns:
            The function's outputs for all images, [N, ...] each; and None, because there are no labels.

        Raises:
            ConfigError: If the model is not compiled, or the number of images is not a whole number from 1 up.
            DataError: If there are fewer grid images.
        """
        strategy, floats = self.compiled_state.strategy, self._floats_to_sample(num_images)
        return self._sample_translator.outputs(function, strategy, self.image_range, floats, seed=self.seed), None

    def translate(self, images: np.ndarray, *, seed: int | None = None) -> np.ndarray:
        """Translates images.

        Args:
            images: Images [N, H, W, C]: uint8, or float in the range of the training images.
            seed: Seed of dropout that is active in samples; None for the seed of the run.

        Returns:
            Images uint8 [N, H, W, C].

        Raises:
            ConfigError: If the model is not compiled.
            DataError: If the images have another shape or range than the networks take.
        """
        self.require_compiled()
        floats = self._as_floats(images)
        return self._sample_translator(self.image_range, floats, seed=self._resolve_seed(seed))

    def images_from(self, *args: Any, **settings: Any) -> np.ndarray:
        """Raises ConfigError, because there are no latents."""
        raise ConfigError(f"{type(self).__name__} has no images_from, because it has no latents; use translate.")

    def set_grid_images(self, x: Any, y: Any) -> None:
        """Sets the images that grids and samples translate, or compare with: the first ones of `x` and `y`.

        `fit` sets those of its data if none are set.
        """
        self.grid_images = _first_images(x), _first_images(y)

    @property
    def num_grid_images(self) -> int:
        """Number of images that grids and samples can translate."""
        return min(map(len, self.grid_images or ()), default=0)

    def _floats_to_sample(self, num_images: int) -> np.ndarray:
        """Returns the images to translate in `image_range`: float32 [N, H, W, C]."""
        self.require_compiled()
        check_number("num_images", num_images, whole=True, minimum=1)
        return self._as_floats(self._first_grid_images(num_images)[0])

    def _as_floats(self, images: Any) -> np.ndarray:
        """Returns images of the shape that the translator takes in `image_range`: float32 [N, H, W, C]."""
        images = as_array(images, "images")
        expected = (input_shapes(self.translator) or [(None, None, None)])[0]
        if not matches(expected, images.shape[1:]):
            shape = ", ".join("any" if size is None else str(size) for size in expected)
            raise DataError(f"images has the shape {images.shape}; pass images of shape [N, {shape}].")
        if images.dtype != np.uint8:  # 8-bit images are not checked, because all of them may be black
            (images,), _ = read_images({"images": images}, self.image_range, self.image_range)
        return np.asarray(Chunk(images, None, self.image_range).as_floats(images))

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return images if images.dtype == np.uint8 else as_bytes(images, self.image_range).numpy()

    def _first_grid_images(self, num_images: int) -> tuple[np.ndarray, np.ndarray]:
        if self.grid_images is None:
            name = type(self).__name__
            raise DataError(
                f"{name} has no images to translate; call set_grid_images(x, y) with images of both kinds or fit first."
            )
        if self.num_grid_images < num_images:
            raise DataError(
                f"num_images={num_images} is more than the {count_of(self.num_grid_images, 'image')} to show; pass "
                "fewer."
            )
        x, y = self.grid_images
        return x[:num_images], y[:num_images]


def _first_images(images: Any) -> np.ndarray:
    """Returns a copy of the first images of a domain. 8-bit ones may be as dark as masks of 0 and 1."""
    is_8_bit = isinstance(images, np.ndarray) and images.dtype == np.uint8
    return (images if is_8_bit else as_images(images))[:NUM_GRID_IMAGES].copy()
