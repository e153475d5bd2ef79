"""Reading of datasets and data loaders of other libraries into memory.

| Object | Examples |
|---|---|
| `tf.data.Dataset` | images, or (images, labels), batched or not; refused if it repeats forever |
| `keras.utils.PyDataset` | batches of images, or of (images, labels) |
| `torch.utils.data.DataLoader` | batches of images, or of (images, labels) |
| other objects with a length and items, such as `torch.utils.data.Dataset` | images, or (image, label) |
| a pair (x, y) | images and labels, or images of two domains |

Instead of a pair, an example may be a dict with the keys `image` and `label`. The data is read once, in the order of
the object, and may take a quarter of the memory. Objects whose length is not known are refused.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.data.datasets import machine_memory_mib
from trainer.data.field_names import IMAGE_NAMES, LABEL_NAMES
from trainer.errors import DataError, count_of, quote
from trainer.models.arrays import as_array

_IMAGE_KEYS = frozenset({*IMAGE_NAMES, "pixel_values"})
_LABEL_KEYS = frozenset(LABEL_NAMES)
_USUAL_RANK = 3
"""Number of dimensions of an image if the networks do not show it."""
_PREPARE = "write the images to files and prepare them with python -m trainer prepare"


@dataclass(frozen=True)
class _Examples:
    """The examples of an object.

    Attributes:
        items: Images, pairs of images and labels, or dicts of them.
        count: Number of items.
        is_batched: True if each item is a batch; None if its number of dimensions decides.
        is_channels_first: True if images may be [C, H, W], as PyTorch has them.
    """

    items: Iterable[Any]
    count: int
    is_batched: bool | None
    is_channels_first: bool = False


def read_pair(x: Any, y: Any, image_rank: int | None) -> tuple[Any, Any, int | None]:
    """Returns the two arguments of `GAN.fit` as arrays, if they are datasets or data loaders, or if `x` is a pair.

    The third value is the size of their batches: that of the first batch of `x`, or else of `y`; None without batches.

    Args:
        x: Images, or images with labels.
        y: Labels, images of the second domain, or None.
        image_rank: Number of dimensions of an image; None if it is not known.

    Raises:
        DataError: If an object cannot be read into memory, or both arguments have labels.
    """
    if isinstance(y, Mapping):
        raise DataError(f"y is a dict with the keys {quote(list(y))}; pass the labels or images alone.")
    if isinstance(x, Mapping) or _is_pair(x, y, image_rank):
        x, labels = _split(x, "x")
        y = _only(labels, y)
    images, labels, batch_size = _read(x, "x", image_rank)
    targets, other, target_batch_size = _read(y, "y", image_rank)
    if other is not None:
        raise DataError(f"y is a {type(y).__name__} of pairs; pass labels, or images of the second domain, alone.")
    return images, _only(labels, targets), batch_size or target_batch_size


def _only(labels: Any, y: Any) -> Any:
    if labels is not None and y is not None:
        raise DataError("x has labels, but y was passed, too; pass y=None, or x without labels.")
    return y if labels is None else labels


def _is_pair(x: Any, y: Any, image_rank: int | None) -> bool:
    """Returns whether `x` is a tuple (images, labels), and not a tuple of two images."""
    if not isinstance(x, tuple) or len(x) != 2 or y is not None:
        return False
    first, second = (len(value.shape) if hasattr(value, "shape") else None for value in x)
    return first is None or first != second or first != image_rank


def _read(value: Any, name: str, image_rank: int | None) -> tuple[Any, Any, int | None]:
    """Returns images, labels, and the batch size of a dataset or data loader; other objects unchanged, and None."""
    limit = machine_memory_mib() * 2**20 / 4
    examples = _examples_of(value, name, image_rank)
    if examples is None:
        if _is_from(value, "h5py") and value.nbytes > limit:
            raise _too_large(value, name, limit)
        return _channels_last(as_array(value, name)) if _is_from(value, "torch") else value, None, None
    columns: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    total, is_batched = 0, examples.is_batched
    for number, item in enumerate(examples.items):
        for column, part in zip(columns, _split(item, name), strict=True):
            if part is not None:
                column.append(as_array(part, name))
                total += column[-1].nbytes
        if is_batched is None:
            is_batched = columns[0][0].ndim > (_USUAL_RANK if image_rank is None else image_rank)
        expected = total if number else total * examples.count
        if expected > limit:
            raise _too_large(value, name, limit)
    images, labels = (_join(column, bool(is_batched), name) if column else None for column in columns)
    if images is None:
        raise DataError(f"{name} is a {type(value).__name__} without examples; pass at least one image.")
    if labels is not None and len(labels) != len(images):
        raise DataError(
            f"{name} has {count_of(len(labels), 'label')} for {count_of(len(images), 'image')}; pass one label per "
            "image."
        )
    batch_size = len(columns[0][0]) if is_batched else None
    return _channels_last(images) if examples.is_channels_first else images, labels, batch_size


def _too_large(value: object, name: str, limit: float) -> DataError:
    kind, gib = type(value).__name__, limit / 2**30
    return DataError(f"{name} is a {kind} with more than {gib:.1f} GiB, a quarter of the memory; {_PREPARE}.")


def _channels_last(images: np.ndarray) -> np.ndarray:
    """Returns images [N, C, H, W] as [N, H, W, C], and other arrays unchanged."""
    is_first = images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3)
    return np.moveaxis(images, 1, -1) if is_first else images


def _join(parts: Sequence[np.ndarray], is_batched: bool, name: str) -> np.ndarray:
    try:
        return np.concatenate(parts) if is_batched else np.stack(parts)
    except ValueError as error:
        shapes = sorted({part.shape[is_batched:] for part in parts})
        raise DataError(
            f"{name} has examples of different shapes, {quote(shapes)}; resize them to one size."
        ) from error


def _split(item: Any, name: str) -> tuple[Any, Any]:
    """Returns the image or images of an item, and its label or labels or None."""
    if isinstance(item, Mapping):
        images, labels = ([value for key, value in item.items() if key in keys] for keys in (_IMAGE_KEYS, _LABEL_KEYS))
        if len(images) != 1 or len(labels) > 1:
            raise DataError(
                f"{name} has the keys {quote(list(item))}; name the images image and the labels label, or pass pairs."
            )
        return images[0], labels[0] if labels else None
    if not isinstance(item, (tuple, list)):
        return item, None
    if len(item) not in (1, 2):
        raise DataError(
            f"{name} has examples of {count_of(len(item), 'part')}; pass images, or pairs of images and labels."
        )
    return item[0], item[1] if len(item) == 2 else None


def _examples_of(value: Any, name: str, image_rank: int | None) -> _Examples | None:
    """Returns the examples of a dataset or data loader; None for an array, tensor, list or pandas object."""
    kind = type(value).__name__
    if isinstance(value, tf.data.Dataset):
        cardinality = int(value.cardinality())
        if cardinality == tf.data.INFINITE_CARDINALITY:
            raise DataError(f"{name} is a {kind} that repeats forever; remove repeat(), and set epochs instead.")
        if cardinality == tf.data.UNKNOWN_CARDINALITY:
            raise DataError(
                f"{name} is a {kind} of unknown length, which may not end; state its length with "
                "apply(tf.data.experimental.assert_cardinality(N)), or bound it with take(N)."
            )
        return _Examples(_read_dataset(value, name), cardinality, _is_batched(value, name, image_rank))
    if isinstance(value, keras.utils.PyDataset):
        num_batches = _num_batches(value)
        if num_batches is None:
            raise DataError(f"{name} is a {kind} without an end; define num_batches, or pass arrays.")
        return _Examples((value[i] for i in range(num_batches)), num_batches, True)
    if value is None or isinstance(value, (list, tuple, str, bytes, memoryview)) or hasattr(value, "__array__"):
        return None
    is_torch, count = _is_from(value, "torch.utils.data"), _length(value)
    if isinstance(value, Iterator) or count is None:
        if not hasattr(value, "__iter__"):
            return None
        raise DataError(
            f"{name} is a {kind}, whose length is not known and which may not end; pass arrays, such as "
            f"numpy.stack(list(itertools.islice({name}, N))), or {_PREPARE}."
        )
    if is_torch and hasattr(value, "batch_sampler"):
        return _Examples(itertools.islice(value, count), count, value.batch_sampler is not None, True)
    if hasattr(value, "__getitem__"):
        return _Examples((value[i] for i in range(count)), count, False, is_torch)
    return None


def _is_batched(dataset: tf.data.Dataset, name: str, image_rank: int | None) -> bool | None:
    """Returns whether the elements of a dataset are batches; None if the first element decides.

    The rank decides if it is that of an image or of a batch of images. A decoded file has an unknown height, as a batch
    has an unknown size. Labels have a smaller rank, so that an unknown first dimension decides.

    Raises:
        DataError: If the elements are datasets, as those of `window`.
    """
    images = _split(dataset.element_spec, name)[0]
    if isinstance(images, tf.data.DatasetSpec):
        raise DataError(f"{name} is a {type(dataset).__name__} of datasets; use batch(N) instead of window(N).")
    shape = getattr(images, "shape", None)
    if shape is None:
        raise DataError(
            f"{name} is a {type(dataset).__name__} with a {type(images).__name__} in place of images; map its elements "
            "to images, or to pairs of images and labels."
        )
    image_rank = _USUAL_RANK if image_rank is None else image_rank
    if shape.rank in (image_rank, image_rank + 1) and (name == "x" or shape.rank >= _USUAL_RANK):
        return bool(shape.rank > image_rank)
    return True if shape.rank and shape[0] is None else None


def _read_dataset(dataset: tf.data.Dataset, name: str) -> Iterator[Any]:
    """Yields the elements of a dataset as arrays.

    Raises:
        DataError: If an element cannot be computed, or there are more or fewer than the dataset states.
    """
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0].partition(" [Op:")[0].rpartition("}} ")[2]
        raise DataError(f"{name} is a {type(dataset).__name__} that cannot be read: {reason} Correct it.") from error


def _num_batches(dataset: keras.utils.PyDataset) -> int | None:
    """Returns the number of batches of a dataset of Keras; None if it has no number from 0 up."""
    try:
        count = dataset.num_batches
    except ValueError:  # its length is negative
        return None
    return None if count is None or count < 0 else int(count)


def _length(value: Any) -> int | None:
    """Returns the length of an object; None if it has none, as a data loader of an iterable without length."""
    try:
        return len(value)
    except TypeError:
        return None


def _is_from(value: object, module: str) -> bool:
    """Returns whether the class of an object, or a base class, is from a module, without importing that."""
    return any(f"{kind.__module__}.".startswith(f"{module}.") for kind in type(value).__mro__)
