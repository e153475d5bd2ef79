"""Projection of a photo: latents whose image is as similar to the photo as the generator can make it.

Shapes: `C` candidates, `R` starts, `Z` latent size with codes, `H W` height and width of an image, `F` features.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.choices import LatentDistribution
from trainer.data.prepare.contents import MAX_FILE_BYTES
from trainer.data.prepare.decoding import decode as decode_file
from trainer.data.prepare.pixels import Target
from trainer.errors import ConfigError, DataError
from trainer.image_io import png, tile_with_captions
from trainer.metrics.extraction import without_tf32
from trainer.metrics.photos_network import PhotosNetwork
from trainer.models import GAN, ImageTranslator
from trainer.models.sampler import as_bytes
from trainer.sampling.samples import Samples, images_of, labels_of
from trainer.storage import read_named_file

NUM_STEPS = 300
_NUM_CANDIDATES = 200
_NUM_STARTS = 4
_LEARNING_RATE = 0.05
_FEATURE_WEIGHT = 0.1
_NORM_WEIGHT = 0.1
_NUM_PICTURES = 8
"""Number of images in the progress picture besides the photo."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Result of a projection.

    Attributes:
        latents: Latents of the reconstruction, float32 [1, Z].
        label: Class or conditions [K] of the reconstruction; None if the model has no classes.
        reconstruction: Image of the latents, uint8 [H, W, C].
        photo: The photo, uint8 [H, W, C].
        error: Mean absolute difference between photo and reconstruction, in [0, 255].
        pictures: Step and image uint8 [H, W, C] at some moments of the search, in order.
    """

    latents: np.ndarray
    label: int | np.ndarray | None
    reconstruction: np.ndarray
    photo: np.ndarray
    error: float
    pictures: list[tuple[int, np.ndarray]]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yields the name and the content of the files: latent, reconstruction, and progress picture."""
        buffer = io.BytesIO()
        label_type = np.int32 if isinstance(self.label, int) else np.float32
        arrays: dict[str, Any] = {} if self.label is None else {"labels": np.array([self.label], label_type)}
        np.savez(buffer, latents=self.latents, **arrays)
        yield "latent.npz", buffer.getvalue()
        yield "reconstruction.png", png(self.reconstruction)
        captions = ["photo", *(f"step {step}" for step, _ in self.pictures)]
        images = [self.photo, *(image for _, image in self.pictures)]
        yield "progress.png", png(tile_with_captions(images, captions, len(images)))


FILES = ("latent.npz", "reconstruction.png", "progress.png")
"""Names of the files of a projection."""


