"""From (seed, step) to a batch: data rests on the device, and a batch is gathered inside the step."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

IMAGE_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}
"""The ranges that 8-bit pixels can be mapped to, by the name that the config gives them."""

Tensors = Mapping[str, tf.Tensor]
"""What a window holds, on a device, by name."""

_OTHER_DOMAIN = 0x5851F42D4C957F2D
"""Makes the order of the second domain another one than the first's."""


@dataclass(frozen=True)
class BatchSlice:
    """Which part of which batch is asked for.

    Attributes:
        key: 64-bit key of the order.
        step: Number of the step, int64.
        replica: Index of the replica.
        replica_batch_size: Batch of one replica, B.
        num_replicas: How many replicas share the global batch.
    """

    key: int
    step: tf.Tensor
    replica: tf.Tensor | int
    replica_batch_size: int
    num_replicas: int

    def indices(self, num_examples: int) -> tf.Tensor:
        """Which of `num_examples` examples belong here: int32 [B].

        Every epoch is a permutation of its own, of which the last `num_examples % global_batch_size` places are not
        used. No state: example `i` of step `s` is `permutation(key, epoch)[place]`.
        """
        steps_per_epoch = num_examples // self.global_batch_size
        epoch, position = self.step // steps_per_epoch, self.step % steps_per_epoch
        return self._shuffled(self._places(position), epoch, tf.constant(num_examples, tf.int64))

    def indices_of_chunk(self, visit: tf.Tensor) -> tf.Tensor:
        """Which examples of a visited window belong here: int32 [B].

        Args:
            visit: int64 [3]: `Visit.number`, `first_step` and `size`. Steps that need more than `size` examples begin
                again in another order.
        """
        number, first_step, size = tf.unstack(visit)
        places = self._places(self.step - first_step)
        first, second = (self._shuffled(places % size, 2 * number + lap, size) for lap in (0, 1))
        return tf.where(places < size, first, second)

    @property
    def global_batch_size(self) -> int:
        """Batch of all replicas."""
        return self.replica_batch_size * self.num_replicas

    def _places(self, position: tf.Tensor) -> tf.Tensor:
        """Places in the order of an epoch or a visit, whose step number `position` this is: int64 [B]."""
        first = position * self.global_batch_size + tf.cast(self.replica, tf.int64) * self.replica_batch_size
        return first + tf.range(self.replica_batch_size, dtype=tf.int64)

    def _shuffled(self, places: tf.Tensor, number: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """What stands at these places in permutation `number` of `size` examples: int32 [B]."""
        seed = tf.stack([tf.constant(self.key % 2**31, tf.int64), number + (self.key >> 32) % 2**31])
        return tf.cast(tf.random.experimental.index_shuffle(places, seed, size - 1), tf.int32)


@dataclass(frozen=True)
class ChunkVisit:
    """That a window holds a part of the data, for a time.

    Attributes:
        number: Of windows before it, over all epochs.
        first_step: That is taken from it.
        size: Images in it, or places in its order; the arrays may be longer.
    """

    number: int
    first_step: int
    size: int


@dataclass(frozen=True)
class Chunk:
    """Images that are in memory as long as steps are taken from them.

    Attributes:
        images: uint8 or float32 [N, ...].
        targets: int32 labels [N]; or images of another domain, of any number, which are then batched in an order of
            their own; or None.
        image_range: What uint8 pixels are mapped to; float images are used as they are.
        order: int32 [V]: the image at each place of an epoch, where that is not one place for each image.
        visit: None where it holds all of the data.
    """

    images: np.ndarray
    targets: np.ndarray | None
    image_range: tuple[float, float]
    order: np.ndarray | None = None
    visit: ChunkVisit | None = None

    @property
    def num_examples(self) -> int:
        """Images of an epoch: N, or V, or the larger number where there are two domains."""
        return max(self._sizes) if self.order is None else len(self.order)

    @property
    def largest_batch(self) -> int:
        """The largest global batch that the images can fill: N, or the smaller number where there are two domains."""
        return min(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Images of each domain."""
        sizes = [len(self.images)]
        if self.targets is not None and self.is_unpaired:
            sizes.append(len(self.targets))
        return sizes

    @property
    def is_unpaired(self) -> bool:
        """Whether the targets are images of another domain."""
        return self.targets is not None and self.targets.ndim > 1

    @property
    def outline(self) -> "Chunk":
        """The same without what it holds: `batch` needs no more of it than shapes and types."""
        targets = None if self.targets is None else _without_content(self.targets)
        return dataclasses.replace(self, images=_without_content(self.images), targets=targets)

    def tensors(self) -> Tensors:
        """The window's content on the current device."""
        visit = None if self.visit is None else np.array(dataclasses.astuple(self.visit), np.int64)
        held = {"images": self.images, "targets": self.targets, "order": self.order, "visit": visit}
        return {name: tf.constant(array) for name, array in held.items() if array is not None}

    def batch(self, tensors: Tensors, place: BatchSlice) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The part of a batch that belongs at `place`.

        Returns:
            Images float32 [B, ...] in `image_range`; and labels int32 [B], images [B, ...] of the other domain,
            or None.
        """
        if self.visit is not None:
            indices = place.indices_of_chunk(tensors["visit"])
        else:
            indices = place.indices(len(self.images if self.order is None else self.order))
        if self.order is not None:
            indices = tf.gather(tensors["order"], indices)
        images = self.as_floats(tf.gather(tensors["images"], indices))
        if self.targets is None:
            return images, None
        if not self.is_unpaired:
            return images, tf.gather(tensors["targets"], indices)
        others = dataclasses.replace(place, key=place.key ^ _OTHER_DOMAIN).indices(len(self.targets))
        return images, self.as_floats(tf.gather(tensors["targets"], others))

    def as_floats(self, images: tf.Tensor) -> tf.Tensor:
        """Images as float32 [B, ...] in `image_range`."""
        if images.dtype != tf.uint8:
            return images
        low, high = self.image_range
        return tf.cast(images, tf.float32) * ((high - low) / 255.0) + low


def mirrored(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Images [B, H, W, C], those where `chosen`, int32 [B], is not 0 mirrored left to right."""
    return tf.where(tf.reshape(chosen, [-1, 1, 1, 1]) != 0, images[:, :, ::-1], images)


def _without_content(array: np.ndarray) -> np.ndarray:
    """An array of this shape and type that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
