"""`ConditionalGAN`: labels are concatenated to the latents and to the images.

Legend: `B` images of a replica, `H W C` an image, `Z` latent size, `K` classes.

Source: arXiv 1411.1784.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.data.pipeline.batching import Chunk
from trainer.errors import ConfigError, DataError
from trainer.image_io import tile
from trainer.models.arrays import as_classes
from trainer.models.gan import GAN
from trainer.models.validation import check_takes_images, check_takes_latents, input_shapes
from trainer.training.rng import StepRng


class ConditionalGAN(GAN):
    """A GAN that generates images of a requested class.

    The generator takes [B, Z+K]: latents, then the one-hot label. The discriminator takes [B, H, W, C+K]: the image,
    then one plane per class, which is 1 for the label's class and 0 for others. For flat data it takes [B, D+K]. A
    functional model with two inputs takes the image and the one-hot label [B, K]. Real images have their true labels;
    fake images have the random labels that they were generated for.

    Args:
        latent_dim: Number of latent variables, Z.
        num_classes: Number of classes, K.
        classes: Labels that the data has, which are the ones to learn and sample; None for all from 0 to K-1.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If K is less than 2, or a class is out of range.
    """

    def __init__(self, latent_dim: int, num_classes: int, *, classes: Sequence[int] | None = None, **settings: Any):
        super().__init__(latent_dim, **settings)
        if num_classes < 2:
            raise ConfigError(f"num_classes={num_classes} is too small; a conditional model needs at least 2.")
        self.num_classes = num_classes
        self.classes = np.arange(num_classes) if classes is None else np.unique(np.asarray(classes, int))
        if not self.classes.size or self.classes.min() < 0 or self.classes.max() >= num_classes:
            raise ConfigError(
                f"classes={classes} must be labels from 0 to {num_classes - 1}; pass the labels that the data has."
            )

    @property
    def condition_size(self) -> int:
        """Number of classes, K."""
        return self.num_classes

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        check_takes_latents(network, latents.shape[-1], self.num_classes)
        return network(tf.concat([latents, tf.one_hot(labels, self.num_classes)], axis=-1), training=training)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        planes = tf.one_hot(labels, self.num_classes)
        if len(input_shapes(self.discriminator)) == 2:
            return self.discriminator([images, planes], training=True)
        for _ in images.shape[1:-1]:
            planes = planes[:, tf.newaxis]
        planes = tf.broadcast_to(planes, [*images.shape[:-1], self.num_classes])
        return self.discriminator(tf.concat([images, planes], axis=-1), training=True)

    def sample_labels(self, rng: StepRng) -> tf.Tensor:
        return self._class_at(rng.integers("labels", len(self.classes)))

    def _class_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the labels at indices of `classes`: int32 [B]."""
        if len(self.classes) == self.num_classes:
            return indices
        return tf.gather(tf.constant(self.classes, tf.int32), indices)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns images [B, H, W, C] for (latents [B, Z], integer labels [B])."""
        latents, labels = inputs
        labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
        return self.generate(latents, labels, self.ema_generator, training)

    def make_chunk(self, x: Any, y: Any) -> Chunk:
        chunk = super().make_chunk(x, y)
        if y is None:
            raise DataError(
                f"{type(self).__name__}.fit needs labels; pass one of {self.num_classes} classes per image as y."
            )
        return Chunk(chunk.images, self._as_classes(y, chunk.num_examples), chunk.image_range)

    def _as_classes(self, y: Any, num_examples: int, name: str = "y") -> np.ndarray:
        labels = as_classes(y, num_examples, name)
        if labels.max() >= self.num_classes or (np.ndim(y) == 2 and np.shape(y)[1] not in (1, self.num_classes)):
            raise DataError(
                f"{name} has labels from {labels.min()} to {labels.max()}, but num_classes={self.num_classes} allows 0 "
                f"to {self.num_classes - 1}; pass integers or one-hot vectors of {self.num_classes}."
            )
        return labels

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns one row per class. With more classes than `rows` and ten, it shows evenly spread classes."""
        rows = min(len(self.classes), max(rows, 10))
        classes = self.classes[np.arange(rows) * len(self.classes) // rows]
        return tile(self.sample(rows * columns, labels=np.repeat(classes, columns))[0], columns)

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        num_planes = self.condition_size if len(input_shapes(self.discriminator)) == 1 else 0
        check_takes_images(self.discriminator, shape, num_planes)

    def labels_to_sample(self, num_images: int, labels: Any) -> np.ndarray:
        if labels is None:
            return self.classes[np.arange(num_images) % len(self.classes)].astype(np.int32)
        labels = np.asarray(labels)
        labels = np.repeat(labels.reshape(1), num_images) if labels.size == 1 else labels
        chosen = self._as_classes(labels, num_images, "labels")
        unknown = np.setdiff1d(chosen, self.classes)
        if unknown.size:
            raise DataError(
                f"labels has {unknown[0]}, which the model was not trained on; choose from "
                f"{', '.join(map(str, self.classes))}."
            )
        return chosen
