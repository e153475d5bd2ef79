"""Reads a data set's images and labels into host memory.

Shapes: `N` images, `H W C` height, width and channels.
"""

import dataclasses
import functools
import hashlib

import keras
import numpy as np

from trainer.config import TrainConfig
from trainer.data import derived, stacked
from trainer.data.catalogue import DOWNLOADED, DatasetInfo, derived_source, describe, prepared_dir, stacked_source
from trainer.data.prepared import read_prepared
from trainer.errors import DataError

_KERAS_CACHE = {
    "mnist": "~/.keras/datasets/mnist.npz",
    "fashion_mnist": "~/.keras/datasets/fashion-mnist/ (four *-ubyte.gz files)",
    "cifar10": "~/.keras/datasets/cifar-10-batches-py-target_archive (the file cifar-10-python.tar.gz)",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """A data set in host memory."""

    images: np.ndarray
    """uint8 [N, H, W, C] in [0, 255]."""
    labels: np.ndarray
    """int32 [N] in [0, info.num_classes)."""
    info: DatasetInfo

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images, their labels and their shape: 64 hex digits, equal for equal data in equal order."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def load(name: str, classes: tuple[int, ...] | None = None, padding: int = 0) -> Arrays:
    """Loads a data set: the embedded one, a directory's, the training split of one that keras.datasets downloads, or
    one that is stacked or derived from any of these.

    Args:
        name: a name or directory that `trainer.data.describe` knows.
        classes: labels to keep; `None` keeps all. Labels keep their numbers.
        padding: pixels of value 0 on every side of every image, at least 0: 2 makes 28x28 into 32x32.

    Returns:
        The images in the data set's own order.

    Raises:
        ConfigError: if the name or a class is unknown, or the padding is negative.
        DataError: if a file is damaged, a download fails, or the data are not what the description states.
    """
    info = describe(name, padding).with_classes(classes)
    if name.startswith(stacked.PREFIX):
        source = load(stacked_source(name), padding=padding)
        return Arrays(*stacked.stack(source.images, source.labels, classes), info)
    derivation, source_name = derived_source(name)
    if derivation:
        whole = load(source_name, classes, padding)
        return Arrays(derived.DERIVATIONS[derivation](whole.images), whole.labels, info)
    if name in DOWNLOADED:
        images, labels = _load_downloaded(DOWNLOADED[name])
    else:
        images, labels, _ = read_prepared(prepared_dir(name))
    if classes is not None:
        kept = np.isin(labels, classes)
        images, labels = images[kept], labels[kept]
    if padding:
        images = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return Arrays(images, labels, info)


def load_for(config: TrainConfig) -> tuple[Arrays, Arrays | None]:
    """Loads what a config trains on: its data set, and its other domain or None.

    Raises:
        ConfigError, DataError: as `load`.
    """
    arrays = load(config.dataset, config.classes, config.padding)
    return arrays, load(config.dataset_b, None, config.padding) if config.dataset_b else None


def _load_downloaded(info: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
    dataset = getattr(keras.datasets, info.name)
    try:
        (images, labels), _ = dataset.load_data()
    except Exception as error:  # keras.utils.get_file raises bare Exception when a download fails
        raise DataError(
            f"{info.name} could not be downloaded or read by keras.datasets ({error}); put it by hand at "
            f"{_KERAS_CACHE[info.name]}, or use --dataset=digits, which needs no download."
        ) from error
    images = images.reshape(-1, *info.image_shape)
    labels = labels.reshape(-1).astype(np.int32)
    counts = tuple(np.bincount(labels, minlength=info.num_classes).tolist())
    if counts != info.class_counts:
        raise DataError(
            f"{info.name} holds {list(counts)} images a class, expected {list(info.class_counts)}; "
            f"delete {_KERAS_CACHE[info.name]} and download it again."
        )
    return images, labels
