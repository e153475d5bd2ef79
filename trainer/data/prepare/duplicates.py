"""Images with the same content as an earlier image of their source.

The first image in the order of the source stays, so that the result depends only on the images, and is the same on all
machines. Only images of equal size can have the same content, so that only those are read.
"""

import logging
from pathlib import Path

import numpy as np

from trainer.data.prepare.contents import NUM_DIGITS, digest_content, join_digests
from trainer.data.prepare.encoding import read_content
from trainer.data.prepare.shard_commit import Rejected
from trainer.data.prepare.sources import Source
from trainer.data.prepare.sources.pairs import PairedSource
from trainer.errors import DataError, count_of, quote
from trainer.storage import scratch_folder
from trainer.storage.parallel import call_in_parallel

_NUM_SUBMITTED = 1024
"""Number of images that are submitted to the threads at a time."""

_logger = logging.getLogger(__name__)


def drop_duplicates(source: Source, indices: np.ndarray) -> tuple[np.ndarray, tuple[Rejected, ...]]:
    """Finds images with the same content. Of pairs, the inputs must be the same, too.

    Args:
        source: Source of images.
        indices: Indices of the images to compare, in ascending order, int64 [N].

    Returns:
        The indices of the images that stay, int64, in ascending order; and the images that are left out.

    Raises:
        StorageError: If a bucket or a disk cannot be read, or the disk for temporary files is full.
    """
    sources = [source]
    if isinstance(source, PairedSource) and source.image_side is None:  # else the input is in the same file
        sources.append(source.inputs)
    sizes = np.array([[each.num_bytes(index) for each in sources] for index in indices.tolist()], np.int64)
    _, groups, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    candidates = indices[counts[groups.ravel()] > 1]
    if not len(candidates):
        return indices, ()
    _logger.info(f"Comparing the contents of {count_of(len(candidates), 'image')} that have the size of another one.")
    digests = digest_contents(sources, candidates.tolist())
    _, first, groups = np.unique(digests, return_index=True, return_inverse=True)
    originals = candidates[first[groups.ravel()]]
    is_duplicate = (originals != candidates) & (digests != b"")
    rejected = tuple(
        Rejected(source.items[index].name, _reason(source, index, original), True)
        for index, original in zip(candidates[is_duplicate].tolist(), originals[is_duplicate].tolist(), strict=True)
    )
    return np.setdiff1d(indices, candidates[is_duplicate], assume_unique=True), rejected


def _reason(source: Source, index: int, original: int) -> str:
    label, original_label = source.items[index].label, source.items[original].label
    others = "" if label == original_label else f" of the class {quote(source.class_names[original_label])}"
    return f"has the same content as {quote(source.items[original].name)}{others}"


def digest_contents(sources: list[Source], indices: list[int]) -> np.ndarray:
    """Returns a digest of the content of each image, bytes [N]; empty if an image cannot be read.

    Args:
        sources: Sources of the images and, for pairs, of their inputs.
        indices: Indices of the images in each source.

    Raises:
        StorageError: If a bucket or a disk cannot be read, or the disk for temporary files is full.
    """
    digests = np.zeros(len(indices), f"S{NUM_DIGITS}")
    with scratch_folder() as scratch:
        for start in range(0, len(indices), _NUM_SUBMITTED):
            block = indices[start : start + _NUM_SUBMITTED]
            digests[start : start + len(block)] = call_in_parallel(
                lambda index: _digest(sources, index, scratch), block
            )
    return digests


def _digest(sources: list[Source], index: int, scratch: Path) -> bytes:
    """Returns the digest of an image and its input; empty if one of them cannot be read.

    The conversion reads such an image again, and rejects it with the reason.
    """
    digests = []
    try:
        for number, source in enumerate(sources):
            folder = scratch / str(number)
            folder.mkdir(exist_ok=True)
            digests.append(digest_content(read_content(source, index, folder)))
    except DataError:
        return b""
    return join_digests(digests)
