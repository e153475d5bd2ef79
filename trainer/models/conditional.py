"""`ConditionalGAN`: labels are concatenated to the latents and to the images.

Shapes: `B` images of a replica, `H W C` an image, `Z` latent size, `K` classes.

Source: arXiv 1411.1784.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.errors import ConfigError, DataError, NetworkError, quote
from trainer.image_io import tile
from trainer.models.arrays import as_array, as_classes, class_tensor
from trainer.models.gan import GAN
from trainer.models.network_inputs import call_with_labels, check_latents, find_label_input
from trainer.models.registry import register_model
from trainer.models.validation import input_shapes
from trainer.training.rng import StepRng

MAX_CLASSES = 10**6
"""Maximum number of labels. Larger numbers are mistakes, for which no memory is taken."""
_GOLDEN_RATIO = 0.6180339887498949


@register_model("conditional")
class ConditionalGAN(GAN):
    """A GAN that generates images of a requested class.

    The generator takes [B, Z+K]: latents, then the one-hot label. The discriminator takes [B, H, W, C+K]: the image,
    then one plane per class, which is 1 for the label's class and 0 for others. For flat data it takes [B, D+K].

    Either network may instead have two inputs, in any order: latents or images, and labels that are one-hot [B, K], or
    integers [B, 1] or [B]. If shapes do not show which input takes the labels, dtype and names (`label`) do.

    Real images have their true labels; fake images have the labels that they were generated for. These are random, or,
    with a loss that compares pairs, such as `relativistic`, those of the real images of the batch.

    Instead of one of several classes, an image may have a vector of K conditions: several labels of 0 and 1, or
    quantities. A label is then the number of a vector in the table `conditions`, and the networks take the vector in
    place of the one-hot label: `conditions, y = numpy.unique(vectors, axis=0, return_inverse=True)`.

    Args:
        latent_dim: Number of latent variables, Z. `input_dim` is another name of it.
        num_classes: Number of labels: K classes, or rows of `conditions`.
        classes: Labels that the data has, which are the ones to learn and sample; None for all.
        conditions: Vector of each label, [num_classes, K], in place of `num_classes`; None if the labels are classes.
        class_counts: Number of training images of each label, in whose proportion `conditions` are sampled; None for
            equal proportions. Classes are always sampled in equal proportions.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If there are fewer than 2 labels or more than `MAX_CLASSES`, a class is out of range, `conditions`
            are not finite vectors, or `class_counts` are not counts.
    """

    discriminator_takes_labels = True
    takes_targets = True

    def __init__(
        self,
        latent_dim: int | None = None,
        num_classes: int | None = None,
        *,
        classes: Sequence[int] | None = None,
        conditions: np.ndarray | None = None,
        class_counts: Sequence[int] | None = None,
        **settings: Any,
    ):
        super().__init__(latent_dim, **settings)
        self.conditions = None if conditions is None else _as_vectors(conditions, num_classes)
        num_classes = num_classes if self.conditions is None else len(self.conditions)
        check_number("num_classes", num_classes, whole=True, minimum=2, maximum=MAX_CLASSES)
        self.num_classes = int(num_classes)  # type: ignore[arg-type]
        self.classes = np.arange(self.num_classes) if classes is None else np.asarray(classes)
        known = np.arange(self.num_classes)
        if not self.classes.size or self.classes.dtype.kind not in "iuf" or not np.isin(self.classes, known).all():
            raise ConfigError(
                f"classes={quote(classes)} must be labels from 0 to {self.num_classes - 1}; pass the labels that the "
                "data has."
            )
        self.classes = np.unique(self.classes.astype(int))
        weights = np.ones(len(known)) if class_counts is None else _as_weights(class_counts)
        is_valid = weights.shape == known.shape and np.isfinite(weights.sum()) and (weights >= 0).all()
        if not is_valid or not weights[self.classes].sum():
            raise ConfigError(
                f"class_counts={quote(class_counts)} are not counts of {self.num_classes} labels; omit them."
            )
        self._shares = np.cumsum(weights[self.classes]) / weights[self.classes].sum()

    @property
    def label_size(self) -> int:
        """Size of the vector of a label, K: the number of conditions or classes."""
        return self.num_classes if self.conditions is None else self.conditions.shape[1]

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        labels = self._with_conditions(labels)
        return call_with_labels("generator", network, latents, labels, self.label_size, training)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        labels = self._with_conditions(labels)
        return call_with_labels("discriminator", self.discriminator, images, labels, self.label_size, True)

    def sample_labels(self, rng: StepRng) -> tf.Tensor:
        if self.conditions is None:
            return self._class_at(rng.integers("labels", len(self.classes)))
        draws = tf.cast(rng.uniform("labels", 1)[:, 0], tf.float64)
        return self._class_at(tf.searchsorted(tf.constant(self._shares[:-1]), draws, side="right"))

    def _with_conditions(self, labels: Any) -> Any:
        """Returns the vectors of labels, float32 [B, K]; labels of classes, and vectors, stay as they are."""
        if self.conditions is None or labels is None or tf.as_dtype(labels.dtype).is_floating:
            return labels
        return tf.gather(tf.constant(self.conditions), labels)

    def vectors_of(self, labels: np.ndarray) -> np.ndarray:
        """Returns the vectors of labels, int32 [N]: conditions or one-hot, float32 [N, K]."""
        return (
            np.eye(self.num_classes, dtype=np.float32)[labels] if self.conditions is None else self.conditions[labels]
        )

    def _class_at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the labels at indices of `classes`: int32 [B]."""
        if len(self.classes) == self.num_classes:
            return indices
        return tf.gather(tf.constant(self.classes, tf.int32), indices)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns images [B, H, W, C].

        Args:
            inputs: Latents [B, latent_size] or [B, network_latent_size], and labels: integers [B] or [B, 1], or vectors
                of conditions [B, K].
            training: Argument of the generator.
        """
        latents, labels = self._check_inputs(inputs)
        if self.conditions is None or len(labels.shape) < 2:
            labels = class_tensor(labels, self.num_classes)
        else:
            labels = tf.cast(labels, tf.float32)
        return self.generate(tf.convert_to_tensor(latents), labels, self.ema_generator, training)

    def _check_inputs(self, inputs: Any) -> Any:
        """Returns latents and labels, checked if their values are known, or batches unchanged."""
        is_pair = isinstance(inputs, (tuple, list)) and len(inputs) == 2
        if not is_pair and (isinstance(inputs, (tuple, list, Mapping)) or hasattr(inputs, "shape")):
            raise DataError(f"{type(self).__name__} takes latents and labels; pass the pair (latents, labels).")
        if not is_pair or not tf.executing_eagerly():
            return inputs
        latents, labels = inputs
        latents = as_array(latents, "latents")
        check_latents(latents, self.latent_size, self.network_latent_size)
        return latents, self._as_labels(labels, len(latents) if latents.ndim else 0)

    def _as_labels(self, labels: Any, num_examples: int) -> np.ndarray:
        """Returns labels as int32 [N], or as vectors of conditions, float32 [N, K]."""
        if self.conditions is None or as_array(labels, "labels").ndim < 2:
            return as_classes(labels, num_examples, self.num_classes, "labels")
        vectors = as_array(labels, "labels")
        if vectors.shape != (num_examples, self.label_size) or not np.isfinite(vectors.astype(np.float32)).all():
            raise DataError(
                f"labels have the shape {vectors.shape}, or values that are not finite; pass vectors of shape "
                f"({num_examples}, {self.label_size}), one per image."
            )
        return vectors.astype(np.float32)

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
        if self.discriminator_takes_labels:
            find_label_input("discriminator", self.discriminator, shape, self.label_size)
            if self.conditions is not None:
                self._check_takes_vectors("discriminator", shape)
                self._check_takes_vectors("generator", (self.network_latent_size,))
        else:
            super().check_image_shape(shape)

    def default_labels(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Returns the labels of samples without requested ones, by the indices of the samples: int32 [N].

        Classes are taken in turn. Conditions are spread in the proportions of the data.
        """
        indices = tf.cast(indices, tf.int64)
        if self.conditions is None:
            positions = indices % len(self.classes)
        else:
            shares = (tf.cast(indices, tf.float64) + 0.5) * _GOLDEN_RATIO % 1.0
            positions = tf.searchsorted(tf.constant(self._shares[:-1], tf.float64), shares, side="right")
        return tf.gather(tf.constant(self.classes, tf.int32), positions)

    def _check_takes_vectors(self, role: str, data_shape: tuple[int, ...]) -> None:
        """Rejects a network that takes numbers of classes instead of vectors of conditions."""
        network = self.networks[role]
        position = find_label_input(role, network, data_shape, self.label_size)
        shapes = input_shapes(network)
        if position is not None and shapes and shapes[position] != (self.label_size,):
            raise NetworkError(
                f"the {role} takes labels of shape {shapes[position]}, but conditions have the shape "
                f"({self.label_size},); start that input with keras.Input(({self.label_size},))."
            )

    def labels_to_sample(self, num_images: int, labels: Any) -> np.ndarray:
        if labels is None:
            return self.default_labels(np.arange(num_images)).numpy()
        labels = as_array(labels, "labels")
        if self.conditions is not None and labels.ndim == 2:
            return self._as_labels(labels, num_images)
        labels = np.repeat(labels.reshape(1), num_images) if labels.size == 1 else labels
        classes = as_classes(labels, num_images, self.num_classes, "labels")
        unknown = np.setdiff1d(classes, self.classes)
        if unknown.size:
            raise DataError(
                f"labels has {unknown[0]}, which the model was not trained on; choose from "
                f"{', '.join(map(str, self.classes))}."
            )
        return classes

    def _labels_for(self, latents: np.ndarray, labels: Any) -> np.ndarray | None:
        """Returns the labels of latents [N, Z]: as of samples, or weights of classes float32 [N, K]."""
        if labels is not None:
            weights = as_array(labels, "labels")
            has_shape = weights.shape == (len(latents), self.label_size)
            if has_shape and weights.dtype.kind == "f" and np.isfinite(weights).all():
                return weights.astype(np.float32)
        return super()._labels_for(latents, labels)


def _as_weights(class_counts: object) -> np.ndarray:
    """Returns counts of labels as float64; an empty array if they are no numbers."""
    try:
        return np.asarray(class_counts, np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _as_vectors(conditions: object, num_classes: int | None) -> np.ndarray:
    """Returns a table of conditions as float32 [M, K].

    Raises:
        ConfigError: If it is no table of finite numbers with a row for each label.
    """
    try:
        vectors = np.asarray(conditions)
    except ValueError as error:
        raise ConfigError(
            f"conditions={quote(conditions)} have vectors of different lengths; pass a vector [K] for each label."
        ) from error
    is_table = vectors.ndim == 2 and vectors.shape[1] > 0 and vectors.dtype.kind in "buif"
    if not is_table or not np.isfinite(vectors.astype(np.float32)).all() or num_classes not in (None, len(vectors)):
        raise ConfigError(
            f"conditions are {vectors.dtype} {list(vectors.shape)} for num_classes={num_classes}; pass a finite vector "
            "[K] for each label."
        )
    return vectors.astype(np.float32)
