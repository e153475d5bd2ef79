"""What a run's steps are taken from, window after window.

Legend: `N` images in a window, `H W C` an image.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from trainer.data.dataset_spec import SPEC_NAME
from trainer.data.pipeline.balance import balanced_order, balanced_size
from trainer.data.pipeline.batching import Chunk, ChunkVisit
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_labels, read_shards, read_some
from trainer.errors import DataError

Made = Callable[[np.ndarray, np.ndarray | None], Chunk]
"""What makes a window of images uint8 [N, H, W, C] and labels int32 [N]."""


class Loader(abc.ABC):
    """Windows in the order of the steps; to be closed.

    Attributes:
        steps_per_epoch: Steps of a pass over the data.
        every_steps: Steps between two windows; 0 where there is one alone.
    """

    steps_per_epoch: int
    every_steps = 0

    @abc.abstractmethod
    def chunk(self, step: int, num_steps: int | None = None) -> Chunk:
        """The window that step number `step` is taken from. All windows have arrays of the same shape.

        Args:
            step: Its number.
            num_steps: Of the run: no window after its last step is loaded. None: the run has no end.

        Raises:
            CancelledError: `cancel` was called before the window was there.
        """

    def cancel(self) -> None:  # noqa: B027 (nothing loads where all is in memory)
        """Tells what still loads to end after the shard that it reads, and does not wait for it."""

    def close(self) -> None:  # noqa: B027
        """Ends what still loads, and returns when it has ended."""


class InMemoryLoader(Loader):
    """All of the data, in memory from the first step to the last."""

    def __init__(self, chunk: Chunk, global_batch_size: int):
        self._chunk = chunk
        self.steps_per_epoch = chunk.num_examples // global_batch_size

    def chunk(self, step: int, num_steps: int | None = None) -> Chunk:
        return self._chunk


@dataclasses.dataclass(frozen=True)
class StreamedDataset:
    """A prepared set that is trained on window by window; what `GAN.fit` takes in place of arrays.

    Attributes:
        files: Of the set.
        schedule: Of the set.
        classes: Labels to keep; None: all.
        padding: Pixels of value 0 on every side of every image.
    """

    files: ShardCache
    schedule: ChunkSchedule
    classes: tuple[int, ...] | None = None
    padding: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C), padding included."""
        height, width, channels = self.files.manifest.image_shape
        return height + 2 * self.padding, width + 2 * self.padding, channels

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Images of each class in all windows together; 0 for one that is not kept."""
        counts = self.files.manifest.class_counts
        if self.classes is None:
            return counts
        return tuple(count if label in self.classes else 0 for label, count in enumerate(counts))

    @property
    def num_examples(self) -> int:
        """Images of all windows together."""
        return sum(self.class_counts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the shards' own: 64 hex digits."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.schedule.shards).encode()).hexdigest()

    def load(self, visit: int) -> tuple[np.ndarray, np.ndarray, int]:
        """The window that is visited as number `visit`.

        Returns:
            Images uint8 [N, H, W, C] and labels int32 [N], N as large as the largest window, and how many are filled.

        Raises:
            DataError, StorageError: A shard cannot be read.
        """
        images, labels = self._room(self.schedule.capacity)
        size = 0
        for found, of in read_shards(self.files, self.schedule.shards_of(visit)):
            kept = self._kept(of)
            stop = size + len(kept)
            self._inside(images[size:stop])[...] = found[kept]
            labels[size:stop] = of[kept]
            size = stop
        self._check(visit, size)
        return images, labels, size

    def load_some(
        self, visit: int, capacity: int, choose: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Some images of the window that is visited as number `visit`.

        Args:
            visit: Number of the visit.
            capacity: Most images there can be of it, N.
            choose: Labels int32 of all images of the window -> the numbers of those to load, ascending.

        Returns:
            Images uint8 [N, H, W, C] and labels int32 [N], the first ones filled.

        Raises:
            DataError, StorageError: A shard cannot be read.
        """
        shards = self.schedule.shards_of(visit)
        of_all = read_labels(self.files, shards)
        kept = self._kept(of_all)
        self._check(visit, len(kept))
        records = kept[choose(of_all[kept])]
        images, labels = self._room(capacity)
        labels[: len(records)] = of_all[records]
        start = 0
        for found in read_some(self.files, shards, records):
            self._inside(images[start : start + len(found)])[...] = found
            start += len(found)
        return images, labels

    def _room(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((count, *self.image_shape), np.uint8), np.zeros(count, np.int32)

    def _inside(self, images: np.ndarray) -> np.ndarray:
        """The part of images within the padding."""
        height, width, _ = self.files.manifest.image_shape
        return images[:, self.padding : self.padding + height, self.padding : self.padding + width]

    def _kept(self, labels: np.ndarray) -> np.ndarray:
        """Which of these records are of a class that is kept."""
        return np.arange(len(labels)) if self.classes is None else np.flatnonzero(np.isin(labels, self.classes))

    def _check(self, visit: int, size: int) -> None:
        if not size:
            raise DataError(f"window {visit} of {self.files.manifest.name} has no image of the classes that are kept.")


class HostShard(Protocol):
    """What this process's replicas take of a window."""

    most: int
    """Most images that they can take of one, N."""

    def __call__(self, visit: ChunkVisit) -> np.ndarray:
        """The places of a visit that they take, ascending, each once: int64 [at most N]."""


class StreamingLoader(Loader):
    """The windows of a stream: the next one loads while this one trains.

    Args:
        stream: Of the set.
        make: Makes a window of what was loaded.
        global_batch_size: Of the run.
        balance_classes: Show every class of a window as often as any other.
        share: (steps of a window) -> what this process takes of one; None: all.
    """

    def __init__(
        self,
        stream: StreamedDataset,
        make: Made,
        global_batch_size: int,
        balance_classes: bool = False,
        host_shard: Callable[[int], HostShard] | None = None,
    ):
        self._closing = threading.Event()
        self._stream = dataclasses.replace(stream, files=stream.files.until(self._closing))
        self._make, self._balance_classes = make, balance_classes
        chunks = stream.schedule.num_chunks
        num_places = balanced_size(stream.class_counts) if balance_classes else stream.num_examples
        self.every_steps = max(1, num_places // global_batch_size // chunks)
        self.steps_per_epoch = self.every_steps * chunks
        capacity = stream.schedule.capacity
        counts = [min(count, capacity) for count in stream.class_counts]
        self._most_places = balanced_size(counts) if balance_classes else capacity
        self._host_shard = host_shard(self.every_steps) if host_shard else None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._loading: dict[int, concurrent.futures.Future[Chunk]] = {}

    def chunk(self, step: int, num_steps: int | None = None) -> Chunk:
        visit = step // self.every_steps
        current = self._loading.pop(visit, None) or self._thread.submit(self._load, visit)
        chunk = current.result()
        if num_steps is None or (visit + 1) * self.every_steps < num_steps:
            self._loading = {visit + 1: self._thread.submit(self._load, visit + 1)}
        return chunk

    def cancel(self) -> None:
        self._closing.set()

    def close(self) -> None:
        self.cancel()
        self._thread.shutdown(cancel_futures=True)

    def _load(self, number: int) -> Chunk:
        if self._host_shard is not None:
            return self._load_host_shard(number, self._host_shard)
        images, labels, size = self._stream.load(number)
        order = balanced_order(labels[:size]) if self._balance_classes else None
        visit = self._visit(number, size if order is None else len(order))
        return dataclasses.replace(self._make(images, labels), order=self._padded(order), visit=visit)

    def _load_host_shard(self, number: int, host_shard: HostShard) -> Chunk:
        """A window with the images alone that this process takes of it."""
        visit, order = self._visit(number, 0), np.empty(0, np.int32)

        def choose(labels: np.ndarray) -> np.ndarray:
            nonlocal visit, order
            of_place = balanced_order(labels) if self._balance_classes else np.arange(len(labels))
            visit = self._visit(number, len(of_place))
            places = host_shard(visit)
            numbers, order_of_places = np.unique(of_place[places], return_inverse=True)
            order = np.zeros(len(of_place), np.int32)
            order[places] = order_of_places
            return numbers

        capacity = min(self._stream.schedule.capacity, host_shard.most)
        images, labels = self._stream.load_some(number, capacity, choose)
        return dataclasses.replace(self._make(images, labels), order=self._padded(order), visit=visit)

    def _visit(self, number: int, size: int) -> ChunkVisit:
        return ChunkVisit(number, number * self.every_steps, size)

    def _padded(self, order: np.ndarray | None) -> np.ndarray | None:
        """An order that is as long in every window; nothing reads what comes after the visit's size."""
        if order is None:
            return None
        if len(order) > self._most_places:
            raise DataError(
                f"{self._stream.files.manifest.name} has more images of a class than its {SPEC_NAME} states "
                f"({list(self._stream.class_counts)}); prepare the set again."
            )
        return np.pad(order.astype(np.int32), (0, self._most_places - len(order)))
