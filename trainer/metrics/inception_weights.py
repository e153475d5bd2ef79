"""The published weights of the Inception network: where they come from, their verification, and their cache.

The weights are a frozen graph, published in an archive. Importing this module does not import TensorFlow.
"""

import gzip
import hashlib
import http.client
import io
import logging
import os
import re
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from trainer.config.web_address import check_web_address, is_web_address
from trainer.errors import ConfigError, DataError, StorageError, TrainerError, escape, quote
from trainer.storage import cache_folder, is_remote, local_path, locate, without_mount
from trainer.storage.local import LocalLocation
from trainer.storage.local_files import remove_leftovers

DOWNLOAD = "download"
"""Weights that stand for the published address."""
ADDRESS = "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz"
GRAPH_NAME = "classify_image_graph_def.pb"
_MAX_BYTES = 2**27
"""Maximum size of a graph, and of an archive before and after it is unpacked."""
_CONNECTION_TIMEOUT_SECS = 60.0
_DOWNLOAD_TIMEOUT_SECS = 1800.0
_BLOCK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_ADVICE = f"fetch {ADDRESS} again, and pass that file"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedFile:
    """Size in bytes and MD5 of a frozen graph, and the size in bytes of the archive that contains it."""

    num_bytes: int
    md5: str
    archive_bytes: int


PUBLISHED = PublishedFile(95_673_916, "e6bb154e85f5d4331c22abcddb5dcf31", 88_931_400)


def find(weights: str | None, expected: PublishedFile | None = None) -> Path:
    """Returns the local path of verified weights, which are then also in the cache.

    The graph or its archive may have any name. A graph in the cache is used instead of a remote one.

    Args:
        weights: Local path, `gs://BUCKET/NAME`, `http://` or `https://` address, `download` for the published address,
            or None for the weights in the cache.
        expected: File that the weights must be. None: `PUBLISHED`.

    Raises:
        ConfigError: If `weights` is None and the cache does not contain them, if the user has no home directory for the
            cache, or if the address is malformed or has a password or a query.
        DataError: If the file is not the expected one.
        StorageError: If the file cannot be read or fetched, or the cache cannot be written.
    """
    expected = expected or PUBLISHED
    if weights is not None:
        check_web_address("inception_weights", weights)
        weights = without_mount(weights)
    is_local = weights not in (None, DOWNLOAD) and not is_remote(weights) and not is_web_address(weights)
    if not is_local and is_cached(expected):
        return _cache_path()
    if weights is None:
        raise _missing()
    if not is_local:
        _cache_path()  # without a cache, nothing is downloaded
    graph = _verified(_fetch(ADDRESS if weights == DOWNLOAD else weights, expected), weights, expected)
    try:
        if not is_cached(expected):
            path = _cache_path()
            remove_leftovers(path.parent, re.escape(GRAPH_NAME))
            LocalLocation(path).write_bytes(graph)
        return _cache_path()
    except TrainerError as error:
        if not is_local:
            raise
        _logger.warning("The weights of the Inception network are not kept in the cache: %s", error)
        return local_path(weights)


def is_cached(expected: PublishedFile | None = None) -> bool:
    """Returns whether the cache contains verified weights.

    Args:
        expected: File that the weights must be. None: `PUBLISHED`.
    """
    expected = expected or PUBLISHED
    try:
        path = _cache_path()
        if path.stat().st_size != expected.num_bytes:
            return False
        return _md5(LocalLocation(path).read_bytes(expected.num_bytes)) == expected.md5
    except (TrainerError, OSError):  # there is no such file, or it cannot be read
        return False


def check(weights: str | None, expected: PublishedFile | None = None) -> None:
    """Checks that a job on another machine can get the weights. Nothing is fetched.

    An absolute path is that of a file in the container image. It is not checked, because it does not exist here.

    Args:
        weights: Weights as for `find`.
        expected: File that the weights must be. None: `PUBLISHED`.

    Raises:
        ConfigError: If the weights are missing, in a relative path, or at an address that is malformed.
        DataError: If the object in the bucket has another size than the graph and its archive.
        StorageError: If the object cannot be read.
    """
    expected = expected or PUBLISHED
    if weights is None:
        raise _missing()
    check_web_address("inception_weights", weights)
    weights = without_mount(weights)
    if weights == DOWNLOAD or is_web_address(weights) or os.path.isabs(weights):
        return
    if not is_remote(weights):
        raise ConfigError(
            f"inception_weights={local_path(weights)} is a local file, which is not copied to a job; copy it into a "
            "bucket with gcloud storage cp and pass --inception_weights=gs://BUCKET/NAME, or pass "
            f"--inception_weights={DOWNLOAD} or an absolute path in the container image."
        )
    num_bytes = locate(weights).num_bytes()
    if num_bytes not in (expected.num_bytes, expected.archive_bytes):
        raise DataError(
            f"inception_weights={weights} has {num_bytes:,} bytes, expected {expected.num_bytes:,} (the graph) or "
            f"{expected.archive_bytes:,} (its archive); {_ADVICE}."
        )


