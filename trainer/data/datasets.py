"""Datasets by name, and their descriptions. TensorFlow is not needed to read them."""

import contextlib
import dataclasses
import functools
import numbers
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from trainer.config import TrainConfig
from trainer.config.dataset_names import DatasetPrefix, split_prefix
from trainer.config.fields import check_number
from trainer.control_group import memory_files
from trainer.data import stacked
from trainer.data.conditions import vectors_of
from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, read_dataset_spec
from trainer.data.pipeline.balance import balanced_size
from trainer.data.pipeline.chunk_schedule import choose_num_chunks
from trainer.data.transforms import TRANSFORMS, transformed_shape
from trainer.errors import ConfigError, count_of, quote
from trainer.registry import did_you_mean
from trainer.storage import Location, is_remote, locate, place_of
from trainer.storage.local import LocalLocation

_PREPARE_FIRST = "prepare images with python -m trainer prepare --source=IMAGES --out=FOLDER, and give that FOLDER"
_MAX_PREFIXES = 20
_DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset, known without reading images."""

    name: str
    image_shape: tuple[int, int, int]
    """Height, width and channels of every image in pixels."""
    class_counts: tuple[int, ...]
    """Number of images of each class, by label; 0 for a class that is not selected."""
    class_names: tuple[str, ...]
    input_channels: int = 0
    """Number of channels of the input of each pair; 0 if the images have no inputs."""
    condition_names: tuple[str, ...] = ()
    """Names of the conditions, if each class is a vector of conditions as `trainer.data.conditions` describes it."""
    encoding: str | None = None
    """Encoding of the images in the shards. None: a dataset of Keras, or a stacked one."""

    @functools.cached_property
    def conditions(self) -> np.ndarray | None:
        """Vector of conditions of each class, float32 [M, K]; None if the classes are no conditions."""
        return vectors_of(self.class_names, self.condition_names, self.name) if self.condition_names else None

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """Shape of an example in arrays: height, width, and the channels of the input followed by the image's."""
        height, width, channels = self.image_shape
        return height, width, self.input_channels + channels

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments of the functions that build a model for the dataset, such as `trainer.models.from_config`."""
        return {
            "image_shape": self.image_shape,
            "num_classes": self.num_classes,
            "input_channels": self.input_channels,
            "conditions": self.conditions,
            "class_counts": self.class_counts,
        }

    @property
    def num_examples(self) -> int:
        """Number of images of all classes together."""
        return sum(self.class_counts)

    @property
    def num_classes(self) -> int:
        """Number of labels, including classes that are not selected."""
        return len(self.class_names)

    def with_classes(self, classes: Iterable[int] | None) -> "DatasetInfo":
        """Returns the description of the part of the dataset that has some classes only.

        Args:
            classes: Labels to keep, each once, in [0, num_classes). None: all labels.

        Returns:
            The same description with the counts of the other classes set to 0. Labels are not renumbered.

        Raises:
            ConfigError: If a class is out of range, given twice or without images, or if `classes` is empty.
        """
        classes = selected_classes(classes)
        if classes is None:
            return self
        if not classes:
            raise ConfigError("classes is empty, expected at least one class; omit it to keep all classes.")
        kept: set[int] = set()
        for label in classes:
            if not isinstance(label, numbers.Integral) or not 0 <= label < self.num_classes:
                raise ConfigError(
                    f"classes={quote(label)} is not one of the {count_of(self.num_classes, 'class')} of {self.name}; "
                    "give numbers "
                    f"from 0 to {self.num_classes - 1}."
                )
            if label in kept:
                raise ConfigError(f"classes={','.join(map(str, classes))} has {label} twice; give each class once.")
            kept.add(label)
        counts = tuple(count if label in kept else 0 for label, count in enumerate(self.class_counts))
        if not sum(counts):
            raise ConfigError(
                f"classes={','.join(map(str, classes))} selects no image of {self.name}, expected at least one; "
                "choose a class that has images."
            )
        return dataclasses.replace(self, class_counts=counts)


class KerasDataset(NamedTuple):
    """The training split of a dataset that keras.datasets downloads."""

    info: DatasetInfo
    cache: str
    """Path of the downloaded files, for messages."""


_KERAS_DATASETS = (
    KerasDataset(
        DatasetInfo("mnist", (28, 28, 1), (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), _DIGIT_NAMES),
        cache="~/.keras/datasets/mnist.npz",
    ),
    KerasDataset(
        DatasetInfo(
            "fashion_mnist",
            (28, 28, 1),
            (6000,) * 10,
            ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        cache="~/.keras/datasets/fashion-mnist/ (four *-ubyte.gz files)",
    ),
    KerasDataset(
        DatasetInfo(
            "cifar10",
            (32, 32, 3),
            (5000,) * 10,
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ),
        cache="~/.keras/datasets/cifar-10-batches-py-target_archive (the file cifar-10-python.tar.gz)",
    ),
)
KERAS_DATASETS = {dataset.info.name: dataset for dataset in _KERAS_DATASETS}
"""Datasets that keras.datasets downloads, by name."""
NAMES = ("digits", *KERAS_DATASETS, "stacked:digits", "stacked:mnist")
"""Names that `describe` accepts, besides folders of prepared datasets. `stacked:` is a prefix for any dataset of gray
images in 10 classes, `inverted:` for any dataset, `tinted:` for any dataset of gray images, and `gray_to_color:` for
any dataset of color images, which become pairs with gray inputs."""


def embedded_digits_dir() -> pathlib.Path:
    """Returns the directory of the prepared dataset that the package includes: 5,000 digits of MNIST."""
    return pathlib.Path(__file__).parent / "digits"


def describe(name: str | os.PathLike[str], padding: int = 0, spec: DatasetSpec | None = None) -> DatasetInfo:
    """Returns the description of a dataset without reading its images.

    Args:
        name: One of `NAMES`, or a local or `gs://` folder with a `dataset.json`, optionally with the prefix `stacked:`,
            `inverted:`, `tinted:` or `gray_to_color:`.
        padding: Pixels added to every side of every image, at least 0. `image_shape` includes them.
        spec: Content of the `dataset.json` that was read before. None: read it if there is one.

    Raises:
        ConfigError: If the name is unknown, the source of a stacked dataset does not fit, or the padding is negative.
        DataError: If the `dataset.json` cannot be read.
    """
    name = dataset_name(name)
    check_number("padding", padding, whole=True)
    if name.count(":") > _MAX_PREFIXES:
        raise ConfigError(f"dataset={quote(name)} has more than {_MAX_PREFIXES} prefixes; remove some.")
    info = _describe(name, spec)
    height, width, channels = info.image_shape
    return dataclasses.replace(info, image_shape=(height + 2 * padding, width + 2 * padding, channels))


def dataset_name(name: str | os.PathLike[str]) -> str:
    """Returns the name or folder of a dataset as text.

    Raises:
        ConfigError: If it is neither text nor a path.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise ConfigError(
            f"dataset={quote(name)} is no name; give one of {', '.join(NAMES)}, or the folder of a prepared dataset."
        )
    return os.fspath(name)


