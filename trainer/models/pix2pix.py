"""`Pix2Pix`: a generator translates an input to an image, learned from pairs of both.

Shapes: `B` images of a replica, `N` pairs, `H W` size, `I` channels of an input, `C` channels of an image.

Source: arXiv 1611.07004.
"""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.data.pipeline.batching import Chunk
from trainer.errors import DataError, NetworkError
from trainer.image_io import as_color, tile
from trainer.models.arrays import as_array, read_images
from trainer.models.discriminator_passes import PassInputs
from trainer.models.registry import register_model
from trainer.models.sampler import Sampler
from trainer.models.translator import ImageTranslator
from trainer.models.validation import as_fake_images, check_built, input_shapes, matches, per_example
from trainer.training.plan import Losses, Metrics
from trainer.training.rng import StepRng


@register_model("pix2pix")
class Pix2Pix(ImageTranslator):
    """Translates inputs to images. Train it with `fit(inputs, images)`, or with `fit(pairs)`.

    `get_generator` is [B, H, W, I] -> [B, H, W, C], and `get_discriminator` [B, H, W, I + C] -> [B, h, w, 1] or [B, 1]:
    it sees an input and, after it along the channels, the image that belongs to it. Both are augmented alike.

    Dropout in the generator is its only noise. It is also active in samples, grids and metrics, as published, so that
    another seed gives other images. `call` and exported models have none, and give one image for each input.

    Args:
        latent_dim: Not used, because there are no latents.
        l1_weight: Weight of the mean absolute difference between an output and its image.
        jitter: Pixels by which both sides of a pair are enlarged before a random part of the original size is cut out;
            30 at 256×256 in the source. 0 for none.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If the weight or the jitter is negative or not a number.
    """

    ignores_labels = True

    def __init__(self, latent_dim: int | None = None, *, l1_weight: float = 100.0, jitter: int = 0, **settings: Any):
        super().__init__(latent_dim, **settings)
        check_number("l1_weight", l1_weight)
        check_number("jitter", jitter, whole=True)
        self.l1_weight, self.jitter = l1_weight, jitter

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        networks = super().get_networks()
        for name, network in networks.items():
            check_built(name, network)
            if len(input_shapes(network)) != 1:
                raise NetworkError(
                    f"{type(self).__name__} needs the image size of its {name}; make it a Sequential or functional "
                    "model with one input."
                )
        return networks

    @property
    def input_channels(self) -> int:
        """Number of channels of an input, I."""
        return int(input_shapes(self.generator)[0][-1])  # type: ignore[arg-type]

    def forward(
        self, real_images: tf.Tensor, labels: tf.Tensor | None, rng: StepRng, phases: tuple[str, ...]
    ) -> tuple[Losses, Metrics]:
        """Computes losses on pairs `real_images` [B, H, W, I + C]; labels are not used."""
        pairs = enlarge_and_crop(real_images, self.jitter, rng.child("jitter")) if self.jitter else real_images
        inputs, images = pairs[..., : self.input_channels], pairs[..., self.input_channels :]
        outputs = as_fake_images(self.generator(inputs, training=True), images)
        fake = tf.concat([inputs, outputs], axis=-1)
        pass_inputs = PassInputs(
            self.discriminate,
            self.discriminator,
            (pairs, None),
            (fake, None),
            rng,
            self.image_range,
            channels_of_parts=(inputs.shape[-1], images.shape[-1]),
        )
        losses = self.objective(pass_inputs, phases)
        # Every phase has the same forward pass, and so the same rounding. TensorFlow removes what no loss uses.
        losses.add("generator", "l1", per_example(tf.abs(outputs - images)), self.l1_weight)
        return losses.losses, losses.metrics

    @property
    def translator(self) -> keras.Model:
        """Generator that samples use."""
        return self.ema_generator

    @functools.cached_property
    def _sample_translator(self) -> Sampler:
        generator = self.translator
        return Sampler(lambda inputs: generator(inputs, training=True), [generator])

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """Returns rows of inputs, their outputs, and the images that belong to them.

        Inputs and images have the same number of channels in the grid. There are fewer columns if there are fewer pairs
        to show, and at most a third of `rows` blocks of three rows, but at least one.
        """
        inputs, images = self._first_grid_images(min(columns * max(1, rows // 3), self.num_grid_images))
        parts = [inputs := self._pixels(inputs), self.translate(inputs), self._pixels(images)]
        parts = [as_color(part) for part in parts] if len({part.shape[-1] for part in parts}) > 1 else parts
        blocks = [part[start : start + columns] for start in range(0, len(inputs), columns) for part in parts]
        width = len(blocks[0])
        return tile(np.concatenate([_pad(block, width) for block in blocks]), width)

    def make_chunk(self, x: Any, y: Any) -> Chunk:
        has_images = y is not None and as_array(y, "y").ndim > 2
        arrays = {"x": x, "y": y} if has_images else {"x": x}
        domains, image_range = read_images(arrays, self.user_range, self.image_range, is_trained=self.is_trained)
        if has_images:
            self._check_pairs(*domains)
        pairs = np.concatenate(domains, axis=-1) if has_images else domains[0]
        if self.grid_images is None:
            self.set_grid_images(*np.split(pairs, [self.input_channels], axis=-1))
        return Chunk(pairs, None, image_range)

    def _check_pairs(self, inputs: np.ndarray, images: np.ndarray) -> None:
        if inputs.shape[:-1] != images.shape[:-1] or inputs.dtype != images.dtype:
            raise DataError(
                f"x is {inputs.dtype} {list(inputs.shape)} and y {images.dtype} {list(images.shape)}; pass an input as "
                "x for each image of y, of the same size and dtype."
            )

    def check_image_shape(self, shape: tuple[int, ...]) -> None:
        expected = input_shapes(self.discriminator)[0]
        if not matches(expected, shape):
            raise DataError(
                f"x and y have pairs of shape {shape}, but the discriminator takes {expected}, with "
                f"{self.input_channels} channels of the input first."
            )


def enlarge_and_crop(images: tf.Tensor, num_pixels: int, rng: StepRng) -> tf.Tensor:
    """Enlarges images by some pixels on both sides, and cuts out a random part of the original size.

    Args:
        images: float32 [B, H, W, C].
        num_pixels: Pixels to enlarge by, more than 0.
        rng: Random numbers of the step.

    Returns:
        float32 [B, H, W, C].
    """
    height, width = images.shape[1:3]
    images = tf.image.resize(images, (height + num_pixels, width + num_pixels))
    for axis, size in ((1, height), (2, width)):
        start = rng.integers(f"axis_{axis}", num_pixels + 1)
        images = tf.gather(images, start[:, tf.newaxis] + tf.range(size), axis=axis, batch_dims=1)
    return images


def _pad(images: np.ndarray, num_images: int) -> np.ndarray:
    """Appends black images up to a number of images."""
    return np.pad(images, [(0, num_images - len(images)), (0, 0), (0, 0), (0, 0)])
