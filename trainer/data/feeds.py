"""What a run's steps are taken from, window after window.

Legend: `N` images in a window, `H W C` an image.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np

from trainer.data.balance import balanced_order, balanced_size
from trainer.data.cut import Cut
from trainer.data.prepared import read_shards
from trainer.data.shard_files import ShardFiles
from trainer.data.windows import Visit, Window
from trainer.errors import DataError

Made = Callable[[np.ndarray, np.ndarray | None], Window]
"""What makes a window of images uint8 [N, H, W, C] and labels int32 [N]."""


class Feed(abc.ABC):
    """Windows in the order of the steps; to be closed.

    Attributes:
        steps_per_epoch: Steps of a pass over the data.
        every_steps: Steps between two windows; 0 where there is one alone.
    """

    steps_per_epoch: int
    every_steps = 0

    @abc.abstractmethod
    def window(self, step: int) -> Window:
        """The window that step number `step` is taken from. All windows have arrays of the same shape."""

    def close(self) -> None:  # noqa: B027 (nothing loads where all is in memory)
        """Ends what still loads."""


class Resident(Feed):
    """All of the data, in memory from the first step to the last."""

    def __init__(self, window: Window, global_batch_size: int):
        self._window = window
        self.steps_per_epoch = window.num_examples // global_batch_size

    def window(self, step: int) -> Window:
        return self._window


@dataclasses.dataclass(frozen=True)
class Stream:
    """A prepared set that is trained on window by window; what `GAN.fit` takes in place of arrays.

    Attributes:
        files: Of the set.
        cut: Of the set.
        classes: Labels to keep; None: all.
        padding: Pixels of value 0 on every side of every image.
    """

    files: ShardFiles
    cut: Cut
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
        return hashlib.sha256("".join(shard.sha256 for shard in self.cut.shards).encode()).hexdigest()

    def load(self, visit: int) -> tuple[np.ndarray, np.ndarray, int]:
        """The window that is visited as number `visit`.

        Returns:
            Images uint8 [N, H, W, C] and labels int32 [N], N as large as the largest window, and how many are filled.

        Raises:
            DataError, StorageError: A shard cannot be read.
        """
        images = np.zeros((self.cut.capacity, *self.image_shape), np.uint8)
        labels = np.zeros(self.cut.capacity, np.int32)
        shards, pad, size = self.cut.shards_of(visit), self.padding, 0
        height, width, _ = self.files.manifest.image_shape
        for found, of in read_shards(self.files, shards):
            kept = slice(None) if self.classes is None else np.isin(of, self.classes)
            count = len(of[kept])
            images[size : size + count, pad : pad + height, pad : pad + width] = found[kept]
            labels[size : size + count] = of[kept]
            size += count
        if not size:
            raise DataError(f"window {visit} of {self.files.manifest.name} has no image of the classes that are kept.")
        return images, labels, size


class Streamed(Feed):
    """The windows of a stream: the next one loads while this one trains.

    Args:
        stream: Of the set.
        make: Makes a window of what was loaded.
        global_batch_size: Of the run.
        balance_classes: Show every class of a window as often as any other.
    """

    def __init__(self, stream: Stream, make: Made, global_batch_size: int, balance_classes: bool = False):
        self._stream, self._make, self._balance_classes = stream, make, balance_classes
        windows = stream.cut.num_windows
        num_places = balanced_size(stream.class_counts) if balance_classes else stream.num_examples
        self.every_steps = max(1, num_places // global_batch_size // windows)
        self.steps_per_epoch = self.every_steps * windows
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._loading: dict[int, concurrent.futures.Future[Window]] = {}

    def window(self, step: int) -> Window:
        visit = step // self.every_steps
        current = self._loading.pop(visit, None) or self._thread.submit(self._load, visit)
        window = current.result()
        self._loading = {visit + 1: self._thread.submit(self._load, visit + 1)}
        return window

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _load(self, visit: int) -> Window:
        images, labels, size = self._stream.load(visit)
        order = None
        if self._balance_classes:
            filled = balanced_order(labels[:size])
            order = np.zeros(len(labels) * len(self._stream.class_counts), np.int32)
            size = len(filled)
            order[:size] = filled
        window = self._make(images, labels)
        return dataclasses.replace(window, order=order, visit=Visit(visit, visit * self.every_steps, size))