def read_graph(path: str | os.PathLike[str]) -> bytes:
    """Returns the serialized graph in a local file, which is the graph or an archive that contains it.

    Raises:
        DataError: If the file is a damaged archive, or one without the graph.
        StorageError: If the file cannot be read, or is larger than any such file.
    """
    return _unpack(locate(path).read_bytes(_MAX_BYTES), os.fspath(path))


def _cache_path() -> Path:
    return cache_folder("inception") / GRAPH_NAME


def _missing() -> ConfigError:
    return ConfigError(
        f"the weights of the Inception network are missing; run `curl -O {ADDRESS}` and pass "
        f"`--inception_weights={ADDRESS.rpartition('/')[2]}` (a job needs a copy in a bucket), or pass "
        f"`--inception_weights={DOWNLOAD}`."
    )


def _fetch(weights: str, expected: PublishedFile) -> bytes:
    """Returns the content of a file in any place."""
    max_bytes = max(expected.num_bytes, expected.archive_bytes)
    if is_web_address(weights):
        return _download(weights, max_bytes)
    if not is_remote(weights) and local_path(weights).is_dir():
        raise ConfigError(f"inception_weights={escape(weights)} is a folder; pass the file {GRAPH_NAME} in it.")
    return locate(weights).read_bytes(max_bytes)


def _download(url: str, max_bytes: int) -> bytes:
    """Returns the content of an address on the internet. One that is too large is cut after `max_bytes` + 1 bytes."""
    shown = quote(url)
    _logger.info("Downloading the weights of the Inception network from %s.", shown)
    deadline = time.monotonic() + _DOWNLOAD_TIMEOUT_SECS
    content = bytearray()
    advice = "check the address and the network, or pass a local file or gs://BUCKET/NAME"
    try:
        with urllib.request.urlopen(url, timeout=_CONNECTION_TIMEOUT_SECS) as response:
            while len(content) <= max_bytes and (block := response.read1(_BLOCK_BYTES)):
                content += block
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"inception_weights={shown} takes longer than {_DOWNLOAD_TIMEOUT_SECS:.0f} s; {advice}."
                    )
    except urllib.error.HTTPError as error:
        error.close()
        raise StorageError(f"inception_weights={shown} gives the HTTP status {error.code}; {advice}.") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # UnicodeError: a part of the host is too long
        reason = getattr(error, "reason", None) or error
        raise StorageError(f"inception_weights={shown} cannot be fetched ({reason}); {advice}.") from error
    return bytes(content[: max_bytes + 1])


def _verified(content: bytes, weights: str, expected: PublishedFile) -> bytes:
    """Returns the graph in a file after its size and MD5 were checked."""
    source = f"inception_weights={escape(weights)}"
    graph = _unpack(content, source)
    if len(graph) != expected.num_bytes:
        raise DataError(
            f"{source} has a graph of {len(graph):,} bytes, expected {expected.num_bytes:,}: it is cut or another "
            f"file; {_ADVICE}."
        )
    if (md5 := _md5(graph)) != expected.md5:
        raise DataError(
            f"{source} has the MD5 {md5}, expected {expected.md5}: it is damaged or another graph; {_ADVICE}."
        )
    return graph


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # the only hash that is published


def _unpack(content: bytes, source: str) -> bytes:
    """Returns the graph in an archive, or the content itself if it is not compressed. No file is written."""
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            files = stream.read(_MAX_BYTES + 1)
        if len(files) <= _MAX_BYTES:
            with tarfile.open(fileobj=io.BytesIO(files), mode="r:") as archive:
                for member in archive:
                    is_graph = member.isreg() and member.name.rpartition("/")[2] == GRAPH_NAME
                    if is_graph and (file := archive.extractfile(member)):
                        return file.read(_MAX_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError) as error:
        raise DataError(f"{source} is not a complete .tgz archive ({error}); {_ADVICE}.") from error
    raise DataError(f"{source} is an archive without {GRAPH_NAME}; {_ADVICE}.")
