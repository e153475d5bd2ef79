"""Reads and encodes the images of a source. Threads read ahead, and processes decode, with bounded memory.

Contents that wait for their decoding are bounded in number and in bytes, also those that wait in files.
"""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from trainer.data.prepare.contents import Content, TemporaryCopy, check_file_size
from trainer.data.prepare.decoder_pool import DecoderPool
from trainer.data.prepare.decoding import Encoded, encode
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources import Source
from trainer.errors import DataError, StorageError, quote

_BATCH_SIZE = 16
_BATCH_PIXELS = 2**22
_LARGE_BYTES = 2**20
"""Size of a content that is handed to the decoding processes in a file, and in a batch of its own."""
_MAX_WAITING_BYTES = 2**28
_NUM_READER_THREADS = 8
_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")
_Numbered = tuple[int, Content | DataError]
"""Index of an image in the source, and its content or the error of reading it."""


def encode_images(
    source: Source, indices: Sequence[int], target: Target, num_processes: int | None, scratch: Path
) -> Iterator[Encoded]:
    """Yields the result for every image, in order.

    Args:
        source: Source of the images.
        indices: Indices in the source.
        target: Format of the results.
        num_processes: Number of decoding processes. 1: this process decodes. None: one per core.
        scratch: Local folder for contents that wait for their decoding.

    Raises:
        DataError: If a decoding process was killed.
        StorageError: If an image cannot be read for a reason that is not in the image.
    """
    num_processes = num_processes or len(os.sched_getaffinity(0))

    def read(index: int) -> _Numbered:
        try:
            return index, read_content(source, index, scratch)
        except DataError as error:
            return index, error

    with concurrent.futures.ThreadPoolExecutor(_NUM_READER_THREADS) as threads:
        contents: Iterator[_Numbered]
        if indices and source.path(indices[0]) is not None:
            contents = map(read, indices)
        else:
            depth = _BATCH_SIZE * num_processes
            contents = _map_ahead(lambda index: threads.submit(read, index), indices, depth, source.num_bytes)
        if num_processes == 1:
            for _, content in contents:
                yield encode(target, content)
            return
        with contextlib.closing(DecoderPool(target, num_processes)) as pool:
            batches = _make_batches(contents, source, target)
            try:
                for results in _map_ahead(
                    pool.submit, batches, num_processes + 2, lambda batch: _num_bytes(source, batch)
                ):
                    yield from results
            except concurrent.futures.process.BrokenProcessPool as error:
                names = " or ".join(quote(source.items[index].name) for index in pool.current_images())
                raise DataError(
                    f"a process was killed while it decoded {names or 'images'}, perhaps because the memory was full; "
                    "remove the image, or use fewer --num_workers."
                ) from error


def read_content(source: Source, index: int, scratch: Path) -> Content:
    """Returns the content of an image. A large content is in a file, so that it takes no memory while it waits.

    Args:
        source: Source of the images.
        index: Index in the source.
        scratch: Local folder for large contents.

    Raises:
        DataError: If the image cannot be read. The message completes a sentence that begins with the image's name.
        StorageError: If a bucket cannot be read, or the disk of `scratch` is full.
    """
    path = source.path(index)
    if path is not None:
        return path
    num_bytes = source.num_bytes(index)
    check_file_size(num_bytes or 1)
    if num_bytes <= _LARGE_BYTES or not source.has_files:
        return source.read(index)
    copy = TemporaryCopy(scratch / f"image-{index}")
    try:
        source.copy(index, copy.path)
    except BaseException as error:
        copy.path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(
                f"{copy.path} cannot be written ({error.strerror or error}); free space on its disk, or set TMPDIR to "
                "a folder on another disk."
            ) from error
        raise
    return copy


def _make_batches(contents: Iterable[_Numbered], source: Source, target: Target) -> Iterator[list[_Numbered]]:
    """Divides contents into batches of some images, or of one large image."""
    num_pixels = (target.height or 1) * (target.width or 1)
    max_size = max(1, min(_BATCH_SIZE, _BATCH_PIXELS // num_pixels))
    batch: list[_Numbered] = []
    for content in contents:
        batch.append(content)
        if len(batch) == max_size or _num_bytes(source, batch) >= _LARGE_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _num_bytes(source: Source, batch: Sequence[_Numbered]) -> int:
    return sum(0 if isinstance(content, Path) else source.num_bytes(index) for index, content in batch)


def _map_ahead(
    submit: Callable[[_Argument], concurrent.futures.Future[_Result]],
    arguments: Iterable[_Argument],
    depth: int,
    num_bytes: Callable[[_Argument], int],
) -> Iterator[_Result]:
    """Yields the results of a function in the order of its arguments.

    Args:
        submit: Function that starts a call.
        arguments: Arguments of the calls.
        depth: Maximum number of further calls that run.
        num_bytes: Function that returns the size of an argument. All running calls together have at most
            `_MAX_WAITING_BYTES`, if there is more than one.
    """
    running: collections.deque[tuple[concurrent.futures.Future[_Result], int]] = collections.deque()
    total = 0
    try:
        for argument in arguments:
            size = num_bytes(argument)
            while running and (len(running) > depth or total + size > _MAX_WAITING_BYTES):
                future, finished_size = running.popleft()
                yield future.result()
                total -= finished_size
            running.append((submit(argument), size))
            total += size
        while running:
            yield running.popleft()[0].result()
    finally:
        for future, _ in running:
            future.cancel()
