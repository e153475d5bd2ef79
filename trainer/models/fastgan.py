"""`FastGAN`: a discriminator that must be able to reconstruct the real images from its maps.

Shapes: `B` images of a replica, `H W C` an image, `h w F` a map.

Source: arXiv 2101.04775, section 3.2.
"""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.errors import NetworkError
from trainer.models.gan import GAN
from trainer.models.objective import LossOutput
from trainer.models.registry import register_model
from trainer.models.validation import per_example
from trainer.networks import NetworkPart
from trainer.networks.fastgan import PART_FEATURES, WHOLE_FEATURES, decoder

_MAX_DECODED_SIDE = 128
_NUM_QUARTERS = 4


@register_model("fastgan")
class FastGAN(GAN):
    """A GAN whose discriminator learns to keep the information of real images.

    One decoder reconstructs the whole image from the discriminator's last map. Another reconstructs a random quarter of
    the image from the same quarter of the map before. Both are updated with the discriminator. The loss is the mean
    absolute difference from what the discriminator sees, after augmentation, averaged to the size of the decoded image:
    the image's, up to 128. The paper uses a perceptual loss, whose network this package does not have.

    Args:
        latent_dim: Number of latent variables, Z. `input_dim` is another name of it.
        reconstruction_weight: Weight of both reconstruction losses. With 0 they are only logged.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If the weight is negative or not a number.
        NetworkError: If the discriminator is not that of the architecture `fastgan`.
    """

    needed_part = NetworkPart.FEATURE_MAPS

    allows_separate_updates = False  # the decoders have no loss in an update without real images

    optimizer_groups: Mapping[str, tuple[str, ...]] = {
        "discriminator": ("discriminator", "whole_decoder", "part_decoder"),
        "generator": ("generator",),
    }

    def __init__(self, latent_dim: int | None = None, *, reconstruction_weight: float = 1.0, **settings: Any):
        super().__init__(latent_dim, **settings)
        check_number("reconstruction_weight", reconstruction_weight)
        self.reconstruction_weight = reconstruction_weight

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        networks = super().get_networks()
        discriminator = _with_maps(networks["discriminator"])
        height, _, channels = discriminator.inputs[0].shape[1:]
        _, (_, *part_shape), (_, *whole_shape) = (output.shape for output in discriminator.outputs)
        part_shape = [part_shape[0] // 2, part_shape[1] // 2, part_shape[2]]
        return networks | {
            name: decoder(name, (shape[0], shape[1], shape[2]), _num_doublings(shape[0], side), channels)
            for name, shape, side in (
                ("whole_decoder", whole_shape, height),
                ("part_decoder", part_shape, height // 2),
            )
        }

    @functools.cached_property
    def _discriminator_with_maps(self) -> keras.Model:
        return _with_maps(self.discriminator)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        """Returns logits of patches [B, h, w, 1], and a dict of the images and of two maps."""
        logits, part, whole = self._discriminator_with_maps(images, training=True)
        return logits, {"images": images, "part": part, "whole": whole}

    def add_losses(self, loss_output: LossOutput, latents: tf.Tensor) -> None:
        phase = self.objective.discriminator_update.real_phase
        if not loss_output.has_phase(phase):
            return
        features = loss_output.real.features
        quarters = loss_output.rng.integers("quarter", _NUM_QUARTERS)
        pairs = {
            "whole": (features["whole"], features["images"]),
            "part": (quarter(features["part"], quarters), quarter(features["images"], quarters)),
        }
        for name, (maps, images) in pairs.items():
            decoded = tf.cast(self.networks[f"{name}_decoder"](maps, training=True), tf.float32)
            difference = per_example(tf.abs(decoded - _average(images, decoded.shape[1:3])))
            loss_output.add(phase, f"reconstruction_{name}", difference, self.reconstruction_weight)


def quarter(maps: tf.Tensor, quarters: tf.Tensor) -> tf.Tensor:
    """Returns a quarter of each map: [B, h, w, F] -> [B, h/2, w/2, F]. h and w are even.

    Args:
        maps: Maps or images.
        quarters: int32 [B]: 0 for top left, 1 for top right, 2 for bottom left, 3 for bottom right.
    """
    height, width, filters = maps.shape[1:]
    blocks = tf.reshape(maps, [-1, 2, height // 2, 2, width // 2, filters])
    blocks = tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4, 5]), [-1, 4, height // 2, width // 2, filters])
    return tf.gather(blocks, quarters, batch_dims=1)


def _average(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Averages images to a size (h, w) that divides theirs: float32 [B, h, w, C]."""
    factor = images.shape[1] // size[0]
    return images if factor == 1 else tf.nn.avg_pool2d(images, factor, factor, "VALID")


def _num_doublings(map_side: int, image_side: int) -> int:
    """Returns how often a map is doubled to the side of an image, or to at most 128."""
    doublings = 0
    while map_side << (doublings + 1) <= min(image_side, max(_MAX_DECODED_SIDE, map_side)):
        doublings += 1
    return doublings


def _with_maps(discriminator: keras.Model) -> keras.Model:
    """Returns a model of the same layers with the outputs (logits, map of the parts, map of the whole image)."""
    layers = {layer.name: layer for layer in getattr(discriminator, "layers", [])}
    if not {PART_FEATURES, WHOLE_FEATURES} <= set(layers):
        raise NetworkError(
            "model=fastgan decodes maps of the discriminator, which this discriminator does not name; use "
            f"architecture=fastgan, or name two layers {PART_FEATURES} and {WHOLE_FEATURES}."
        )
    maps = [layers[name].output for name in (PART_FEATURES, WHOLE_FEATURES)]
    return keras.Model(discriminator.inputs, [discriminator.outputs[0], *maps], name="discriminator_with_maps")
