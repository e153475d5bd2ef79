"""Instance normalization: each channel of each image is normalized by its own mean and variance.

Shapes: `B` images, `H W` map size, `C` channels.
"""

import keras
import tensorflow as tf
from keras import layers

_MAX_FUSED_IMAGES = 8
_MIN_FUSED_ELEMENTS = 1 << 16


@keras.saving.register_keras_serializable("trainer")
class InstanceNormalization(layers.Layer):
    """Normalizes each channel of each image over its map, then applies a learned scale and offset per channel.

    Takes [B, H, W, C] and returns the same shape. Moments, scale, and offset are float32, regardless of the layer's
    compute type. There are no moving moments, so training and inference are the same. A 1×1 map becomes the offset, so
    do not apply the layer to one.

    The scale starts at 1 and the offset at 0, so a new layer equals the published one without learned parameters.

    In a small batch of large maps, each image goes through TensorFlow's fused batch normalization; other batches use
    plain operations. Both give the same result up to float32 rounding.

    Source: arXiv 1607.08022, equation 2.

    Args:
        epsilon: Number added to the variance.
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
        is_fused = _uses_fused_kernel(inputs.shape)
        images = inputs if is_fused and inputs.dtype == tf.bfloat16 else tf.cast(inputs, tf.float32)
        scale, offset = (keras.ops.convert_to_tensor(weight) for weight in (self.scale, self.offset))
        normalize = _normalize_fused if is_fused else _normalize
        return tf.cast(normalize(images, scale, offset, self.epsilon), inputs.dtype)


def _uses_fused_kernel(shape: tf.TensorShape) -> bool:
    """Returns whether one kernel call per image is faster than plain operations on the batch."""
    if None in shape:
        return False
    num_images, *image_shape = shape
    return num_images == 1 or (
        num_images <= _MAX_FUSED_IMAGES and tf.TensorShape(image_shape).num_elements() >= _MIN_FUSED_ELEMENTS
    )


def _normalize_fused(images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Normalizes each image as a batch of one image."""
    empty = tf.zeros([0])
    normalized = [
        tf.raw_ops.FusedBatchNormV3(
            x=image, scale=scale, offset=offset, mean=empty, variance=empty, epsilon=epsilon, is_training=True
        ).y
        for image in tf.split(images, images.shape[0])
    ]
    return tf.concat(normalized, axis=0)


def _normalize(images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    mean, variance = tf.nn.moments(images, axes=[1, 2], keepdims=True)
    factor = scale * tf.math.rsqrt(variance + epsilon)
    return images * factor + (offset - mean * factor)
