"""`StyleGAN2` and its conditional form: style mixing, path length regularization, and truncation in W.

Shapes: `B` images of a replica, `H W C` an image, `Z` latent size, `K` classes, `L` layers that take a style,
`W` size of a style.

Sources: arXiv 1912.04958, sections 3.2 and 5; arXiv 1812.04948, section 3.1 for mixing and appendix B for truncation.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.fields import check_number
from trainer.errors import DataError, NetworkError
from trainer.models.conditional import ConditionalGAN
from trainer.models.gan import GAN
from trainer.models.registry import register_model
from trainer.models.sampler import Sampler
from trainer.models.validation import check_takes_latents
from trainer.networks import NetworkPart
from trainer.networks.stylegan2 import MAPPING, STYLES, SYNTHESIS
from trainer.training.plan import Losses, Metrics
from trainer.training.rng import StepRng
from trainer.training.step import discarded_updates

_PATH_LENGTH_DECAY = 0.01
"""Share of a batch in the moving average of path lengths."""


@register_model("stylegan2")
class StyleGAN2(GAN):
    """A GAN whose generator maps latents to styles, as that of `architecture=stylegan2` does.

    The generator has the layers `mapping`, [B, Z] -> [B, W], `styles`, [B, W] -> [B, L, W], and `synthesis`,
    [B, L, W] -> [B, H, W, C].

    Latents of samples have the size Z+1. The last number is the truncation psi, which moves all styles of an image to
    `average + psi * (w - average)`; it is 1 for no truncation.

    Args:
        latent_dim: Number of latent variables, Z. `input_dim` is another name of it.
        style_mixing: Probability that a training image gets its styles from two latents, with a random layer at which
            the second one begins.
        path_length_weight: Weight of the path length regularization; 0 for none.
        path_length_every_steps: Steps from one regularization to the next. With a value of k, it has k times its
            weight, and a run corrects the generator's learning rate and betas by k/(k+1). It uses half as many images
            as a global batch has, or all if their number is odd.
        **settings: Arguments of `GAN`.

    Raises:
        ConfigError: If a number is out of range.
    """

    needed_part = NetworkPart.STYLES

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        style_mixing: float = 0.9,
        path_length_weight: float = 2.0,
        path_length_every_steps: int = 4,
        **settings: Any,
    ):
        super().__init__(latent_dim, **settings)
        check_number("style_mixing", style_mixing, maximum=1)
        check_number("path_length_weight", path_length_weight)
        check_number("path_length_every_steps", path_length_every_steps, whole=True, minimum=1)
        self.style_mixing, self.path_length_weight = style_mixing, path_length_weight
        self.path_length_every_steps = path_length_every_steps

    @property
    def latent_size(self) -> int:
        """Size of latents and truncation, Z + 1."""
        return self.latent_dim + 1

    @property
    def network_latent_size(self) -> int:
        """Size of the latents that the mapping takes, Z."""
        return self.latent_dim

    @property
    def generator_penalty_every_steps(self) -> int:
        """Steps from one path length regularization to the next; 1 if there is none."""
        return self.path_length_every_steps if self.path_length_weight else 1

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        networks = super().get_networks()
        missing = {MAPPING, STYLES, SYNTHESIS}.difference(
            layer.name for layer in getattr(networks["generator"], "layers", [])
        )
        if missing:
            raise NetworkError(
                f"{type(self).__name__} needs a generator with the layers {MAPPING}, {STYLES} and {SYNTHESIS}, and "
                f"this one has no {' and no '.join(sorted(missing))}; choose architecture=stylegan2, or model=gan or "
                "conditional."
            )
        return networks

    def sample_latents(self, rng: StepRng) -> tf.Tensor:
        """Returns latents float32 [B, Z+1], without truncation."""
        latents = super().sample_latents(rng)
        return tf.concat([latents, tf.ones_like(latents[:, :1])], axis=1)

    def truncate(self, latents: tf.Tensor, psi: tf.Tensor | float) -> tf.Tensor:
        """Multiplies the truncation of latents [N, Z+1] by `psi`, a number in [0, 1] or a tensor [N, 1]."""
        return tf.concat([latents[:, : self.latent_dim], latents[:, self.latent_dim :] * psi], axis=1)

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        """Returns images [B, H, W, C] for latents [B, Z] or [B, Z+1], and labels as integers or weights of classes."""
        styles = self._styles(network, latents, labels, training)
        return network.get_layer(SYNTHESIS)(styles, training=training)

    def generate_for_training(self, latents: tf.Tensor, labels: tf.Tensor | None, rng: StepRng) -> tf.Tensor:
        """Returns fake images [B, H, W, C], some with styles of two latents. It moves the average of w."""
        styles = self._mixed_styles(latents, labels, rng, tracks_average=True)
        return self.generator.get_layer(SYNTHESIS)(styles, training=True)

    def forward(
        self, real_images: tf.Tensor, labels: tf.Tensor | None, rng: StepRng, phases: tuple[str, ...]
    ) -> tuple[Losses, Metrics]:
        losses, metrics = super().forward(real_images, labels, rng, phases)
        if "generator" in losses and self.path_length_weight:
            penalty = self._path_length_penalty(rng.child("path_length"))
            losses["generator"] += self.path_length_weight * penalty
            metrics["generator"]["penalty/path_length"] = penalty
        return losses, metrics

    def mix_styles(
        self,
        latents: tuple[np.ndarray, np.ndarray],
        labels: tuple[Any, Any] = (None, None),
        num_coarse: int | None = None,
    ) -> np.ndarray:
        """Returns images with the coarse styles of one image and the fine styles of another one.

        Args:
            latents: Latents of the coarse and of the fine styles, float32 [N, Z+1] each.
            labels: For conditional models, labels of both, as for `images_from`.
            num_coarse: Number of layers with coarse styles, from 0 to L; None for half of them.

        Returns:
            Images uint8 [N, H, W, C].

        Raises:
            ConfigError: If the model is not compiled, or `num_coarse` is out of range.
            DataError: If the latents are no two arrays of one size; or as for `images_from`.
        """
        mixer = self.style_mixer(num_coarse)
        arrays = [self._as_latents(array) for array in latents]
        if [len(array) for array in arrays] != [len(arrays[0])] * 2:
            raise DataError(
                f"latents have the shapes {', '.join(str(array.shape) for array in arrays)}; pass a pair of arrays of "
                "the same shape, for the coarse and for the fine styles."
            )
        pairs = zip(arrays, labels, strict=True)
        return mixer(self.image_range, *arrays, *(self._labels_for(*pair) for pair in pairs), seed=self.seed)

    def style_mixer(self, num_coarse: int | None = None) -> Sampler:
        """Returns the sampler of `mix_styles`, which takes coarse latents, fine latents, and the labels of both.

        Raises:
            ConfigError: As for `mix_styles`.
        """
        self.require_compiled()
        num_styles = self.num_styles
        count = num_styles // 2 if num_coarse is None else num_coarse
        check_number("num_coarse", count, whole=True, maximum=num_styles)
        network = self.ema_generator

        def generate(
            coarse: tf.Tensor, fine: tf.Tensor, coarse_labels: tf.Tensor | None, fine_labels: tf.Tensor | None
        ) -> tf.Tensor:
            parts = [
                self._styles(network, coarse, coarse_labels)[:, :count],
                self._styles(network, fine, fine_labels)[:, count:],
            ]
            return network.get_layer(SYNTHESIS)(tf.concat(parts, axis=1), training=False)

        return Sampler(generate, self.networks.values())

    @property
    def num_styles(self) -> int:
        """Number of layers that take a style, L."""
        return int(self.generator.get_layer(STYLES).num_styles)

    def _styles(
        self, network: keras.Model, latents: tf.Tensor, labels: tf.Tensor | None, training: bool = False
    ) -> tf.Tensor:
        """Returns the styles [B, L, W] of latents [B, Z] or [B, Z+1]. In training, it moves the average of w."""
        inputs, psi = latents[:, : self.latent_dim], latents[:, self.latent_dim :]
        if labels is not None:
            inputs = keras.ops.concatenate([inputs, self._label_weights(labels)], axis=1)
        mapping = network.get_layer(MAPPING)
        check_takes_latents(mapping, inputs.shape[-1])
        styles = network.get_layer(STYLES)
        w = mapping(inputs, training=training)
        return styles(w, psi, training=training) if psi.shape[-1] else styles(w, training=training)

    def _label_weights(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns weights of classes, float32 [B, K]; one-hot for integers."""
        is_integer = "int" in keras.backend.standardize_dtype(labels.dtype)
        return keras.ops.one_hot(labels, self.num_classes, dtype="float32") if is_integer else labels

    def _mixed_styles(
        self, latents: tf.Tensor, labels: tf.Tensor | None, rng: StepRng, *, tracks_average: bool
    ) -> tf.Tensor:
        """Returns the styles of training images, [B, L, W]. Those from a random layer on may be of other latents."""
        styles = self._styles(self.generator, latents, labels, tracks_average)
        if not self.style_mixing:
            return styles
        rng = rng.child("mixing")
        second_styles = self._styles(self.generator, self.sample_latents(rng), labels)
        num_styles = self.num_styles
        is_mixed = rng.uniform("mixed", 1)[:, 0] < self.style_mixing
        first_mixed = tf.where(is_mixed, 1 + rng.integers("layers", num_styles - 1), num_styles)
        is_first = tf.range(num_styles) < first_mixed[:, tf.newaxis]
        return tf.where(is_first[..., tf.newaxis], styles, second_styles)

    def _path_length_penalty(self, rng: StepRng) -> tf.Tensor:
        """Returns the squared deviation of path lengths from their moving average: float32 [B].

        In a step without regularization it is 0, and in others it is multiplied by their distance, so that its mean
        over steps is that of the deviation. The moving average is that of earlier steps, because the mean of this batch
        would depend on the number of replicas.
        """
        every, layer = self.path_length_every_steps, self.generator.get_layer(STYLES)
        stride = 1 if rng.num_samples % 2 else 2
        is_due = tf.equal(rng.step % every, 0)
        weights = self._path_length_weights(rng, stride)
        zeros = tf.zeros_like(weights)
        lengths = tf.cond(is_due, lambda: self._path_lengths(rng, stride), lambda: zeros)
        mean = tf.convert_to_tensor(layer.path_length_mean)
        moved = mean + _PATH_LENGTH_DECAY * (tf.reduce_mean(weights * tf.stop_gradient(lengths)) - mean)
        layer.path_length_mean.assign(tf.where(is_due, moved, mean))
        penalty = tf.where(is_due, weights * tf.square(lengths - mean), zeros) * float(every)
        return tf.repeat(penalty, stride)

    def _path_length_weights(self, rng: StepRng, stride: int) -> tf.Tensor:
        """Returns the weights of the path lengths, float32 [B / stride]. Their mean over the global batch is 1.

        Of an even number of images in the global batch, the penalty uses every second one. If a replica has an odd
        number of them, it measures all, and those that the penalty does not use have the weight 0. The penalty is thus
        the same on any number of replicas.
        """
        if stride == 2 or rng.num_samples * self.compiled_state.strategy.num_replicas_in_sync % 2:
            return tf.ones([rng.num_samples // stride])
        return 2.0 * tf.cast(rng.indices % 2 == 0, tf.float32)

    def _path_lengths(self, rng: StepRng, stride: int) -> tf.Tensor:
        """Returns the path lengths of every `stride`-th of B new images, float32 [B / stride]."""
        with discarded_updates(self.generator):
            latents, labels = self.sample_latents(rng), self.sample_labels(rng)
            styles = self._mixed_styles(latents, labels, rng, tracks_average=False)[::stride]
            synthesis = self.generator.get_layer(SYNTHESIS)
            shape = synthesis.output_shape[1:]
            directions = tf.reshape(rng.normal("directions", int(np.prod(shape)))[::stride], [-1, *shape])
            return path_lengths(lambda styles: synthesis(styles, training=True), styles, directions)


@register_model("stylegan2_conditional")
class ConditionalStyleGAN2(StyleGAN2, ConditionalGAN):
    """`StyleGAN2` with labels.

    The mapping takes [B, Z+K]: latents, then the one-hot label or the conditions. The discriminator takes labels in one
    of the forms of `ConditionalGAN`.
    """

    def _label_weights(self, labels: tf.Tensor) -> tf.Tensor:
        return super()._label_weights(self._with_conditions(labels))


def path_lengths(synthesis: Any, styles: tf.Tensor, directions: tf.Tensor) -> tf.Tensor:
    """Returns the change of images in random directions per change of their styles: float32 [B].

    It is the root mean square over layers of the norm of the gradient of `sum(images * directions) / sqrt(H * W)`.

    Args:
        synthesis: Function of styles that returns images [B, H, W, C].
        styles: Styles float32 [B, L, W].
        directions: Random numbers N(0, 1), float32 [B, H, W, C].
    """
    _, height, width, _ = directions.shape
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(styles)
        images = tf.cast(synthesis(styles), tf.float32)
        products = tf.reduce_sum(images * directions) * (height * width) ** -0.5
    squares = tf.reduce_sum(tf.square(tape.gradient(products, styles)), axis=2)
    return tf.sqrt(tf.reduce_mean(squares, axis=1) + 1e-12)  # the square root of 0 has no gradient