def read_photo(name: str, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Returns a photo, uint8 [H, W, C], cropped and resized to an image shape (H, W, C).

    Raises:
        DataError: If it cannot be decoded.
        StorageError: If it cannot be read.
    """
    height, width, channels = image_shape
    content = read_named_file(name, MAX_FILE_BYTES)
    try:
        picture = decode_file(content, Target(height, width, channels, "crop", allows_constant=True))
    except DataError as error:
        raise DataError(f"init_image={name} {error}.") from error
    return np.asarray(picture).reshape(image_shape)


def project(
    gan: GAN,
    photo: np.ndarray,
    labels: list[Any] | None = None,
    *,
    num_steps: int = NUM_STEPS,
    seed: int | None = None,
    on_step: Callable[[int], object] = lambda step: None,
) -> Projection:
    """Searches latents whose image is similar to a photo in its pixels and in the features of the suite `photos`.

    The best ones of 200 random samples are improved by gradient descent, with the class of the sample. The result is
    the one with the smallest loss.

    Args:
        gan: Compiled model.
        photo: Photo, uint8 [H, W, C], with the shape of the model's images.
        labels: Classes or vectors of conditions to try; None for those of `GAN.sample`.
        num_steps: Number of steps of the gradient descent.
        seed: Seed of the samples; None for the seed of the run.
        on_step: Function to call with the number of finished steps.

    Raises:
        ConfigError: If the model has no latents.
        DataError: If the model has no such classes, or images of another number of channels than 1, 3, or 4.
    """
    if isinstance(gan, ImageTranslator):
        raise ConfigError(f"--init_image needs a generator with latents, and a {type(gan).__name__} has none; omit it.")
    loss = _Loss(gan, photo)
    indices = np.arange(_NUM_CANDIDATES)
    candidates = Samples(indices, labels_of(gan, indices, labels), seed)
    losses = np.concatenate([loss.of_images(tf.constant(block)).numpy() for block in images_of(gan, candidates)])
    starts = np.argsort(losses, kind="stable")[:_NUM_STARTS]
    chosen = None if candidates.labels is None else candidates.labels[starts]
    latents = tf.Variable(candidates.latents(gan)[starts])
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, num_steps))
    optimizer.build([latents])
    pictures, final = [], np.zeros(0)
    moments = set(np.linspace(0, num_steps, _NUM_PICTURES).astype(int).tolist())

    @tf.function(autograph=False)
    def descend() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            images, losses = loss.of_latents(latents.value(), chosen)
        optimizer.apply([tape.gradient(losses, latents)], [latents])
        latents.assign(_into_range(gan, latents.value()))
        return images, losses

    with without_tf32():
        for step in range(num_steps):
            images, _ = descend()
            if step in moments:
                pictures.append((step, images.numpy()))
            on_step(step + 1)
        images, final = (output.numpy() for output in loss.of_latents(latents.value(), chosen))
    best = int(np.argmin(np.where(np.isfinite(final), final, np.inf)))
    return Projection(
        latents.numpy()[best : best + 1],
        None if chosen is None else chosen[best] if chosen.ndim > 1 else int(chosen[best]),
        images[best],
        photo,
        float(np.abs(images[best].astype(np.int16) - photo).mean()),
        [*((step, picture[best]) for step, picture in pictures), (num_steps, images[best])],
    )


class _Loss:
    """Difference between images and a photo: of pixels, and of the features of the suite `photos`."""

    def __init__(self, gan: GAN, photo: np.ndarray):
        self._gan, self._network = gan, PhotosNetwork()
        self._photo = tf.cast(photo[np.newaxis], tf.float32)
        self._features = self._network(self._photo)[0]

    def of_images(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the losses float32 [B] of images [B, H, W, C] in [0, 255]."""
        images = tf.cast(images, tf.float32)
        pixels = tf.reduce_mean(tf.square((images - self._photo) / 127.5), axis=(1, 2, 3))
        features = tf.reduce_mean(tf.square(self._network(images)[0] - self._features), axis=1)
        return pixels + _FEATURE_WEIGHT * features

    def of_latents(self, latents: tf.Tensor, labels: np.ndarray | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images uint8 [R, H, W, C] and the losses float32 [R] of latents [R, Z]."""
        gan = self._gan
        chosen = None if labels is None else tf.constant(labels)
        generated = tf.cast(gan.generate(latents, chosen, gan.ema_generator, False), tf.float32)
        low, high = gan.image_range
        losses = self.of_images((generated - low) * (255.0 / (high - low)))
        if gan.latent_distribution == LatentDistribution.NORMAL:  # a length that the generator has been trained on
            length = tf.reduce_mean(tf.square(latents[:, : gan.latent_dim]), axis=1)
            losses += _NORM_WEIGHT * tf.square(tf.nn.relu(length - 1.0))
        return as_bytes(generated, gan.image_range), losses


def _into_range(gan: GAN, latents: tf.Tensor) -> tf.Tensor:
    """Returns latents [R, Z] with uniform ones, and codes beside the latents, in their range."""
    own, codes = latents[:, : gan.latent_dim], latents[:, gan.latent_dim :]
    if gan.latent_distribution != LatentDistribution.NORMAL:
        own = tf.clip_by_value(own, 0.0, 1.0)
    return tf.concat([own, tf.clip_by_value(codes, -1.0, 1.0)], axis=1)
