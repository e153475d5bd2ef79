"""The networks of StyleGAN2: a generator that is controlled by styles, and a residual discriminator.

Shapes: `B` images, `H W C` image shape, `h w` size of the base map, `F` channels of a map, `Z` latent size, `K` label
values, `L` layers that take a style, `W` size of a style.

The generator consists of three parts, which are layers of it with these names:

- `mapping`, [B, Z+K] -> [B, W]: normalizes z to a mean square of 1 and maps it to w with dense layers, whose learning
  rate is a hundredth. A label becomes an embedding of size W, which is normalized and appended to z.
- `styles`, [B, W] -> [B, L, W]: repeats w, and tracks its average.
- `synthesis`, [B, L, W] -> [B, H, W, C]: begins with a learned map [h, w, F]. Each stage has a modulated convolution
  that doubles the map, except for the first stage, and another one, with noise after each. A modulated 1×1 convolution
  makes an image of each map; an image is doubled and added to that of the next stage. The sum is float32.

The discriminator begins with a 1×1 convolution. Its stages are residual blocks of two convolutions, the second of which
halves the map. It ends with the minibatch standard deviation, a convolution, and two dense layers. With labels
(K > 0), it has two inputs, images and one-hot labels, and ends in a projection (arXiv 1802.05637, equation 3). Logits
are float32.

The size of the base map is the image size halved while both sides are even and the smaller one is at least 8.

Differences to the paper: noise in inference is the same for all images, see `NoisyActivation`. The projection adds to
an unconditional logit, and its embedding has no further layers.

Source: arXiv 1912.04958, section 2 and appendix B; arXiv 2006.06676 for the labels in the generator.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers as keras_layers

from trainer.config.fields import check_choice
from trainer.config.image_sizes import check_divisible_by_four, nearest_power_of_two, num_halvings
from trainer.networks.layers import (
    EqualizedConv2D,
    EqualizedDense,
    MinibatchStd,
    ModulatedConv2D,
    NoisyActivation,
    StyleAverage,
)
from trainer.networks.layers.equalized import ACTIVATION_GAIN
from trainer.networks.layers.label_projection import projection_discriminator
from trainer.networks.layers.resampling import filter_maps
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_num_layers, check_positive_ints

MAPPING, STYLES, SYNTHESIS = "mapping", "styles", "synthesis"
"""Names of the generator's parts."""
MINIBATCH_STD = "minibatch_std"
"""Name of the discriminator's layer that computes statistics of a batch."""
_MAPPING_RATE = 0.01


