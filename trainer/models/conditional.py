"""`ConditionalGAN`: labels are concatenated to the latents and to the images.

Legend: `B` images of a replica, `H W C` an image, `Z` latent size, `K` classes.

Source: arXiv 1411.1784.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.errors import ConfigError, DataError, quote
from trainer.image_io import tile
from trainer.models.arrays import as_array, as_classes, class_tensor
from trainer.models.gan import GAN
from trainer.models.network_inputs import call_with_labels, check_latents, find_label_input
from trainer.training.rng import StepRng


class ConditionalGAN(GAN):
    """A GAN that generates images of a requested class.

    The generator takes [B, Z+K]: latents, then the one-hot label. The discriminator takes [B, H, W, C+K]: the image,
    then one plane per class, which is 1 for the label's class and 0 for others. For flat data it takes [B, D+K].

    Either network may instead have two inputs, in any order: latents or images, and labels that are one-hot [B, K], or
    integers [B, 1] or [B]. If shapes do not show which input takes the labels, dtype and names (`label`) do.

    Real images have their true labels; fake images have the random labels that they were generated for.

    Args:
        latent_dim: Number of latent variables, Z. `input_dim` is another name of it.
        num_classes: Number of classes, K.
        classes: Labels that the data has, which are the ones to learn and sample; None for all from 0 to K-1.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If K is less than 2, or a class is out of range.
    """

    def __init__(
        self,
        latent_dim: int | None = None,
        num_classes: int | None = None,
        *,
        classes: Sequence[int] | None = None,
        **settings: Any,
    ):
        super().__init__(latent_dim, **settings)
        check_number("num_classes", num_classes, whole=True, minimum=2)
        self.num_classes = int(num_classes)  # type: ignore[arg-type]
        self.classes = np.arange(self.num_classes) if classes is None else np.asarray(classes)
        known = np.arange(self.num_classes)
        if not self.classes.size or self.classes.dtype.kind not in "iuf" or not np.isin(self.classes, known).all():
            raise ConfigError(
                f"classes={quote(classes)} must be labels from 0 to {self.num_classes - 1}; pass the labels that the "
                "data has."
            )
        self.classes = np.unique(self.classes.astype(int))

    @property
    def condition_size(self) -> int:
        """Number of classes, K."""
        return self.num_classes

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        return call_with_labels("generator", network, latents, labels, self.num_classes, training)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        return call_with_labels("discriminator", self.discriminator, images, labels, self.num_classes, True)

    def sample_labels(self, rng: StepRng) -> tf.Tensor:
        return self._class_at(rng.integers("labels", len(self.classes)))

    def _class_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the labels at indices of `classes`: int32 [B]."""
        if len(self.classes) == self.num_classes:
            return indices
        return tf.gather(tf.constant(self.classes, tf.int32), indices)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns images [B, H, W, C] for (latents [B, Z], labels: integers [B] or [B, 1], or one-hot [B, K])."""
        latents, labels = self._check_inputs(inputs)
        labels = class_tensor(labels, self.num_classes)
        return self.generate(tf.convert_to_tensor(latents), labels, self.ema_generator, training)

    def predict(self, x: Any, *arguments: Any, **settings: Any) -> Any:
        """Returns images float [N, H, W, C] for (latents, labels) as `call` takes them, or for batches of such pairs.

        Raises:
            DataError: If `x` is no such pair, or if a label is no class. In batches, Keras reports wrong labels.
        """
        return super().predict(self._check_inputs(x), *arguments, **settings)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns images for one batch. Its argument and errors are those of `predict`."""
        return super().predict_on_batch(self._check_inputs(x))

    def _check_inputs(self, inputs: Any) -> Any:
        """Returns latents and labels, checked if their values are known, or batches unchanged."""
        is_pair = isinstance(inputs, (tuple, list)) and len(inputs) == 2
        if not is_pair and (isinstance(inputs, (tuple, list, Mapping)) or hasattr(inputs, "shape")):
            raise DataError(f"{type(self).__name__} takes latents and labels; pass the pair (latents, labels).")
        if not is_pair or not tf.executing_eagerly():
            return inputs
        latents, labels = inputs
        latents = as_array(latents, "latents")
        check_latents(latents, self.latent_dim)
        return latents, as_classes(labels, len(latents) if latents.ndim else 0, self.num_classes, "labels")

    def make_chunk(self, x: Any, y: Any) -> Chunk:
        chunk = super().make_chunk(x, y)
        if y is None:
            raise DataError(
                f"{type(self).__name__}.fit needs labels; pass one of {self.num_classes} classes per image as y."
            )
        return Chunk(chunk.images, as_classes(y, chunk.num_examples, self.num_classes), chunk.image_range)

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns one row per class. With more classes than `rows` and ten, it shows evenly spread classes."""
        rows = min(len(self.classes), max(rows, 10))
        classes = self.classes[np.arange(rows) * len(self.classes) // rows]
        return tile(self.sample(rows * columns, labels=np.repeat(classes, columns))[0], columns)

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        if self.condition_size:
            find_label_input("discriminator", self.discriminator, shape, self.num_classes)
        else:
            super().check_image_shape(shape)

    def labels_to_sample(self, num_images: int, labels: Any) -> np.ndarray:
        if labels is None:
            return self.classes[np.arange(num_images) % len(self.classes)].astype(np.int32)
        labels = np.asarray(labels)
        labels = np.repeat(labels.reshape(1), num_images) if labels.size == 1 else labels
        chosen = as_classes(labels, num_images, self.num_classes, "labels")
        unknown = np.setdiff1d(chosen, self.classes)
        if unknown.size:
            raise DataError(
                f"labels has {unknown[0]}, which the model was not trained on; choose from "
                f"{', '.join(map(str, self.classes))}."
            )
        return chosen