def selected_classes(classes: Iterable[int] | None) -> tuple[int, ...] | None:
    """Returns the labels of a selection as a tuple; None for all labels.

    Raises:
        ConfigError: If it is no list, such as a single number.
    """
    if classes is None or isinstance(classes, Iterable):
        return None if classes is None else tuple(classes)
    raise ConfigError(f"classes={quote(classes)} is no list of labels; pass a list, such as [{classes}].")


def num_examples(config: TrainConfig) -> int:
    """Returns the number of images in an epoch of a config, including balancing and the larger of two domains.

    The second dataset of a dataset of pairs has held-out pairs, which are not in an epoch.

    Raises:
        ConfigError, DataError: As `describe`.
    """
    info = describe(config.dataset, config.padding).with_classes(config.class_numbers)
    counts = [balanced_size(info.class_counts) if config.balance_classes else info.num_examples]
    if config.dataset_b is not None and not info.input_channels:
        counts.append(describe(config.dataset_b, config.padding).num_examples)
    return max(counts)


def is_prepared(name: str) -> bool:
    """Returns whether a dataset consists of shards on a disk or in a bucket."""
    return name not in KERAS_DATASETS and split_prefix(name)[0] is None


def default_num_chunks(config: TrainConfig) -> int:
    """Returns the number of chunks for a config without `num_chunks`, from the memory for data.

    Raises:
        ConfigError: If two shards do not fit into memory.
        DataError, StorageError: As `describe`.
    """
    if not is_prepared(config.dataset):
        return 1
    memory_mib = machine_memory_mib() / 4 if config.data_memory_mib is None else config.data_memory_mib
    return choose_num_chunks(read_dataset_spec(prepared_folder(config.dataset)), memory_mib, config.padding)


