"""`CycleGAN`: two generators translate between two domains without pairs, and back again.

Legend: `B` images a replica, `H W C` an image of either domain, `P` patches.

Source: arXiv 1703.10593.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.architectures.image_pool import ImagePool
from trainer.data.windows import Window
from trainer.engine.randomness import Noise
from trainer.engine.step import Losses, Metrics
from trainer.errors import DataError, NetworkError
from trainer.gans.base import GAN
from trainer.gans.checks import as_images, check_built, check_same_shape, input_shapes, per_example
from trainer.gans.objective import Outcome
from trainer.gans.sampling import Sampler, as_bytes
from trainer.images import tile
from trainer.settings import check_number

_SHOWN = 100
"""Images of each domain that grids and samples translate."""


class CycleGAN(GAN):
    """Translates images of a domain A into a domain B and back; `fit(images_a, images_b)`.

    `get_generator` [B, H, W, C] -> [B, H, W, C] and `get_discriminator` [B, H, W, C] -> [B, h, w, 1] or [B, 1] are
    called once for each direction. Discriminators see fakes out of a pool of earlier ones. Losses and cycle errors are
    logged for each direction.

    Args:
        latent_dim: Not used; there is no noise.
        cycle_weight: Of the mean absolute difference between an image and its way there and back.
        identity_weight: Of the mean absolute difference between an image and what the generator that leads to its
            own domain makes of it; 0 spares that pass.
        pool_size: Fake images remembered a domain; 0 for none.
        **settings: As of `GAN`.

    Raises:
        ConfigError: A weight or the pool is negative, or no number.
    """

    owners: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator_a", "discriminator_b", "pool_a", "pool_b"),
        "generator": ("generator_ab", "generator_ba"),
    }
    averaged = ("generator_ab", "generator_ba")

    def __init__(
        self,
        latent_dim: int = 1,
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
        self.shown: tuple[np.ndarray, np.ndarray] | None = None

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
                "CycleGAN reads the size of its images off the generator, which therefore must be a Sequential or "
                "functional model."
            )
        shape = networks["generator_ab"].outputs[0].shape[1:]
        return networks | {f"pool_{domain}": ImagePool(self.pool_size, tuple(shape)) for domain in "ab"}

    def forward(self, real_images: tf.Tensor, targets: tf.Tensor | None, noise: Noise) -> tuple[Losses, Metrics]:
        """One forward pass on `real_images` of domain A and `targets` of domain B, both [B, H, W, C]."""
        real = {"a": real_images, "b": targets}
        towards = {"a": self.networks["generator_ba"], "b": self.networks["generator_ab"]}
        other = {"a": "b", "b": "a"}

        def translated(images: tf.Tensor, domain: str) -> tf.Tensor:
            return tf.cast(towards[domain](images, training=True), tf.float32)

        fake = {domain: translated(real[other[domain]], domain) for domain in "ab"}
        check_same_shape(fake["b"], real_images)
        outcomes = {domain: self._judge(domain, real[domain], fake[domain], noise.child(domain)) for domain in "ab"}
        whole = _together(outcomes)
        for domain in "ab":
            back = translated(fake[other[domain]], domain)
            whole.add("generator", f"cycle_{domain}", _distance(back, real[domain]), self.cycle_weight)
            if self.identity_weight:
                same = translated(real[domain], domain)
                whole.add("generator", f"identity_{domain}", _distance(same, real[domain]), self.identity_weight)
        return whole.losses, whole.metrics

    def _judge(self, domain: str, real: tf.Tensor, fake: tf.Tensor, noise: Noise) -> Outcome:
        """The adversarial losses of a domain; the discriminator's are on fakes out of the pool."""
        discriminator = self.networks[f"discriminator_{domain}"]

        def discriminate(images: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
            return discriminator(images, training=True)

        pooled = self.networks[f"pool_{domain}"](fake, noise.uniform("pool", 2), training=True)
        outcome = self.objective(discriminate, discriminator, (real, None), (pooled, None), noise)
        outcome.losses["generator"] = self.objective.of_generator(discriminate, (real, None), (fake, None), noise)
        return outcome

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images of domain A [B, H, W, C] as images of domain B."""
        return self.best_of("generator_ab")(images, training=training)

    def sample(self, num_images: int, *, labels: Any = None, seed: int | None = None) -> tuple[np.ndarray, Any]:
        """The first images of domain A as images of domain B: uint8 [N, H, W, C], and None.

        Raises:
            DataError: There are not so many, or labels were given.
        """
        self._check_compiled("sample")
        self._labels_to_sample(num_images, labels)
        images, _ = self._to_show(num_images)
        return self.translate(images, "b"), None

    def translate(self, images: np.ndarray, domain: str) -> np.ndarray:
        """Images [N, H, W, C] of the other domain as images of `domain`, `a` or `b`: uint8 [N, H, W, C].

        Args:
            images: uint8, or float in the range of those that the model was trained on.
            domain: What they become.
        """
        self._check_compiled("translate")
        images = as_images(images)
        floats = Window(images, None, self.image_range).as_floats(images)
        return self._samplers[domain](self.image_range, floats)

    def show(self, x: Any, y: Any) -> None:
        """Says which images of the two domains grids and samples translate: the first ones of `x` and `y`."""
        self.shown = as_images(x)[:_SHOWN], as_images(y)[:_SHOWN]

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Three rows for each direction: images of A, as B, and back as A; then images of B, as A, and back as B."""
        a, b = (self._pixels(images) for images in self._to_show(min(columns, _SHOWN)))
        as_b, as_a = self.translate(a, "b"), self.translate(b, "a")
        return tile(np.concatenate([a, as_b, self.translate(as_b, "a"), b, as_a, self.translate(as_a, "b")]), len(a))

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return images if images.dtype == np.uint8 else as_bytes(images, self.image_range).numpy()

    def _to_show(self, num_images: int) -> tuple[np.ndarray, np.ndarray]:
        if self.shown is None:
            raise DataError("CycleGAN has no images to translate; call show(images_a, images_b) or fit first.")
        a, b = (images[:num_images] for images in self.shown)
        if min(len(a), len(b)) < num_images:
            raise DataError(f"{num_images} images are asked for, and the domains have {len(a)} and {len(b)} to show.")
        return a, b

    def _build_networks(self, optimizer: Any) -> None:
        super()._build_networks(optimizer)
        self._samplers = {
            "a": Sampler(lambda images: self.best_of("generator_ba")(images, training=False)),
            "b": Sampler(lambda images: self.best_of("generator_ab")(images, training=False)),
        }

    def _window(self, x: Any, y: Any) -> Window:
        if y is None:
            raise DataError("CycleGAN.fit needs two domains; pass images of the other one as y.")
        images = as_images(x), as_images(y)
        if images[0].shape[1:] != images[1].shape[1:] or images[0].dtype != images[1].dtype:
            raise DataError(
                f"the two domains differ: x is {images[0].dtype} {list(images[0].shape[1:])}, y {images[1].dtype} "
                f"{list(images[1].shape[1:])}; give both the same size, channels and type."
            )
        window = super()._window(images[0], None)
        self.show(*images)
        return dataclasses.replace(window, targets=images[1])

    def _check_image_shape(self, shape: tuple[int, ...]) -> None:
        expected = input_shapes(self.networks["generator_ab"])[0]
        if expected != shape:
            raise DataError(f"x has images of shape {shape} where the generators take {expected}.")


def _distance(images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference: float32 [B]."""
    return per_example(tf.abs(images - others))


def _together(outcomes: dict[str, Outcome]) -> Outcome:
    """The outcomes of both domains as one: losses summed, metrics under names that end in the domain."""
    first, second = outcomes.values()
    losses = {phase: first.losses[phase] + second.losses[phase] for phase in first.losses}
    metrics: Metrics = {"generator": {}}
    for domain, outcome in outcomes.items():
        for phase, values in outcome.metrics.items():
            metrics.setdefault(phase, {}).update({f"{name}_{domain}": value for name, value in values.items()})
    return Outcome(losses, metrics, first.real, first.fake)
