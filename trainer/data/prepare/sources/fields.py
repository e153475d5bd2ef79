"""Selects the images, the labels and the class names among the arrays of a file, by their shapes and names."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.data.field_names import IMAGE_NAMES, LABEL_NAMES
from trainer.data.prepare.sources.base import NO_LABELS, SourceOptions
from trainer.data.prepare.sources.splits import choose_splits, without_split
from trainer.errors import ConfigError, DataError, count_of, list_some, quote
from trainer.storage.natural_order import natural_sort_key

_IMAGE_WORDS = (*IMAGE_NAMES, "arr_0")
"""Names of images, preferred among several arrays whose shape fits."""
_LABEL_WORDS = (*LABEL_NAMES, "arr_1")
"""Names of labels."""
_CLASS_NAME_WORDS = ("classes", "class_names", "label_names", "list_classes", "names")
_LABEL_KINDS = "biuUSO"
_MAX_CHARACTER = 0x10FFFF
_SURROGATES = 0xD800
"""First of the 2,048 numbers that are halves of characters."""
MAX_ARRAYS = 1000
"""Maximum number of arrays of a file."""
_BYTES_PER_LABEL = 16
_MIN_LABEL_BYTES = 2**28
_MAX_LISTED = 10


@dataclass(frozen=True)
class ArrayInfo:
    """Shape and type of an array, before its values are read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class ChosenFields:
    """Names of the selected arrays.

    Attributes:
        images: Array of images.
        labels: Array of labels, or None.
        class_names: Array of class names, or None.
        notes: Sentences about the choice.
    """

    images: str
    labels: str | None
    class_names: str | None
    notes: tuple[str, ...]


def choose_fields(arrays: Mapping[str, ArrayInfo], options: SourceOptions, source: str) -> ChosenFields:
    """Selects arrays. The only array with three or four dimensions contains the images, whatever its name is.

    Among several, `x` and similar names are preferred, and of `x_train` and `x_test` the split that the options
    select. Labels are the array with a name such as `y`, or the only array with one class per image.

    Args:
        arrays: Arrays of the file, by name.
        options: Options of the source.
        source: Name of the file, for messages.

    Raises:
        ConfigError: If a selected name is unknown, or several arrays fit.
        DataError: If no array has the shape of images.
    """
    images, notes = _choose_images(arrays, options, source)
    split = without_split(images)[1]
    others = {name: info for name, info in arrays.items() if name != images and without_split(name)[1] in (split, None)}
    labels = _choose_labels(others, arrays[images].shape[0], options, source)
    class_names = [name for name, info in others.items() if _has_class_names(name, info)]
    is_usual = without_split(images)[0] in _IMAGE_WORDS and (not labels or without_split(labels)[0] in _LABEL_WORDS)
    has_choice = options.image_field is not None and options.label_field is not None
    if not has_choice and (not is_usual or (labels is None and others)):
        notes.append(describe_choice(source, images, labels))
    return ChosenFields(images, labels, class_names[0] if labels and len(class_names) == 1 else None, tuple(notes))


def choose_field(
    option: str,
    wanted: str | None,
    known: Collection[str],
    fitting: Sequence[str],
    source: str,
    describe: Callable[[Iterable[str]], str] = lambda names: ", ".join(map(quote, names)) or "(none)",
) -> str | None:
    """Selects an array, a column or a feature.

    Args:
        option: `image_field` or `label_field`.
        wanted: Name that the user states, or None.
        known: All names that can be selected.
        fitting: Names that can be selected without being stated.
        source: Name of the source, for messages.
        describe: Function that returns a list of names for messages.

    Returns:
        The stated name, else the only fitting one; None if none fits.

    Raises:
        ConfigError: If the stated name is unknown, or several names fit.
    """
    remedy = f", or pass --label_field={NO_LABELS} for one class" if option == "label_field" else ""
    if wanted is not None:
        if wanted not in known:
            raise ConfigError(
                f"{option}={quote(wanted)} is not in {source}, which has {describe(known)}; choose one of them{remedy}."
            )
        return wanted
    if len(fitting) > 1:
        raise ConfigError(
            f"{source} has several {'labels' if remedy else 'fields of images'}: {describe(fitting)}; choose one with "
            f"--{option}=NAME{remedy}."
        )
    return fitting[0] if fitting else None


