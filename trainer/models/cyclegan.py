"""`CycleGAN`: two generators translate images between two domains without pairs.

Legend: `B` images of a replica, `H W C` an image of either domain, `P` patches.

Source: arXiv 1703.10593.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.errors import DataError, NetworkError, count_of
from trainer.image_io import tile
from trainer.models.arrays import as_images, read_images
from trainer.models.gan import GAN
from trainer.models.objective import LossOutput
from trainer.models.sampler import Function, Sampler, as_bytes
from trainer.models.validation import check_built, check_same_shape, input_shapes, per_example
from trainer.networks.layers import ImagePool
from trainer.training.plan import Losses, Metrics
from trainer.training.rng import StepRng

_OTHER = {"a": "b", "b": "a"}

_NUM_GRID_IMAGES = 100
"""Number of images of each domain that grids and samples translate."""


class CycleGAN(GAN):
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
        has_default = latent_dim is None and settings.get("input_dim") is None
        super().__init__(1 if has_default else latent_dim, **settings)
        check_number("cycle_weight", cycle_weight)
        check_number("identity_weight", identity_weight)
        check_number("pool_size", pool_size, whole=True)
        self.cycle_weight, self.identity_weight, self.pool_size = cycle_weight, identity_weight, pool_size
        self.grid_images: tuple[np.ndarray, np.ndarray] | None = None

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
        return networks | {f"pool_{domain}": ImagePool(self.pool_size, tuple(shape)) for domain in "ab"}

    def forward(
        self, real_images: tf.Tensor, targets: tf.Tensor | None, rng: StepRng, phases: tuple[str, ...]
    ) -> tuple[Losses, Metrics]:
        """Computes losses on `real_images` of domain A and `targets` of domain B, both [B, H, W, C]."""
        real = {"a": real_images, "b": targets}
        fake = {domain: self._translate_to(domain, real[_OTHER[domain]]) for domain in "ab"}
        check_same_shape(fake["b"], real_images)
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
        return tf.cast(generator(images, training=True), tf.float32)

    def _adversarial_losses(
        self, domain: str, real: tf.Tensor, fake: tf.Tensor, rng: StepRng, phases: tuple[str, ...]
    ) -> Iterator[LossOutput]:
        """The losses of a domain: the discriminator's on fake images from the pool, the generator's on new ones."""
        discriminator = self.networks[f"discriminator_{domain}"]

        def discriminate(images: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
            return discriminator(images, training=True)

        discriminator_phases = tuple(phase for phase in phases if phase != "generator")
        if discriminator_phases:
            pooled = self.networks[f"pool_{domain}"](fake, rng.uniform("pool", 2), training=True)
            yield self.objective(discriminate, discriminator, (real, None), (pooled, None), rng, discriminator_phases)
        if "generator" in phases:
            yield self.objective(discriminate, discriminator, (real, None), (fake, None), rng, ("generator",))

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

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Translates images [B, H, W, C] of domain A to domain B."""
        return self.ema_network("generator_ab")(images, training=training)

    def sample(self, num_images: int, *, labels: Any = None, seed: int | None = None) -> tuple[np.ndarray, Any]:
        """Translates the first training images of domain A to domain B.

        Returns:
            Images uint8 [N, H, W, C], and None.

        Raises:
            DataError: If there are fewer images, or labels were passed.
        """
        self.labels_to_sample(num_images, labels)
        return self._samplers["b"](self.image_range, self._floats_to_sample(num_images)), None

    def sample_features(self, num_images: int, function: Function) -> tuple[tuple[np.ndarray, ...], None]:
        strategy, floats = self.compiled_state.strategy, self._floats_to_sample(num_images)
        return self._samplers["b"].outputs(function, strategy, self.image_range, floats), None

    def _floats_to_sample(self, num_images: int) -> np.ndarray:
        """Returns the images to translate in `image_range`: float32 [N, H, W, C]."""
        self.require_compiled()
        check_number("num_images", num_images, whole=True, minimum=1)
        return self._as_floats(self._to_show(num_images)[0])

    def translate(self, images: np.ndarray, domain: str) -> np.ndarray:
        """Translates images to a domain.

        Args:
            images: Images [N, H, W, C] of the other domain: uint8, or float in the range of the training images.
            domain: Target domain, `a` or `b`.

        Returns:
            Images uint8 [N, H, W, C].
        """
        self.require_compiled()
        return self._samplers[domain](self.image_range, self._as_floats(images))

    def _as_floats(self, images: np.ndarray) -> np.ndarray:
        (images,), _ = read_images({"images": images}, self.image_range, self.image_range)
        return np.asarray(Chunk(images, None, self.image_range).as_floats(images))

    def show(self, x: Any, y: Any) -> None:
        """Sets the images of the two domains that grids and samples translate: the first ones of `x` and `y`."""
        self.grid_images = as_images(x)[:_NUM_GRID_IMAGES], as_images(y)[:_NUM_GRID_IMAGES]

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns three rows per direction: images, their translations, and the translations back.

        There are fewer columns if a domain has fewer images to show.
        """
        a, b = (self._pixels(images) for images in self._to_show(min(columns, self.num_images_to_show)))
        as_b, as_a = self.translate(a, "b"), self.translate(b, "a")
        return tile(np.concatenate([a, as_b, self.translate(as_b, "a"), b, as_a, self.translate(as_a, "b")]), len(a))

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return images if images.dtype == np.uint8 else as_bytes(images, self.image_range).numpy()

    def _to_show(self, num_images: int) -> tuple[np.ndarray, np.ndarray]:
        if self.grid_images is None:
            raise DataError("CycleGAN has no images to translate; call show(images_a, images_b) or fit first.")
        if self.num_images_to_show < num_images:
            raise DataError(
                f"num_images={num_images} is more than the {count_of(self.num_images_to_show, 'image')} to show; pass "
                "fewer."
            )
        a, b = self.grid_images
        return a[:num_images], b[:num_images]

    @property
    def num_images_to_show(self) -> int:
        """Number of images of each domain that grids and samples can translate."""
        return min(map(len, self.grid_images or ()), default=0)

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
        images, image_range = read_images(
            {"x": x, "y": y}, self.stated_range, self.image_range, is_trained=self.step > 0
        )
        if images[0].shape[1:] != images[1].shape[1:] or images[0].dtype != images[1].dtype:
            raise DataError(
                f"the two domains differ: x is {images[0].dtype} {list(images[0].shape[1:])}, y {images[1].dtype} "
                f"{list(images[1].shape[1:])}; give both the same size, channels and dtype."
            )
        self.show(*images)
        return Chunk(images[0], images[1], image_range)

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        expected = input_shapes(self.networks["generator_ab"])[0]
        if expected != shape:
            raise DataError(f"x has images of shape {shape}, but the generators take {expected}.")
