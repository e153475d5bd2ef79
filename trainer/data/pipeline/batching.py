"""Maps (seed, step) to a batch. The data is on the device, and a batch is gathered inside the training step."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.errors import DataError, quote

Tensors = Mapping[str, tf.Tensor]
"""Content of a chunk on a device, by name."""

_DOMAIN_B_KEY = 0x5851F42D4C957F2D
"""Constant that changes the key of the order, so that the two domains are shuffled differently."""


@dataclass(frozen=True)
class BatchSlice:
    """The part of a global batch that one replica takes.

    Attributes:
        key: 64-bit key of the order.
        step: Step number, an int64 scalar.
        replica: Index of the replica.
        replica_batch_size: Batch size of one replica, B.
        num_replicas: Number of replicas that share the global batch.
    """

    key: int
    step: tf.Tensor
    replica: tf.Tensor | int
    replica_batch_size: int
    num_replicas: int

    def indices(self, num_examples: int) -> tf.Tensor:
        """Returns the indices of the examples in this slice: int32 [B] in [0, num_examples).

        Every epoch has its own permutation. Its last `num_examples % global_batch_size` positions are not used. The
        indices depend on the key and the step only.
        """
        steps_per_epoch = num_examples // self.global_batch_size
        epoch, step_in_epoch = self.step // steps_per_epoch, self.step % steps_per_epoch
        return self._permute(self._positions(step_in_epoch), epoch, tf.constant(num_examples, tf.int64))

    def indices_of_chunk(self, visit: tf.Tensor) -> tf.Tensor:
        """Returns the indices of the examples of a chunk in this slice: int32 [B].

        Args:
            visit: int64 [3] with `ChunkVisit.number`, `first_step` and `size`. If the steps of the visit need more than
                `size` examples, the chunk is repeated in another order.
        """
        number, first_step, size = tf.unstack(visit)
        positions = self._positions(self.step - first_step)
        first, second = (self._permute(positions % size, 2 * number + repeat, size) for repeat in (0, 1))
        return tf.where(positions < size, first, second)

    @property
    def global_batch_size(self) -> int:
        """Batch size of all replicas together."""
        return self.replica_batch_size * self.num_replicas

    def _positions(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the positions of this slice in the order of an epoch or a visit: int64 [B].

        Args:
            step: Step number since the beginning of the epoch or the visit.
        """
        first = step * self.global_batch_size + tf.cast(self.replica, tf.int64) * self.replica_batch_size
        return first + tf.range(self.replica_batch_size, dtype=tf.int64)

    def _permute(self, positions: tf.Tensor, number: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Returns the elements at some positions of permutation `number` of `size` examples: int32 [B]."""
        seed = tf.stack([tf.constant(self.key % 2**31, tf.int64), number + (self.key >> 32) % 2**31])
        return tf.cast(tf.random.experimental.index_shuffle(positions, seed, size - 1), tf.int32)


@dataclass(frozen=True)
class ChunkVisit:
    """One visit to a chunk of the dataset.

    Attributes:
        number: Number of the visits before this one, over all epochs.
        first_step: First step that takes its batch from the chunk.
        size: Number of images in the chunk, or of positions in its order. The arrays may be longer.
    """

    number: int
    first_step: int
    size: int


@dataclass(frozen=True)
class Chunk:
    """Images that are in memory at the same time.

    Attributes:
        images: uint8 or float32 [N, ...].
        targets: Labels int32 [N]; or images of a second domain, in any number, which are batched in their own order; or
            None.
        image_range: Range that uint8 pixels are mapped to. Float images are used unchanged.
        order: Index of the image at each position of an epoch, int32 [V]; None if every image has one position.
        visit: Visit to this chunk; None if the chunk contains the whole dataset.
    """

    images: np.ndarray
    targets: np.ndarray | None
    image_range: tuple[float, float]
    order: np.ndarray | None = None
    visit: ChunkVisit | None = None

    @property
    def num_examples(self) -> int:
        """Number of images in an epoch: N, or V, or the larger number of images of two domains."""
        return max(self._domain_sizes) if self.order is None else len(self.order)

    @property
    def max_batch_size(self) -> int:
        """Largest global batch size that the images can fill: N, or the smaller number of images of two domains."""
        return min(self._domain_sizes)

    @property
    def _domain_sizes(self) -> list[int]:
        """Number of images of each domain."""
        sizes = [len(self.images)]
        if self.targets is not None and self.is_unpaired:
            sizes.append(len(self.targets))
        return sizes

    @property
    def is_unpaired(self) -> bool:
        """True if the targets are images of a second domain."""
        return self.targets is not None and self.targets.ndim > 1

    @property
    def template(self) -> "Chunk":
        """Chunk with the same shapes and types that takes no memory. `batch` needs no more of a chunk than these."""
        targets = None if self.targets is None else _empty_like(self.targets)
        order = None if self.order is None else _empty_like(self.order)
        return dataclasses.replace(self, images=_empty_like(self.images), targets=targets, order=order)

    @property
    def signature(self) -> tuple[object, ...]:
        """The facts about this chunk that the compiled step depends on."""
        arrays = (self.images, self.targets, self.order)
        shapes = tuple(None if array is None else (array.shape, str(array.dtype)) for array in arrays)
        return (*shapes, self.image_range, self.visit is None)

    def tensors(self) -> Tensors:
        """Returns the content of the chunk on the current device."""
        visit = None if self.visit is None else np.array(dataclasses.astuple(self.visit), np.int64)
        arrays = {"images": self.images, "targets": self.targets, "order": self.order, "visit": visit}
        return {name: tf.constant(array) for name, array in arrays.items() if array is not None}

    def batch(self, tensors: Tensors, batch_slice: BatchSlice) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Gathers a slice of a batch.

        Args:
            tensors: Content of a chunk with the shapes and types of this one.
            batch_slice: Slice to gather.

        Returns:
            images: float32 [B, ...] in `image_range`.
            targets: Labels int32 [B], images [B, ...] of the second domain, or None.
        """
        if self.visit is not None:
            indices = batch_slice.indices_of_chunk(tensors["visit"])
        else:
            indices = batch_slice.indices(len(self.images if self.order is None else self.order))
        if self.order is not None:
            indices = tf.gather(tensors["order"], indices)
        images = self.as_floats(tf.gather(tensors["images"], indices))
        if self.targets is None:
            return images, None
        if not self.is_unpaired:
            return images, tf.gather(tensors["targets"], indices)
        domain_b = dataclasses.replace(batch_slice, key=batch_slice.key ^ _DOMAIN_B_KEY)
        return images, self.as_floats(tf.gather(tensors["targets"], domain_b.indices(len(self.targets))))

    def as_floats(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images as float32 [B, ...] in `image_range`."""
        if images.dtype != tf.uint8:
            return images
        low, high = self.image_range
        return tf.cast(images, tf.float32) * ((high - low) / 255.0) + low


def flip_horizontally(images: tf.Tensor, is_flipped: tf.Tensor) -> tf.Tensor:
    """Mirrors some images left to right.

    Args:
        images: Images [B, H, W, C] or [B, H, W].
        is_flipped: int32 [B]; an image is mirrored if its element is not 0.

    Raises:
        DataError: If the images have no height and width, or more axes.
    """
    rank = images.shape.rank
    if rank not in (3, 4):
        shape = quote(("N", *images.shape[1:]))
        raise DataError(f"images of shape {shape} cannot be mirrored; pass [N, H, W, C], or horizontal_flips=False.")
    return tf.where(tf.reshape(is_flipped, [-1] + [1] * (rank - 1)) != 0, images[:, :, ::-1], images)


def _empty_like(array: np.ndarray) -> np.ndarray:
    """Returns an array of the same shape and type that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
