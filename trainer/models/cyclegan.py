"""`CycleGAN`: two generators translate images between two domains without pairs.

Shapes: `B` images of a replica, `H W C` an image of either domain, `P` patches.

Source: arXiv 1703.10593.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.errors import DataError, NetworkError
from trainer.image_io import tile
from trainer.models.arrays import read_images
from trainer.models.discriminator_passes import PassInputs
from trainer.models.objective import LossOutput
from trainer.models.registry import register_model
from trainer.models.sampler import Sampler
from trainer.models.translator import ImageTranslator
from trainer.models.validation import (
    as_fake_images,
    check_built,
    check_takes_images,
    input_shapes,
    matches,
    per_example,
)
from trainer.networks.layers import ImagePool
from trainer.registry import check_known
from trainer.training.plan import Losses, Metrics
from trainer.training.rng import StepRng

_OTHER = {"a": "b", "b": "a"}


@register_model("cyclegan")
class CycleGAN(ImageTranslator):
    """Translates images of a domain A to a domain B and back. Train it with `fit(images_a, images_b)`.

    `get_generator` [B, H, W, C] -> [B, H, W, C] and `get_discriminator` [B, H, W, C] -> [B, h, w, 1] or [B, 1] are
    called once per direction. Discriminators see fake images from a pool of earlier ones. Losses are logged per domain.

    Args:
        latent_dim: Not used, because there are no latents.
        cycle_weight: Weight of the mean absolute difference between an image and its translation there and back.
        identity_weight: Weight of the mean absolute difference between an image and its translation to its own domain;
            0 omits that pass.
        pool_size: Number of fake images in the pool of each domain; 0 for no pool.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If a weight or the pool size is negative or not a number.
    """

    optimizer_groups: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator_a", "discriminator_b", "pool_a", "pool_b"),
        "generator": ("generator_ab", "generator_ba"),
    }
    ema_networks = ("generator_ab", "generator_ba")

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool_size: int = 50,
        **settings: Any,
    ):
        super().__init__(latent_dim, **settings)
        check_number("cycle_weight", cycle_weight)
        check_number("identity_weight", identity_weight)
        check_number("pool_size", pool_size, whole=True)
        self.cycle_weight, self.identity_weight, self.pool_size = cycle_weight, identity_weight, pool_size

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        networks: dict[str, keras.layers.Layer] = {
            "generator_ab": self.get_generator(),
            "generator_ba": self.get_generator(),
            "discriminator_a": self.get_discriminator(),
            "discriminator_b": self.get_discriminator(),
        }
        for name, network in networks.items():
            check_built(name.partition("_")[0], network)
        if not input_shapes(networks["generator_ab"]):
            raise NetworkError(
                "CycleGAN needs the image size of its generator; make the generator a Sequential or functional model."
            )
        shape = networks["generator_ab"].outputs[0].shape[1:]
        if self.pool_size and None in shape:
            raise NetworkError(
                f"the image pool needs the size of the images, but the generator makes images of shape {tuple(shape)}; "
                "start it with keras.Input((height, width, channels)), or pass pool_size=0."
            )
        return networks | {f"pool_{domain}": ImagePool(self.pool_size, tuple(shape)) for domain in "ab"}

    def forward(
        self, real_images: tf.Tensor, targets: tf.Tensor | None, rng: StepRng, phases: tuple[str, ...]
    ) -> tuple[Losses, Metrics]:
        """Computes losses on `real_images` of domain A and `targets` of domain B, both [B, H, W, C]."""
        real = {"a": real_images, "b": targets}
        fake = {domain: self._translate_to(domain, real[_OTHER[domain]]) for domain in "ab"}
        losses: Losses = {}
        metrics: Metrics = {phase: {} for phase in phases}
        for domain in "ab":
            for output in self._adversarial_losses(domain, real[domain], fake[domain], rng.child(domain), phases):
                for phase, loss in output.losses.items():
                    losses[phase] = losses[phase] + loss if phase in losses else loss
                for phase, values in output.metrics.items():
                    metrics[phase].update({f"{name}_{domain}": value for name, value in values.items()})
        # Every phase has the same forward pass, and so the same rounding. TensorFlow removes what no loss uses.
        reconstruction_losses = self._reconstruction_losses(real, fake)
        if "generator" in phases:
            for name, (term, weight) in reconstruction_losses.items():
                losses["generator"] += weight * term
                metrics["generator"][f"loss/{name}"] = term
        return losses, metrics

    def _translate_to(self, domain: str, images: tf.Tensor) -> tf.Tensor:
        generator = self.networks[f"generator_{_OTHER[domain]}{domain}"]
        return as_fake_images(generator(images, training=True), images)

    def _adversarial_losses(
        self, domain: str, real: tf.Tensor, fake: tf.Tensor, rng: StepRng, phases: tuple[str, ...]
    ) -> Iterator[LossOutput]:
        """The losses of a domain: the discriminator's on fake images from the pool, the generator's on new ones."""
        discriminator = self.networks[f"discriminator_{domain}"]

        def discriminate(images: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
            return discriminator(images, training=True)

        inputs = PassInputs(discriminate, discriminator, (real, None), (fake, None), rng, self.image_range)
        discriminator_phases = tuple(phase for phase in phases if phase != "generator")
        if discriminator_phases:
            # A phase on real images alone leaves the pool as it is, so that each fake image enters it once.
            uses_fake = self.objective.discriminator_update.fake_phase in discriminator_phases
            pooled = self.networks[f"pool_{domain}"](fake, rng.uniform("pool", 2), training=uses_fake)
            yield self.objective(dataclasses.replace(inputs, fake=(pooled, None)), discriminator_phases)
        if "generator" in phases:
            yield self.objective(inputs, ("generator",))

    def _reconstruction_losses(
        self, real: Mapping[str, tf.Tensor], fake: Mapping[str, tf.Tensor]
    ) -> dict[str, tuple[tf.Tensor, float]]:
        """The cycle loss and the identity loss of both domains, float32 [B], with their weights."""
        terms: dict[str, tuple[tf.Tensor, float]] = {}
        for domain in "ab":
            back = self._translate_to(domain, fake[_OTHER[domain]])
            terms[f"cycle_{domain}"] = per_example(tf.abs(back - real[domain])), self.cycle_weight
            if self.identity_weight:
                same = self._translate_to(domain, real[domain])
                terms[f"identity_{domain}"] = per_example(tf.abs(same - real[domain])), self.identity_weight
        return terms

    @property
    def translator(self) -> keras.Model:
        """Generator from domain A to B."""
        return self.ema_network("generator_ab")

    @property
    def _sample_translator(self) -> Sampler:
        return self._samplers["b"]

    def translate(self, images: np.ndarray, domain: str = "b", *, seed: int | None = None) -> np.ndarray:
        """Translates images to a domain.

        Args:
            images: Images [N, H, W, C] of the other domain: uint8, or float in the range of the training images.
            domain: Target domain, `a` or `b`.
            seed: Seed of layers that are random during inference; None for the seed of the run.

        Returns:
            Images uint8 [N, H, W, C].

        Raises:
            ConfigError: If the model is not compiled, or the domain is unknown.
            DataError: If the images have another shape or range than the networks take.
        """
        self.require_compiled()
        check_known("domain", domain, self._samplers)
        return self._samplers[domain](self.image_range, self._as_floats(images), seed=self._resolve_seed(seed))

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns three rows per direction: images, their translations, and the translations back.

        There are fewer columns if a domain has fewer images to show.
        """
        a, b = (self._pixels(images) for images in self._first_grid_images(min(columns, self.num_grid_images)))
        as_b, as_a = self.translate(a, "b"), self.translate(b, "a")
        return tile(np.concatenate([a, as_b, self.translate(as_b, "a"), b, as_a, self.translate(as_a, "b")]), len(a))

    @functools.cached_property
    def _samplers(self) -> dict[str, Sampler]:
        a, b = self.ema_network("generator_ba"), self.ema_network("generator_ab")
        return {
            "a": Sampler(lambda images: a(images, training=False), [a]),
            "b": Sampler(lambda images: b(images, training=False), [b]),
        }

    def make_chunk(self, x: Any, y: Any) -> Chunk:
        if y is None:
            raise DataError("CycleGAN.fit needs two domains; pass images of the other domain as y.")
        domains = {"x": x, "y": y}
        images, image_range = read_images(domains, self.user_range, self.image_range, is_trained=self.is_trained)
        if images[0].shape[1:] != images[1].shape[1:] or images[0].dtype != images[1].dtype:
            raise DataError(
                f"the two domains differ: x is {images[0].dtype} {list(images[0].shape[1:])}, y {images[1].dtype} "
                f"{list(images[1].shape[1:])}; give both the same size, channels and dtype."
            )
        if self.grid_images is None:
            self.set_grid_images(*images)
        return Chunk(images[0], images[1], image_range)

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        expected = input_shapes(self.networks["generator_ab"])[0]
        if not matches(expected, shape):
            raise DataError(f"x has images of shape {shape}, but the generators take {expected}.")
        check_takes_images(self.networks["discriminator_a"], shape)
