"""Writing TFRecord shards: one after the other, each copied to where the set lies while the next one is written."""

import concurrent.futures
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from trainer.data.dataset_spec import Shard
from trainer.errors import StorageError
from trainer.storage import Location, file_crc32c, file_sha256

_PREFIX = "images-"
_SHARD = rf"{_PREFIX}[0-9]{{5,}}\.tfrecord"
_LEFT = re.compile(rf"{_SHARD}|\.{_SHARD}\.partial")


class ShardWriter:
    """Writes records into shards of a size; to be closed.

    Args:
        scratch: A local folder for the shards that are not copied yet.
        out: Where they go.
        shard_mib: Size from which on a new one begins, MiB.
    """

    def __init__(self, scratch: Path, out: Location, shard_mib: float):
        self._scratch, self._out = scratch, out
        self._limit = shard_mib * 2**20
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._copied: list[concurrent.futures.Future[Shard]] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._records = self._bytes = 0

    def close(self) -> None:
        """Returns when nothing is being copied any more."""
        if self._writer is not None:
            with contextlib.suppress(tf.errors.OpError):  # what was not finished is of no use
                self._writer.close()
        self._thread.shutdown(cancel_futures=True)

    def add(self, png: bytes, label: int) -> None:
        """Writes one record.

        Raises:
            StorageError: The disk is full, or a shard before it could not be copied.
        """
        record = serialized(png, label)
        with self._explained():
            if self._writer is None:
                self._writer = tf.io.TFRecordWriter(str(self._path))
            self._writer.write(record)
        self._records += 1
        self._bytes += len(record)
        if self._bytes >= self._limit:
            self._end_shard(self._writer)

    def finish(self) -> tuple[Shard, ...]:
        """Waits until all is copied; what was written.

        Raises:
            StorageError: The disk is full, or a shard could not be copied.
        """
        if self._writer is not None:
            self._end_shard(self._writer)
        return tuple(future.result() for future in self._copied)

    @property
    def _path(self) -> Path:
        return self._scratch / f"{_PREFIX}{len(self._copied):05d}.tfrecord"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise StorageError(
                f"{self._path} cannot be written ({error.message.rpartition('; ')[2]}); free space on its disk, or let "
                "TMPDIR name a folder on another one."
            ) from error

    def _end_shard(self, writer: tf.io.TFRecordWriter) -> None:
        path, self._writer = self._path, None
        with self._explained():
            writer.close()
        if len(self._copied) > 1:
            self._copied[-2].result()  # an error surfaces early, and few shards wait on the disk
        self._copied.append(self._thread.submit(self._copy, path, self._records))
        self._records = self._bytes = 0

    def _copy(self, path: Path, records: int) -> Shard:
        shard = described(path, records)
        self._out.upload(path.parent, [path.name])
        path.unlink()
        return shard


def left_by_writer(out: Location) -> list[str]:
    """Names of the files that a `ShardWriter` left at the top of a folder: shards, and one that was half copied.

    Raises:
        StorageError: It cannot be listed.
    """
    return [entry.name for entry in out.entries(deep=False) if _LEFT.fullmatch(entry.name)]


def serialized(png: bytes, label: int) -> bytes:
    """A record: a `tf.train.Example` of one image and its label."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def described(path: Path, num_examples: int) -> Shard:
    """What the manifest says of a shard."""
    return Shard(
        file=path.name,
        num_examples=num_examples,
        num_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        crc32c=file_crc32c(path),
    )
