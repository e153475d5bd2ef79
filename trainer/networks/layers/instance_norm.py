"""Instance normalization: every image and channel is normalized by its own mean and variance.

Legend: `B` images, `H W` map, `C` channels.
"""

import keras
import tensorflow as tf
from keras import layers

_MAX_FUSED_IMAGES = 8
_MIN_FUSED_ELEMENTS = 1 << 16


@keras.saving.register_keras_serializable("trainer")
class InstanceNormalization(layers.Layer):
    """Normalizes each channel of each image over its map, then scales and offsets it by learned numbers a channel.

    Takes [B, H, W, C] and gives the same shape. All is computed in float32, whatever the layer's compute type; there
    are no moving moments, so training and inference are the same. A 1×1 map becomes the offset: put no layer on one.

    Scale starts at 1 and offset at 0, so that a new layer is the published one without learned numbers.

    On maps that are worth a kernel call each, every image of a small batch goes through TensorFlow's fused batch
    normalization; other batches take one pass of plain operations. Both agree to the rounding of float32.

    Source: arXiv 1607.08022, equation 2.

    Args:
        epsilon: Added to the variance.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: object):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1],)
        self.scale = self.add_weight(shape=shape, initializer="ones", name="scale", autocast=False)
        self.offset = self.add_weight(shape=shape, initializer="zeros", name="offset", autocast=False)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"epsilon": self.epsilon}

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        images = tf.cast(inputs, tf.float32)
        scale, offset = (keras.ops.convert_to_tensor(weight) for weight in (self.scale, self.offset))
        normalize = _fused if _is_worth_kernels(images.shape) else _plain
        return tf.cast(normalize(images, scale, offset, self.epsilon), inputs.dtype)


def _is_worth_kernels(shape: tf.TensorShape) -> bool:
    if None in shape:
        return False
    num_images, *of_image = shape
    return num_images == 1 or (
        num_images <= _MAX_FUSED_IMAGES and tf.TensorShape(of_image).num_elements() >= _MIN_FUSED_ELEMENTS
    )


def _fused(images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    """A batch normalization of each image alone: the batch of one image is the image."""
    nothing = tf.zeros([0])
    normalized = [
        tf.raw_ops.FusedBatchNormV3(
            x=image, scale=scale, offset=offset, mean=nothing, variance=nothing, epsilon=epsilon, is_training=True
        ).y
        for image in tf.split(images, images.shape[0])
    ]
    return tf.concat(normalized, axis=0)


def _plain(images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    mean, variance = tf.nn.moments(images, axes=[1, 2], keepdims=True)
    factor = scale * tf.math.rsqrt(variance + epsilon)
    return images * factor + (offset - mean * factor)