@register_architecture(parts=[NetworkPart.STYLES])
def stylegan2(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    channel_base: int = 1024,
    max_filters: int = 64,
    mapping_layers: int = 2,
    mapping_units: int = 64,
    group_size: int = 4,
    residual: bool = True,
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C] -> logits [B, 1].

    H and W must be divisible by 4. `output_activation` is ignored: the output is linear and learns the images' range.
    The defaults are small. The paper has channel_base=16384 for 256×256 and 32768 for 1024×1024, max_filters=512,
    mapping_layers=8 and mapping_units=512.

    Args:
        channel_base: Number of channels of a map times its side, which is that of a square with as many pixels.
        max_filters: Largest number of channels.
        mapping_layers: Number of dense layers of the mapping.
        mapping_units: Size of a style, W.
        group_size: Number of images in a group of the minibatch standard deviation, which divides the batch of each
            device; 1 for no statistics.
        residual: Whether the discriminator has residual connections.
    """
    check_num_layers(mapping_layers=mapping_layers)
    check_positive_ints(
        channel_base=channel_base, max_filters=max_filters, mapping_units=mapping_units, group_size=group_size
    )
    check_choice("residual", residual, (True, False))
    stages = _stage_filters(image_shape, channel_base, max_filters)
    return {
        "generator": functools.partial(
            _generator, image_shape, latent_dim, condition_size, stages[::-1], mapping_layers, mapping_units
        ),
        "discriminator": functools.partial(
            _discriminator, image_shape, condition_size, stages, group_size, is_residual=residual
        ),
    }


def _stage_filters(image_shape: tuple[int, int, int], channel_base: int, max_filters: int) -> list[int]:
    """Returns the channels of each stage, from the image to the base map."""
    height, width, _ = image_shape
    check_divisible_by_four("stylegan2", height, width)
    side = nearest_power_of_two(height, width)
    num_stages = num_halvings(height, width) + 1
    return [max(1, min(channel_base * 2**stage // side, max_filters)) for stage in range(num_stages)]


def _generator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    stages: Sequence[int],
    mapping_layers: int,
    style_size: int,
) -> keras.Model:
    inputs = keras.Input((latent_dim + condition_size,))
    styles = _mapping(latent_dim, condition_size, mapping_layers, style_size)(inputs)
    styles = StyleAverage(2 * len(stages), name=STYLES)(styles)
    return keras.Model(inputs, _synthesis(image_shape, stages, style_size)(styles), name="generator")


def _mapping(latent_dim: int, condition_size: int, num_layers: int, style_size: int) -> keras.Model:
    settings: dict[str, Any] = {"rate_multiplier": _MAPPING_RATE, "activates": True, "dtype": "float32"}
    inputs = keras.Input((latent_dim + condition_size,))
    hidden = VectorSlice(0, latent_dim, dtype="float32")(inputs) if condition_size else inputs
    hidden = VectorNormalization(dtype="float32")(hidden)
    if condition_size:
        labels = VectorSlice(latent_dim, latent_dim + condition_size, dtype="float32")(inputs)
        embedding = VectorNormalization(dtype="float32")(EqualizedDense(style_size, dtype="float32")(labels))
        hidden = keras_layers.Concatenate(dtype="float32")([hidden, embedding])
    for _ in range(num_layers):
        hidden = EqualizedDense(style_size, **settings)(hidden)
    return keras.Model(inputs, hidden, name=MAPPING)


def _synthesis(image_shape: tuple[int, int, int], stages: Sequence[int], style_size: int) -> keras.Model:
    """Returns the synthesis. Stage `s` has the styles 2s-1, 2s and 2s+1; the last one is shared with the next stage."""
    styles = keras.Input((2 * len(stages), style_size))
    height, width = (size >> (len(stages) - 1) for size in image_shape[:2])
    maps, image = LearnedConstant(height, width, stages[0])(styles), None
    for stage, filters in enumerate(stages):
        for index in (2 * stage - 1, 2 * stage):
            if index >= 0:
                maps = ModulatedConv2D(filters, 3, index, doubles=index % 2 == 1, gain=ACTIVATION_GAIN)([maps, styles])
                maps = NoisyActivation(index, scales_maps=False)(maps)
        added = ModulatedConv2D(image_shape[2], 1, 2 * stage + 1, demodulates=False)([maps, styles])
        image = ImageSum(dtype="float32")([added] if image is None else [added, image])
    return keras.Model(styles, image, name=SYNTHESIS)


def _discriminator(
    image_shape: tuple[int, int, int],
    condition_size: int,
    stages: Sequence[int],
    group_size: int,
    *,
    is_residual: bool,
) -> keras.Model:
    images = keras.Input(image_shape)
    maps = EqualizedConv2D(stages[0], 1)(images)
    for filters, next_filters in itertools.pairwise(stages):
        block = EqualizedConv2D(filters, 3)(maps)
        block = EqualizedConv2D(next_filters, 3, halves=True)(block)
        if is_residual:
            shortcut = EqualizedConv2D(next_filters, 1, halves=True, activates=False)(maps)
            block = ScaledSum()([block, shortcut])
        maps = block
    if group_size > 1:
        maps = MinibatchStd(group_size, name=MINIBATCH_STD)(maps)
    maps = EqualizedConv2D(stages[-1], 3)(maps)
    features = keras_layers.Flatten(dtype="float32")(maps)
    features = EqualizedDense(stages[-1], activates=True, dtype="float32")(features)
    logits = EqualizedDense(1, dtype="float32")(features)
    return projection_discriminator(images, features, logits, condition_size)


@keras.saving.register_keras_serializable("trainer")
class VectorSlice(keras_layers.Layer):
    """Takes the values from `start` to `stop` - 1 of vectors: [B, N] -> [B, stop - start]."""

    def __init__(self, start: int, stop: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs[:, self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable("trainer")
class VectorNormalization(keras_layers.Layer):
    """Scales vectors [B, N] to a mean square of 1."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * tf.math.rsqrt(tf.reduce_mean(tf.square(inputs), axis=1, keepdims=True) + 1e-8)


@keras.saving.register_keras_serializable("trainer")
class LearnedConstant(keras_layers.Layer):
    """Repeats a learned map [h, w, F] for each image of the styles [B, L, W]: [B, h, w, F]."""

    def __init__(self, height: int, width: int, filters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.height, self.width, self.filters = height, width, filters

    def build(self, input_shape: tuple[Any, ...]) -> None:
        initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.map = self.add_weight(shape=(self.height, self.width, self.filters), initializer=initializer, name="map")

    def call(self, styles: tf.Tensor) -> tf.Tensor:
        return tf.repeat(tf.convert_to_tensor(self.map)[tf.newaxis], tf.shape(styles)[0], axis=0)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (input_shape[0], self.height, self.width, self.filters)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"height": self.height, "width": self.width, "filters": self.filters}


@keras.saving.register_keras_serializable("trainer")
class ImageSum(keras_layers.Layer):
    """Adds an image [B, H, W, C] and the doubled image [B, H/2, W/2, C] of the stage before, if there is one."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        if len(inputs) == 1:
            return inputs[0]
        return inputs[0] + filter_maps(inputs[1], 2, 1, (2, 1))

    def compute_output_shape(self, input_shape: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        return input_shape[0]


@keras.saving.register_keras_serializable("trainer")
class ScaledSum(keras_layers.Layer):
    """Adds two maps [B, H, W, F] and preserves their variance."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        return (inputs[0] + inputs[1]) * tf.cast(0.5**0.5, inputs[0].dtype)

    def compute_output_shape(self, input_shape: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        return input_shape[0]
