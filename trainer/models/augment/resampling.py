"""Shifting and sampling of images, with exact and deterministic derivatives of every order.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.models.augment.affine import Affine

_Map = Callable[[tf.Tensor], tf.Tensor]


def shift(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor, fill: float) -> tf.Tensor:
    """Shifts images by whole pixels.

    Args:
        images: float32 [B, H, W, C].
        down: Number of pixels to shift down, int32 [B].
        right: Number of pixels to shift right, int32 [B].
        fill: Value of the pixels that are shifted in.

    Returns:
        float32 [B, H, W, C].
    """
    _, height, width, channels = images.shape
    rows, columns = tf.range(height) - down[:, tf.newaxis], tf.range(width) - right[:, tf.newaxis]
    inside = outer_mask((rows >= 0) & (rows < height), (columns >= 0) & (columns < width), channels)
    rows, columns = tf.clip_by_value(rows, 0, height - 1), tf.clip_by_value(columns, 0, width - 1)
    indices = (_first_rows(images) + rows)[:, :, tf.newaxis] * width + columns[:, tf.newaxis]

    @tf.custom_gradient
    def gather(pixels: tf.Tensor) -> tuple[tf.Tensor, object]:
        shifted = tf.gather(tf.reshape(pixels, [-1, channels]), indices)
        return fill_outside(shifted, inside, fill), lambda upstream: shift(upstream, -down, -right, 0.0)

    return gather(images)


def outer_mask(rows: tf.Tensor, columns: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns a mask of the pixels in both the rows, bool [B, H], and the columns, bool [B, W].

    Returns:
        1.0 and 0.0 as float32 [B, H, W, C], because a product is several times faster than a choice on a CPU.
    """
    # The mask is computed for rows of pixels, because broadcasting along a few channels is slow.
    of_rows = tf.cast(rows, tf.float32)[:, :, tf.newaxis]
    of_columns = tf.cast(tf.repeat(columns, channels, axis=1), tf.float32)[:, tf.newaxis]
    return tf.reshape(of_rows * of_columns, [-1, rows.shape[1], columns.shape[1], channels])


def fill_outside(images: tf.Tensor, mask: tf.Tensor, fill: float) -> tf.Tensor:
    """Returns images with the value `fill` outside a mask of 1.0 and 0.0, float32 [B, H, W, C]."""
    return images * mask if fill == 0.0 else images * mask + fill * (1.0 - mask)


def sample(images: tf.Tensor, source: Affine) -> tf.Tensor:
    """Samples images bilinearly. Images are continued by reflection without end.

    Args:
        images: float32 [B, H, W, C].
        source: Maps from positions in the result to positions in the images, both (down, right) in pixels from the
            center of the image.

    Returns:
        float32 [B, H, W, C]. Positions that coincide with a pixel give exactly the value of the pixel.
    """
    _, height, width, channels = images.shape
    down = (tf.range(height, dtype=tf.float32) - (height - 1) / 2)[:, tf.newaxis]
    right = tf.range(width, dtype=tf.float32) - (width - 1) / 2
    weights = source.linear[:, :, :, tf.newaxis, tf.newaxis]
    offset = source.offset[:, :, tf.newaxis, tf.newaxis]
    rows = _neighbors(weights[:, 0, 0] * down + weights[:, 0, 1] * right + offset[:, 0], height)
    columns = _neighbors(weights[:, 1, 0] * down + weights[:, 1, 1] * right + offset[:, 1], width)
    first_rows = _first_rows(images)[:, :, tf.newaxis]
    corners = tf.stack([(first_rows + row) * width + column for row in rows[:2] for column in columns[:2]])
    # Broadcast once here, because products that broadcast along a few channels are slow.
    down, right = (tf.repeat(weight[..., tf.newaxis], channels, axis=-1) for weight in (rows[2], columns[2]))

    def interpolate(values: tf.Tensor) -> tf.Tensor:
        upper_left, upper_right, lower_left, lower_right = tf.unstack(
            tf.gather(tf.reshape(values, [-1, channels]), corners)
        )
        upper = upper_left + right * (upper_right - upper_left)
        lower = lower_left + right * (lower_right - lower_left)
        return upper + down * (lower - upper)

    def distribute(values: tf.Tensor) -> tf.Tensor:
        lower = down * values
        upper = values - lower
        upper_right, lower_right = right * upper, right * lower
        shares = tf.stack([upper - upper_right, upper_right, lower - lower_right, lower_right])
        return tf.reshape(_sum_by_index(shares, corners, tf.size(values) // channels), tf.shape(values))

    return _linear(interpolate, distribute)(images)


def _linear(function: _Map, transpose: _Map) -> _Map:
    """Returns a linear function whose derivatives of every order use the function and its transpose alone."""

    @tf.custom_gradient
    def differentiable(values: tf.Tensor) -> tuple[tf.Tensor, _Map]:
        return function(values), _linear(transpose, function)

    return differentiable


def _sum_by_index(values: tf.Tensor, indices: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """Sums values [..., C] with equal indices, int32 [...]: float32 [num_rows, C]."""
    # One channel at a time, because the kernel is slow for few numbers per index.
    channels = tf.unstack(tf.transpose(tf.reshape(values, [-1, values.shape[-1]])))
    indices = tf.reshape(indices, [-1])
    return tf.transpose(tf.stack([tf.math.unsorted_segment_sum(channel, indices, num_rows) for channel in channels]))


def _first_rows(images: tf.Tensor) -> tf.Tensor:
    """Returns the index of each image's first row among the rows of all images: int32 [B, 1]."""
    return tf.range(tf.shape(images)[0])[:, tf.newaxis] * images.shape[1]


def _neighbors(position: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the two pixels around each position along a side, int32, and the weight of the second.

    Position 0 is the middle of the side.
    """
    last = side - 1
    # The reflection does not repeat the edge pixels. `tf.math.floormod` is slow on a CPU.
    from_reflection, period = position + (last / 2 + last), max(2.0 * last, 1.0)
    reflected = tf.abs(from_reflection - period * tf.floor(from_reflection / period) - last)
    reflected = tf.minimum(reflected, float(last))
    lower = tf.floor(reflected)
    index = tf.cast(lower, tf.int32)
    return index, tf.minimum(index + 1, last), reflected - lower