def describe_fields(arrays: Mapping[str, ArrayInfo]) -> str:
    """Returns a list of arrays with their types and shapes."""
    described = (f"{quote(name)} {info.dtype} {list(info.shape)}" for name, info in arrays.items())
    return list_some(described, _MAX_LISTED) or "no arrays"


def describe_choice(source: str, images: str, labels: str | None) -> str:
    """Returns a sentence about the selected arrays, columns or features."""
    return f"{source}: images from {quote(images)}, {f'labels from {quote(labels)}' if labels else 'without labels'}."


def _choose_images(arrays: Mapping[str, ArrayInfo], options: SourceOptions, source: str) -> tuple[str, list[str]]:
    stated = choose_field("image_field", options.image_field, arrays, (), source, lambda _: describe_fields(arrays))
    if stated is not None:
        if options.split not in ((), (without_split(stated)[1],)):
            raise ConfigError(
                f"split={quote(','.join(options.split))} does not work with image_field={quote(stated)}, which names "
                "the array to read; omit one of them."
            )
        return stated, []
    fitting = [name for name, info in arrays.items() if len(info.shape) in (3, 4) and info.dtype.kind in "biuf"]
    if not fitting:
        raise DataError(
            f"{source} has {describe_fields(arrays)}, expected an array of numbers of shape [N, H, W] or [N, H, W, C]; "
            "reshape the images, or convert their type. Arrays of objects are not read, because they can run code."
        )
    preferred = [name for name in fitting if without_split(name)[0] in _IMAGE_WORDS]
    candidates = preferred if len({without_split(name)[0] for name in preferred}) == 1 else fitting
    by_split = {without_split(name)[1] or name: name for name in candidates}
    is_divided = len(by_split) == len(candidates) and len({without_split(name)[0] for name in candidates}) == 1
    if not is_divided or len(options.split) > 1:
        stated_split = f"split={quote(','.join(options.split))} needs one array, and " if is_divided else ""
        raise ConfigError(
            f"{stated_split}{source} has {len(candidates)} arrays that may be images: "
            f"{describe_fields({name: arrays[name] for name in candidates})}; choose one with --image_field=NAME"
            f"{' or --split=NAME' if is_divided else ''}."
        )
    if len(candidates) == 1 and not options.split:
        return candidates[0], []
    sizes = {split: arrays[name].shape[0] for split, name in by_split.items()}
    chosen, note = choose_splits(sizes, options.split, "image", source)
    return by_split[chosen[0]], [note] if note else []


def _choose_labels(others: Mapping[str, ArrayInfo], num_images: int, options: SourceOptions, source: str) -> str | None:
    if options.label_field == NO_LABELS:
        return None
    named = [name for name in others if without_split(name)[0] in _LABEL_WORDS]
    by_shape = [name for name, info in others.items() if _has_class_of_each(info, num_images)]
    fitting = named or [name for name in by_shape if not _has_class_names(name, others[name])] or by_shape
    return choose_field(
        "label_field",
        options.label_field,
        others,
        fitting,
        source,
        lambda names: describe_fields({name: others[name] for name in names}),
    )


def _has_class_of_each(info: ArrayInfo, num_images: int) -> bool:
    return info.shape in ((num_images,), (num_images, 1)) and info.dtype.kind in _LABEL_KINDS


def _has_class_names(name: str, info: ArrayInfo) -> bool:
    return without_split(name)[0] in _CLASS_NAME_WORDS and len(info.shape) == 1 and info.dtype.kind in "USO"