def machine_memory_mib() -> float:
    """Returns the memory of this machine in MiB, or the memory limit of this container if it is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in memory_files("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or no limit
            total = min(total, int(limit.read_text()))
    return total / 2**20


def root_source(name: str) -> str:
    """Returns the dataset without prefixes that a dataset is made from: `digits` for `inverted:tinted:digits`."""
    prefix, source = split_prefix(name)
    return name if prefix is None else root_source(source)


def is_same_dataset(name: str | None, other: str | None) -> bool:
    """Returns whether two names are the same dataset: equal ones, or two spellings of the path of one folder.

    Raises:
        ConfigError: If a path is malformed.
    """
    if name is None or other is None or name == other:
        return name == other
    sources = [root_source(value) for value in (name, other)]
    prefixes = [value.removesuffix(source) for value, source in zip((name, other), sources, strict=True)]
    if prefixes[0] != prefixes[1] or any(source in NAMES for source in sources):
        return False
    return place_of(sources[0]) == place_of(sources[1])


def prepared_folder(name: str) -> Location:
    """Returns the folder of a prepared dataset.

    Args:
        name: `digits`, or a local or `gs://` folder.

    Raises:
        ConfigError: If there is no such dataset.
        StorageError: If the bucket cannot be read.
    """
    if name == "digits":
        return locate(embedded_digits_dir())
    folder = locate(name)
    if (folder / SPEC_NAME).exists():
        return folder
    if is_remote(name) or (isinstance(folder, LocalLocation) and folder.path.is_dir()):
        raise ConfigError(f"dataset={name} has no {SPEC_NAME}; {_PREPARE_FIRST}.")
    if folder.exists():
        raise ConfigError(f"dataset={name} is a file, not the folder of a prepared dataset; {_PREPARE_FIRST}.")
    if "/" in name:
        raise ConfigError(f"dataset={name} does not exist; correct the path, or {_PREPARE_FIRST}.")
    advice = did_you_mean(name, NAMES, f"choose one of {', '.join(NAMES)}.")
    raise ConfigError(f"dataset={name} is neither a known dataset nor a directory with {SPEC_NAME}; {advice}")


def _describe(name: str, spec: DatasetSpec | None) -> DatasetInfo:
    prefix, source = split_prefix(name)
    if prefix == DatasetPrefix.STACKED:
        return _describe_stacked(_describe(source, spec))
    if prefix is not None:
        info, transform = _describe(source, spec), TRANSFORMS[prefix]
        if info.input_channels and transform.source_channels is not None:
            raise _not_for_pairs(name, source)
        shape = transformed_shape(prefix, info.image_shape, source)
        input_channels = transform.input_channels or info.input_channels
        return dataclasses.replace(info, name=name, image_shape=shape, input_channels=input_channels)
    if name in KERAS_DATASETS:
        return KERAS_DATASETS[name].info
    spec = spec or read_dataset_spec(prepared_folder(name))
    return DatasetInfo(
        spec.name,
        spec.image_shape,
        spec.class_counts,
        spec.class_names,
        input_channels=spec.input_channels,
        condition_names=spec.condition_names,
        encoding=spec.encoding,
    )


def _not_for_pairs(name: str, source: str) -> ConfigError:
    return ConfigError(f"dataset={quote(name)} needs images, but {source} has pairs of images; choose another source.")


def _describe_stacked(source: DatasetInfo) -> DatasetInfo:
    height, width, channels = source.image_shape
    if source.input_channels:
        raise _not_for_pairs(f"{stacked.PREFIX}{source.name}", source.name)
    if channels != 1 or source.num_classes != stacked.NUM_DIGITS or not source.num_examples:
        raise ConfigError(
            f"dataset={stacked.PREFIX}{source.name} needs gray images of {stacked.NUM_DIGITS} classes, but "
            f"{source.name} has {count_of(source.num_examples, 'image')} of {count_of(channels, 'channel')} in "
            f"{count_of(source.num_classes, 'class')}; choose another source, such as {stacked.PREFIX}digits."
        )
    labels = stacked.draw(source.class_counts).labels
    counts = np.bincount(labels, minlength=len(stacked.CLASS_NAMES))
    return DatasetInfo(
        f"{stacked.PREFIX}{source.name}", (height, width, 3), tuple(counts.tolist()), stacked.CLASS_NAMES
    )
