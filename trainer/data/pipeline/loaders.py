"""Loaders of training data: chunk after chunk, in the order of the steps.

Shapes: `N` images of a chunk, `H W C` height, width and channels.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from trainer.data.dataset_spec import SPEC_NAME, fingerprint_of
from trainer.data.pipeline.balance import balanced_order, balanced_size
from trainer.data.pipeline.batching import Chunk, ChunkVisit
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_labels, read_records, read_shards
from trainer.errors import DataError

MakeChunk = Callable[[np.ndarray, np.ndarray | None], Chunk]
"""Function that makes a chunk from images uint8 [N, H, W, C] and labels int32 [N]."""


class Loader(abc.ABC):
    """Source of chunks in the order of the steps. Close it after use.

    Attributes:
        global_batch_size: Global batch size.
        steps_per_epoch: Number of steps of a pass over the data.
        every_steps: Number of steps between two chunks; 0 if there is only one chunk.
    """

    global_batch_size: int
    steps_per_epoch: int
    every_steps = 0

    @abc.abstractmethod
    def chunk(self, step: int, num_steps: int | None = None) -> Chunk:
        """Returns the chunk of a step. All chunks have arrays of the same shapes.

        Args:
            step: Step number.
            num_steps: Number of steps of the run: no chunk after the last step is loaded. None: no limit.

        Raises:
            CancelledError: If `cancel` was called before the chunk was loaded.
        """

    def cancel(self) -> None:  # noqa: B027 (nothing to cancel if all data is in memory)
        """Asks a background load to end after its current shard, and returns at once."""

    def close(self) -> None:  # noqa: B027
        """Cancels a background load and waits for its end."""


class InMemoryLoader(Loader):
    """Loader of a dataset that is in memory from the first step to the last."""

    def __init__(self, chunk: Chunk, global_batch_size: int):
        self._chunk, self.global_batch_size = chunk, global_batch_size
        self.steps_per_epoch = chunk.num_examples // global_batch_size

    def chunk(self, step: int, num_steps: int | None = None) -> Chunk:
        return self._chunk


@dataclasses.dataclass(frozen=True)
class StreamedDataset:
    """A prepared dataset that is loaded chunk by chunk. `GAN.fit` accepts it in place of arrays.

    Attributes:
        files: Local files of the shards.
        schedule: Schedule of the chunks.
        classes: Labels to keep. None: all labels.
        padding: Pixels of value 0 added to every side of every image.
    """

    files: ShardCache
    schedule: ChunkSchedule
    classes: tuple[int, ...] | None = None
    padding: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels, including the padding and the inputs of pairs."""
        height, width, channels = self.files.spec.array_shape
        return height + 2 * self.padding, width + 2 * self.padding, channels

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class in all chunks together; 0 for a class that is not selected."""
        counts = self.files.spec.class_counts
        if self.classes is None:
            return counts
        return tuple(count if label in self.classes else 0 for label, count in enumerate(counts))

    @property
    def num_examples(self) -> int:
        """Number of images in all chunks together."""
        return sum(self.class_counts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the SHA-256 digests of the shards: 64 hexadecimal digits."""
        return fingerprint_of(self.schedule.shards)

    def images(self) -> Iterator[np.ndarray]:
        """Yields the images of the selected classes in the order of the dataset, whatever the chunks: uint8
        [B, H, W, C]. A shard is read when its first image is needed.

        Raises:
            DataError, StorageError: If a shard cannot be read.
        """
        for shard in self.schedule.shards:
            for batch_images, batch_labels in read_shards(self.files, [shard]):
                indices = self._select_classes(batch_labels)
                images, _ = self._allocate(len(indices))
                self._without_padding(images)[...] = batch_images[indices]
                yield images

    def load(self, visit: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Loads a chunk.

        Args:
            visit: Number of the visit over all epochs, from 0.

        Returns:
            images: uint8 [N, H, W, C], N the size of the largest possible chunk.
            labels: int32 [N].
            size: Number of images in this chunk, which come first.

        Raises:
            DataError, StorageError: If a shard cannot be read.
        """
        images, labels = self._allocate(self.schedule.max_chunk_size)
        size = 0
        for batch_images, batch_labels in read_shards(self.files, self.schedule.shards_of(visit)):
            indices = self._select_classes(batch_labels)
            stop = size + len(indices)
            self._without_padding(images[size:stop])[...] = batch_images[indices]
            labels[size:stop] = batch_labels[indices]
            size = stop
        self._check_not_empty(visit, size)
        return images, labels, size

    def load_examples(
        self, visit: int, max_examples: int, select: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loads some examples of a chunk.

        Args:
            visit: Number of the visit over all epochs, from 0.
            max_examples: Largest number of examples that `select` returns, N.
            select: Function from the labels int32 of all examples of the chunk to the indices of the examples to load,
                in ascending order.

        Returns:
            images: uint8 [N, H, W, C]; the selected examples come first.
            labels: int32 [N].

        Raises:
            DataError, StorageError: If a shard cannot be read.
        """
        shards = self.schedule.shards_of(visit)
        all_labels = read_labels(self.files, shards)
        indices = self._select_classes(all_labels)
        self._check_not_empty(visit, len(indices))
        records = indices[select(all_labels[indices])]
        images, labels = self._allocate(max_examples)
        labels[: len(records)] = all_labels[records]
        start = 0
        for batch in read_records(self.files, shards, records):
            self._without_padding(images[start : start + len(batch)])[...] = batch
            start += len(batch)
        return images, labels

    def _allocate(self, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((num_examples, *self.image_shape), np.uint8), np.zeros(num_examples, np.int32)

    def _without_padding(self, images: np.ndarray) -> np.ndarray:
        """Returns a view of images without their padding."""
        height, width, _ = self.files.spec.image_shape
        return images[:, self.padding : self.padding + height, self.padding : self.padding + width]

    def _select_classes(self, labels: np.ndarray) -> np.ndarray:
        """Returns the indices of the labels that are selected."""
        return np.arange(len(labels)) if self.classes is None else np.flatnonzero(np.isin(labels, self.classes))

    def _check_not_empty(self, visit: int, size: int) -> None:
        if not size:
            raise DataError(
                f"chunk {visit} of {self.files.spec.name} has no image of the selected classes {self.classes}; use "
                "fewer chunks or more classes."
            )


class ExampleSelector(Protocol):
    """Selects the examples of a chunk that the replicas of this process take."""

    max_examples: int
    """Largest number of examples of a chunk that they take, N."""

    def __call__(self, visit: ChunkVisit) -> np.ndarray:
        """Returns the positions of a visit that they take, ascending and without duplicates: int64 [at most N]."""


class StreamingLoader(Loader):
    """Loader of a streamed dataset. It loads the next chunk in the background while training uses the current one.

    Args:
        stream: Dataset.
        make_chunk: Function that makes a chunk from the loaded arrays.
        global_batch_size: Global batch size of the run.
        balance_classes: Whether to show every class of a chunk equally often.
        make_selector: Function from the number of steps of a chunk to the selector of the examples that this process
            loads. None: all examples.
    """

    def __init__(
        self,
        stream: StreamedDataset,
        make_chunk: MakeChunk,
        global_batch_size: int,
        balance_classes: bool = False,
        make_selector: Callable[[int], ExampleSelector] | None = None,
    ):
        self._cancelled = threading.Event()
        self._stream = dataclasses.replace(stream, files=stream.files.with_cancellation(self._cancelled))
        self._make_chunk, self._balance_classes = make_chunk, balance_classes
        self.global_batch_size = global_batch_size
        num_chunks = stream.schedule.num_chunks
        num_positions = balanced_size(stream.class_counts) if balance_classes else stream.num_examples
        self.every_steps = max(1, num_positions // global_batch_size // num_chunks)
        self.steps_per_epoch = self.every_steps * num_chunks
        max_size = stream.schedule.max_chunk_size
        max_counts = [min(count, max_size) for count in stream.class_counts]
        self._max_order_length = balanced_size(max_counts) if balance_classes else max_size
        self._selector = make_selector(self.every_steps) if make_selector else None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._loading: dict[int, concurrent.futures.Future[Chunk]] = {}

    def chunk(self, step: int, num_steps: int | None = None) -> Chunk:
        visit = step // self.every_steps
        current = self._loading.pop(visit, None) or self._thread.submit(self._load, visit)
        chunk = current.result()
        if num_steps is None or (visit + 1) * self.every_steps < num_steps:
            self._loading = {visit + 1: self._thread.submit(self._load, visit + 1)}
        return chunk

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self.cancel()
        self._thread.shutdown(cancel_futures=True)

    def _load(self, number: int) -> Chunk:
        if self._selector is not None:
            return self._load_selected(number, self._selector)
        images, labels, size = self._stream.load(number)
        order = balanced_order(labels[:size]) if self._balance_classes else None
        visit = self._visit(number, size if order is None else len(order))
        return dataclasses.replace(self._make_chunk(images, labels), order=self._pad_order(order), visit=visit)

    def _load_selected(self, number: int, selector: ExampleSelector) -> Chunk:
        """Loads a chunk that has only the images that this process takes."""
        visit, order = self._visit(number, 0), np.empty(0, np.int32)

        def select(labels: np.ndarray) -> np.ndarray:
            nonlocal visit, order
            full_order = balanced_order(labels) if self._balance_classes else np.arange(len(labels))
            visit = self._visit(number, len(full_order))
            positions = selector(visit)
            indices, order_of_positions = np.unique(full_order[positions], return_inverse=True)
            order = np.zeros(len(full_order), np.int32)
            order[positions] = order_of_positions
            return indices

        max_examples = min(self._stream.schedule.max_chunk_size, selector.max_examples)
        images, labels = self._stream.load_examples(number, max_examples, select)
        return dataclasses.replace(self._make_chunk(images, labels), order=self._pad_order(order), visit=visit)

    def _visit(self, number: int, size: int) -> ChunkVisit:
        return ChunkVisit(number, number * self.every_steps, size)

    def _pad_order(self, order: np.ndarray | None) -> np.ndarray | None:
        """Pads an order to the same length for every chunk. Positions after the size of the visit are never read."""
        if order is None:
            return None
        if len(order) > self._max_order_length:
            raise DataError(
                f"{self._stream.files.spec.name} has more images of a class than its {SPEC_NAME} states "
                f"({list(self._stream.class_counts)}); prepare the dataset again."
            )
        return np.pad(order.astype(np.int32), (0, self._max_order_length - len(order)))