def check_labels(info: ArrayInfo, num_images: int | None, name: str) -> None:
    """Checks the shape and the size of an array of labels, or of class names, before its values are read.

    Args:
        info: Shape and type of the array.
        num_images: Number of images; None for class names.
        name: Name of the array, for messages.

    Raises:
        DataError: If the array does not have one element per image, or is very large.
    """
    if num_images is not None and info.shape[:1] != (num_images,):
        raise DataError(
            f"{name} has shape {list(info.shape)}, expected one integer, text or one-hot vector for each of "
            f"{count_of(num_images, 'image')}; correct the labels."
        )
    num_bytes = count_bytes(info.shape, info.dtype)
    max_bytes = max(_MIN_LABEL_BYTES, _BYTES_PER_LABEL * (num_images or 0))
    if num_bytes > max_bytes:
        raise DataError(f"{name} has {num_bytes:,} bytes, more than {max_bytes:,}; store one integer per image.")


def count_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Returns the size of an array in bytes, also if it is larger than any memory."""
    return int(np.prod(shape, dtype=object)) * dtype.itemsize


def decode_texts(values: np.ndarray, source: str) -> np.ndarray:
    """Returns texts that are stored as bytes as Unicode, and other arrays unchanged.

    Raises:
        DataError: If a text is not UTF-8, or has a number that is no character.
    """
    if values.dtype.kind not in "SU":
        return values
    problem = f"{source} has texts that are not Unicode; save them as UTF-8."
    if values.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(problem) from error
    numbers = np.ascontiguousarray(values).view(np.dtype("u4").newbyteorder(values.dtype.byteorder))
    if ((numbers > _MAX_CHARACTER) | (numbers >> 11 == _SURROGATES >> 11)).any():
        raise DataError(problem)
    return values


def as_classes(
    values: np.ndarray, num_images: int, class_names: Sequence[str] | None, source: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Converts an array of labels to class numbers.

    Args:
        values: Integers or texts of shape [N] or [N, 1], or one-hot vectors of shape [N, K].
        num_images: Number of images, N.
        class_names: Names of the classes 0, 1, …, or None.
        source: Name of the labels, for messages.

    Returns:
        The labels, int64 [N], and the class names by label: the given ones, else one for each class with an image.

    Raises:
        DataError: If the labels do not fit.
    """
    values = decode_texts(values, source)
    if values.shape == (num_images, 1):  # as in CIFAR-10 of Keras
        values = values[:, 0]
    if values.ndim == 2 and len(values) == num_images and values.dtype.kind in "biuf":
        is_one_hot = np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()
        values = values.argmax(axis=1) if is_one_hot else values
    if values.dtype.kind == "f" and np.all((values == np.floor(values)) & (np.abs(values) < 2**31)):
        values = values.astype(np.int64)
    if values.shape != (num_images,) or values.dtype.kind not in "biuU":
        raise DataError(
            f"{source} has labels {values.dtype} {list(values.shape)}, expected one integer, text or one-hot vector "
            f"for each of {count_of(num_images, 'image')}; correct the labels, or pass --label_field={NO_LABELS}."
        )
    is_text = values.dtype.kind == "U"
    if not is_text and values.size and values.min() < 0:
        raise DataError(f"{source} has the label {values.min()}, expected 0 or more; renumber the labels.")
    if class_names is not None and not is_text:
        if values.size and values.max() >= len(class_names):
            raise DataError(
                f"{source} has the label {values.max()}, expected 0 to {len(class_names) - 1} for its "
                f"{len(class_names)} class names; correct the labels."
            )
        return values.astype(np.int64), tuple(class_names)
    classes, labels = np.unique(values.astype(np.uint8) if values.dtype == bool else values, return_inverse=True)
    names = [str(value) for value in classes]
    order = sorted(range(len(names)), key=lambda index: natural_sort_key(names[index]))
    return np.argsort(order)[labels].astype(np.int64), tuple(names[index] for index in order)
