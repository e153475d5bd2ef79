"""Reading images at moved places, with derivatives that are exact, of every order, and the same on every run.

Shapes: `B` images of a replica, `H W C` height, width and channels.
"""

import tensorflow as tf

from trainer.models.augment.affine import Affine


def shifted(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor, fill: float) -> tf.Tensor:
    """Images moved by whole pixels, with `fill` where nothing was.

    Args:
        images: float32 [B, H, W, C].
        down: int32 [B].
        right: int32 [B].
        fill: The value of the pixels that come in.

    Returns:
        float32 [B, H, W, C].
    """
    _, height, width, channels = images.shape
    rows, columns = tf.range(height) - down[:, tf.newaxis], tf.range(width) - right[:, tf.newaxis]
    inside = both((rows >= 0) & (rows < height), (columns >= 0) & (columns < width), channels)
    rows, columns = tf.clip_by_value(rows, 0, height - 1), tf.clip_by_value(columns, 0, width - 1)
    places = (_first_rows(images) + rows)[:, :, tf.newaxis] * width + columns[:, tf.newaxis]

    @tf.custom_gradient
    def move(pixels: tf.Tensor) -> tuple[tf.Tensor, object]:
        moved = tf.gather(tf.reshape(pixels, [-1, channels]), places)
        return keep(moved, inside, fill), lambda upstream: shifted(upstream, -down, -right, 0.0)

    return move(images)


def both(rows: tf.Tensor, columns: tf.Tensor, channels: int) -> tf.Tensor:
    """Which pixels are in a chosen row, bool [B, H], and a chosen column, bool [B, W]: bool [B, H, W, C]."""
    # By rows of pixels, because what broadcasts along a few channels is slow.
    chosen = rows[:, :, tf.newaxis] & tf.repeat(columns, channels, axis=1)[:, tf.newaxis]
    return tf.reshape(chosen, [-1, rows.shape[1], columns.shape[1], channels])


def keep(images: tf.Tensor, kept: tf.Tensor, fill: float) -> tf.Tensor:
    """The images where `kept`, bool [B, H, W, C], and elsewhere `fill`."""
    return tf.where(kept, images, tf.fill(tf.shape(images), fill))


def sample(images: tf.Tensor, source: Affine) -> tf.Tensor:
    """Images read between their pixels, bilinearly; outside of an image lies its reflection, without end.

    Args:
        images: float32 [B, H, W, C].
        source: Where each pixel of the result is read, from its own place to a place in the image, both (down, right)
            in pixels from the image's center.

    Returns:
        float32 [B, H, W, C]; a place that is exactly a pixel's gives exactly the pixel.
    """
    _, height, width, channels = images.shape
    down = (tf.range(height, dtype=tf.float32) - (height - 1) / 2)[:, tf.newaxis]
    right = tf.range(width, dtype=tf.float32) - (width - 1) / 2
    weights = source.linear[:, :, :, tf.newaxis, tf.newaxis]
    offset = source.offset[:, :, tf.newaxis, tf.newaxis]
    rows = _between(weights[:, 0, 0] * down + weights[:, 0, 1] * right + offset[:, 0], height)
    columns = _between(weights[:, 1, 0] * down + weights[:, 1, 1] * right + offset[:, 1], width)
    first_rows = _first_rows(images)[:, :, tf.newaxis]
    corners = [(first_rows + row) * width + column for row in rows[:2] for column in columns[:2]]
    corners = tf.unstack(_take(tf.reshape(images, [-1, channels]), tf.stack(corners)))
    # Broadcast once here, because products that broadcast along a few channels are slow.
    down, right = (tf.repeat(weight[..., tf.newaxis], channels, axis=-1) for weight in (rows[2], columns[2]))
    upper = corners[0] + right * (corners[1] - corners[0])
    lower = corners[2] + right * (corners[3] - corners[2])
    return upper + down * (lower - upper)


def _first_rows(images: tf.Tensor) -> tf.Tensor:
    """The number of each image's first row, when all rows of all images are counted: int32 [B, 1]."""
    return tf.range(tf.shape(images)[0])[:, tf.newaxis] * images.shape[1]


def _between(place: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The two pixels around each place along a side, int32, and the weight of the second; 0 is the side's middle."""
    last = side - 1
    # There and back again, from pixel 0 to the last one: the reflection repeats no edge.
    reflected = tf.abs(tf.math.floormod(place + (last / 2 + last), max(2 * last, 1)) - last)
    reflected = tf.minimum(reflected, float(last))
    before = tf.floor(reflected)
    index = tf.cast(before, tf.int32)
    return index, tf.minimum(index + 1, last), reflected - before


@tf.custom_gradient
def _take(pixels: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, object]:
    """Rows of pixels [N, C] at places int32 [...]. Its own gradient would be sparse, and not for a second time."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return _put(upstream, places, tf.shape(pixels)[0]), None

    return tf.gather(pixels, places), gradient


@tf.custom_gradient
def _put(values: tf.Tensor, places: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, object]:
    """The transpose of `_take`: sums of the values by place, [count, C]."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, None]:
        return _take(upstream, places), None, None

    # A channel at a time, because the kernel is slow at sums of a few numbers each.
    channels = [tf.math.unsorted_segment_sum(channel, places, count) for channel in tf.unstack(values, axis=-1)]
    return tf.stack(channels, axis=-1), gradient
