"""`InfoGAN`: codes that a recognition network must be able to recover from the generated images.

Shapes: `B` images of a replica, `H W C` an image, `Z` latent size, `K` categories, `Q` continuous codes, `F` features.

Source: arXiv 1606.03657.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.image_io import tile
from trainer.models.auxiliary_head import AuxiliaryHeadGAN
from trainer.models.conditional import MAX_CLASSES
from trainer.models.gan import GAN
from trainer.models.objective import LossOutput
from trainer.models.registry import register_model
from trainer.networks.layers import BatchNormalization
from trainer.training.rng import StepRng

_TRAVERSAL_LIMIT = 2.0


@register_model("infogan")
class InfoGAN(AuxiliaryHeadGAN):
    """A GAN with one categorical and some continuous codes, which it learns without labels.

    The generator takes [B, Z+Q+K]: latents, continuous codes from U[-1, 1), then the one-hot category. The
    discriminator takes [B, H, W, C]. A recognition network predicts the codes from the features before the
    discriminator's last layer. It is updated in the generator's phase; the shared layers of the discriminator learn
    from its loss in the discriminator's phase.

    Args:
        latent_dim: Number of latent variables, Z. `input_dim` is another name of it.
        num_categories: Number of categories, K.
        num_continuous: Number of continuous codes, Q.
        category_weight: Weight of the category's cross-entropy.
        continuous_weight: Weight of half the squared error of the continuous codes, which is their negative
            log-likelihood under a normal distribution of variance 1.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If a number of codes or a weight is out of range or not a number.
    """

    head = "recognition"
    optimizer_groups: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator",),
        "generator": ("generator", "recognition"),
    }
    labels_are_codes = True
    takes_targets = False

    def __init__(
        self,
        latent_dim: int | None = None,
        num_categories: int = 10,
        *,
        num_continuous: int = 2,
        category_weight: float = 1.0,
        continuous_weight: float = 0.1,
        **settings: Any,
    ):
        check_number("num_categories", num_categories, whole=True, minimum=2, maximum=MAX_CLASSES)
        super().__init__(latent_dim, num_categories, **settings)
        check_number("num_continuous", num_continuous, whole=True)
        check_number("category_weight", category_weight)
        check_number("continuous_weight", continuous_weight)
        self.num_continuous = num_continuous
        self.category_weight, self.continuous_weight = category_weight, continuous_weight

    @property
    def latent_size(self) -> int:
        """Size of latents and continuous codes, Z + Q."""
        return self.latent_dim + self.num_continuous

    def get_head(self, num_features: int) -> keras.Model:
        """Returns a new recognition network: features [B, F] -> category logits, then continuous codes [B, K+Q]."""
        return keras.Sequential(
            [
                keras.Input((num_features,)),
                keras.layers.Dense(128),
                BatchNormalization(momentum=0.9),
                keras.layers.LeakyReLU(negative_slope=0.1),
                keras.layers.Dense(self.num_classes + self.num_continuous),
            ],
            name="recognition",
        )

    def sample_latents(self, rng: StepRng) -> tf.Tensor:
        """Returns latents and continuous codes: float32 [B, Z+Q]."""
        codes = rng.uniform("codes", self.num_continuous) * 2.0 - 1.0
        return tf.concat([super().sample_latents(rng), codes], axis=-1)

    def add_losses(self, loss_output: LossOutput, latents: tf.Tensor) -> None:
        categories = loss_output.fake.labels
        category, continuous = tf.split(
            self.predict_from(loss_output.fake.features), [self.num_classes, self.num_continuous], -1
        )
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(categories, category)
        terms = {"category": (cross_entropy, self.category_weight)}
        if self.num_continuous:
            distance = tf.square(latents[:, self.latent_dim :] - continuous)
            terms["continuous"] = 0.5 * tf.reduce_sum(distance, axis=-1), self.continuous_weight
        for name, (term, weight) in terms.items():
            loss_output.add("generator", f"code/{name}", term, weight)
            loss_output.add(self.objective.discriminator_update.fake_phase, None, term, weight)
        is_correct = tf.argmax(category, axis=-1, output_type=tf.int32) == categories
        loss_output.log("generator", "accuracy/category", is_correct)

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns traversals: a row per category, along which one continuous code changes; a block of rows per code."""
        if not self.num_continuous:
            return super().sample_grid(rows, columns)
        first = self.latents_of(np.zeros(1, int))
        latents, categories = self.traversal(first, np.arange(min(self.num_classes, max(rows, 10))), columns)
        return tile(self.images_from(latents, categories), columns)

    def traversal(self, latents: np.ndarray, categories: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs of traversals, in which one continuous code changes along each row, and the others are 0.

        Args:
            latents: Latents of one image, [1, Z + Q].
            categories: Categories of the rows, int [R].
            columns: Number of images in a row.

        Returns:
            Latents float32 [Q * R * columns, Z + Q], first all rows of the first code, and categories int32.
        """
        all_latents = np.repeat(latents, self.num_continuous * len(categories) * columns, axis=0)
        all_latents[:, self.latent_dim :] = 0.0
        blocks = all_latents.reshape(self.num_continuous, len(categories), columns, -1)
        for code in range(self.num_continuous):
            blocks[code, :, :, self.latent_dim + code] = np.linspace(-_TRAVERSAL_LIMIT, _TRAVERSAL_LIMIT, columns)
        return all_latents, np.tile(np.repeat(categories, columns), self.num_continuous).astype(np.int32)

    def make_chunk(self, x: Any, y: Any) -> Chunk:
        return GAN.make_chunk(self, x, None)
