"""Shifting and sampling of images, with exact and deterministic derivatives of every order.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

import tensorflow as tf

from trainer.models.augment.affine import Affine


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
    """Returns a mask bool [B, H, W, C] of the pixels in both the rows, bool [B, H], and the columns, bool [B, W]."""
    # The mask is computed for rows of pixels, because broadcasting along a few channels is slow.
    mask = rows[:, :, tf.newaxis] & tf.repeat(columns, channels, axis=1)[:, tf.newaxis]
    return tf.reshape(mask, [-1, rows.shape[1], columns.shape[1], channels])


def fill_outside(images: tf.Tensor, mask: tf.Tensor, fill: float) -> tf.Tensor:
    """Returns images with the value `fill` outside the mask, bool [B, H, W, C]."""
    return tf.where(mask, images, tf.fill(tf.shape(images), fill))


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
    corners = [(first_rows + row) * width + column for row in rows[:2] for column in columns[:2]]
    corners = tf.unstack(_gather_rows(tf.reshape(images, [-1, channels]), tf.stack(corners)))
    # Broadcast once here, because products that broadcast along a few channels are slow.
    down, right = (tf.repeat(weight[..., tf.newaxis], channels, axis=-1) for weight in (rows[2], columns[2]))
    upper = corners[0] + right * (corners[1] - corners[0])
    lower = corners[2] + right * (corners[3] - corners[2])
    return upper + down * (lower - upper)


def _first_rows(images: tf.Tensor) -> tf.Tensor:
    """Returns the index of each image's first row among the rows of all images: int32 [B, 1]."""
    return tf.range(tf.shape(images)[0])[:, tf.newaxis] * images.shape[1]


def _neighbors(position: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the two pixels around each position along a side, int32, and the weight of the second.

    Position 0 is the middle of the side.
    """
    last = side - 1
    # The reflection does not repeat the edge pixels.
    reflected = tf.abs(tf.math.floormod(position + (last / 2 + last), max(2 * last, 1)) - last)
    reflected = tf.minimum(reflected, float(last))
    lower = tf.floor(reflected)
    index = tf.cast(lower, tf.int32)
    return index, tf.minimum(index + 1, last), reflected - lower


@tf.custom_gradient
def _gather_rows(pixels: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, object]:
    """Gathers rows of pixels [N, C] at indices int32 [...]. `tf.gather` has a sparse gradient without a second one."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return _scatter_add_rows(upstream, indices, tf.shape(pixels)[0]), None

    return tf.gather(pixels, indices), gradient


@tf.custom_gradient
def _scatter_add_rows(values: tf.Tensor, indices: tf.Tensor, num_rows: tf.Tensor) -> tuple[tf.Tensor, object]:
    """Sums values by index to [num_rows, C]. This is the transpose of `_gather_rows`."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, None]:
        return _gather_rows(upstream, indices), None, None

    # One channel at a time, because the kernel is slow for few numbers per index.
    channels = [tf.math.unsorted_segment_sum(channel, indices, num_rows) for channel in tf.unstack(values, axis=-1)]
    return tf.stack(channels, axis=-1), gradient
