"""The data sets that a config can name, and their descriptions; TensorFlow is not needed to read them."""

import contextlib
import dataclasses
import os
import pathlib

import numpy as np

from trainer.config import TrainConfig
from trainer.data import stacked, transforms
from trainer.data.dataset_spec import SPEC_NAME, read_dataset_spec
from trainer.data.pipeline.balance import balanced_size
from trainer.data.pipeline.chunk_schedule import num_chunks
from trainer.errors import ConfigError
from trainer.registry import did_you_mean
from trainer.storage import Location, locate
from trainer.storage.resolve import is_remote

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before a pixel of it is read."""

    name: str
    image_shape: tuple[int, int, int]
    """Height, width and channels of every image, in pixels."""
    class_counts: tuple[int, ...]
    """Number of images of each class, by label; 0 for a class that a filter left out."""
    class_names: tuple[str, ...]

    @property
    def num_examples(self) -> int:
        """Number of images, all classes together."""
        return sum(self.class_counts)

    @property
    def num_classes(self) -> int:
        """Number of labels, those that a filter left out included: labels keep their numbers."""
        return len(self.class_names)

    def with_classes(self, classes: tuple[int, ...] | None) -> "DatasetInfo":
        """Describes the part of the set that holds some classes only.

        Args:
            classes: labels to keep, each once, in [0, num_classes); `None` keeps all.

        Returns:
            The same description with the other classes' counts 0. Labels are not renumbered.

        Raises:
            ConfigError: if a class is out of range, stands twice or has no images, or if `classes` is empty.
        """
        if classes is None:
            return self
        if not classes:
            raise ConfigError("classes is empty, expected at least one class; leave it out to keep them all.")
        for label in classes:
            if not 0 <= label < self.num_classes:
                raise ConfigError(
                    f"classes={label} is not among the {self.num_classes} classes of {self.name} "
                    f"(0 to {self.num_classes - 1}); choose from those."
                )
            if classes.count(label) > 1:
                raise ConfigError(f"classes={','.join(map(str, classes))} names {label} twice; name each class once.")
        counts = tuple(count if label in classes else 0 for label, count in enumerate(self.class_counts))
        if not sum(counts):
            raise ConfigError(
                f"classes={','.join(map(str, classes))} selects no image of {self.name}, expected at least one; "
                "choose a class that has images."
            )
        return dataclasses.replace(self, class_counts=counts)


_DOWNLOADED = (
    DatasetInfo("mnist", (28, 28, 1), (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), _DIGIT_NAMES),
    DatasetInfo(
        "fashion_mnist",
        (28, 28, 1),
        (6000,) * 10,
        ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    DatasetInfo(
        "cifar10",
        (32, 32, 3),
        (5000,) * 10,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
)
DOWNLOADED = {info.name: info for info in _DOWNLOADED}
"""The training splits that keras.datasets downloads, by name."""
NAMES = ("digits", *DOWNLOADED, "stacked:digits", "stacked:mnist")
"""Names that `describe` knows; beside them the directories of prepared data sets, `stacked:` before any other name of
gray images in 10 classes, `inverted:` before any name, and `tinted:` before any name of gray images."""


def embedded_digits_dir() -> pathlib.Path:
    """Returns the directory of the prepared data set that the package ships: 5,000 digits of MNIST."""
    return pathlib.Path(__file__).parent / "digits"


def describe(name: str, padding: int = 0) -> DatasetInfo:
    """Describes a data set without reading its images.

    Args:
        name: one of `NAMES`, a local directory that holds a `dataset.json`, or `stacked:`, `inverted:` or `tinted:` and
            either of them.
        padding: pixels on every side of every image, at least 0; `image_shape` counts them.

    Raises:
        ConfigError: if the name is none of these, a stacked set's source does not fit, or the padding is negative.
        DataError: if the `dataset.json` cannot be read.
    """
    if padding < 0:
        raise ConfigError(f"padding={padding} is negative, expected 0 or more pixels; leave it out for none.")
    info = _describe(name)
    height, width, channels = info.image_shape
    return dataclasses.replace(info, image_shape=(height + 2 * padding, width + 2 * padding, channels))


def num_examples(config: TrainConfig) -> int:
    """Images of an epoch of a config: those of its data set, or as many for each class, or of the larger of its two.

    Raises:
        ConfigError, DataError: as `describe`.
    """
    info = describe(config.dataset, config.padding).with_classes(config.classes)
    counts = [balanced_size(info.class_counts) if config.balance_classes else info.num_examples]
    if config.dataset_b is not None:
        counts.append(describe(config.dataset_b, config.padding).num_examples)
    return max(counts)


def is_prepared(name: str) -> bool:
    """Whether a data set consists of shards on a disk or in a bucket."""
    return name not in DOWNLOADED and not name.startswith(stacked.PREFIX) and derived_source(name)[0] is None


def default_num_chunks(config: TrainConfig) -> int:
    """Into how many windows the data set of a config is cut where the config does not say.

    Raises:
        ConfigError: two shards do not fit into the memory.
        DataError, StorageError: as `describe`.
    """
    if not is_prepared(config.dataset):
        return 1
    memory = machine_memory_mib() / 4 if config.data_memory_mib is None else config.data_memory_mib
    return num_chunks(read_dataset_spec(prepared_folder(config.dataset)), memory, config.padding)


def machine_memory_mib() -> float:
    """What this machine has, or this container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(limit.read_text()))
    return total / 2**20


def _describe(name: str) -> DatasetInfo:
    if name.startswith(stacked.PREFIX):
        return _describe_stacked(_describe(stacked_source(name)))
    derivation, source = derived_source(name)
    if derivation:
        info = _describe(source)
        return dataclasses.replace(
            info, name=name, image_shape=transforms.shape_of(derivation, info.image_shape, source)
        )
    if name in DOWNLOADED:
        return DOWNLOADED[name]
    manifest = read_dataset_spec(prepared_folder(name))
    return DatasetInfo(manifest.name, manifest.image_shape, manifest.class_counts, manifest.class_names)


def _describe_stacked(source: DatasetInfo) -> DatasetInfo:
    height, width, channels = source.image_shape
    if channels != 1 or source.num_classes != stacked.NUM_DIGITS or not source.num_examples:
        raise ConfigError(
            f"dataset={stacked.PREFIX}{source.name} needs gray images of {stacked.NUM_DIGITS} classes, {source.name} "
            f"has {source.num_examples} images of {channels} channel{'s' * (channels != 1)} in {source.num_classes} "
            f"classes; choose another source, as in {stacked.PREFIX}digits."
        )
    labels = stacked.draw(source.class_counts).labels
    counts = np.bincount(labels, minlength=len(stacked.CLASS_NAMES))
    return DatasetInfo(
        f"{stacked.PREFIX}{source.name}", (height, width, 3), tuple(counts.tolist()), stacked.CLASS_NAMES
    )


def derived_source(name: str) -> tuple[str | None, str]:
    """Splits the name of a derived set: "inverted:digits" into "inverted" and "digits"; else None and the name."""
    derivation, colon, source = name.partition(":")
    return (derivation, source) if colon and derivation in transforms.DERIVATIONS else (None, name)


def stacked_source(name: str) -> str:
    """Returns the name of the set that a stacked set draws its digits from: "digits" for "stacked:digits"."""
    return name.removeprefix(stacked.PREFIX)


def source_of(name: str) -> str:
    """Returns the set whose images a set is made of, however often derived: "digits" for "inverted:tinted:digits"."""
    source = stacked_source(name) if name.startswith(stacked.PREFIX) else derived_source(name)[1]
    return name if source == name else source_of(source)


def prepared_folder(name: str) -> Location:
    """Returns the folder of the prepared data set called `name`: "digits", or a local or `gs://` folder.

    Raises:
        ConfigError: if there is none.
        StorageError: if the bucket cannot be read.
    """
    if name == "digits":
        return locate(embedded_digits_dir())
    folder = locate(name)
    if (folder / SPEC_NAME).exists():
        return folder
    if is_remote(name) or pathlib.Path(name).is_dir():
        raise ConfigError(f"dataset={name} has no {SPEC_NAME}; name the folder of a prepared data set.")
    advice = did_you_mean(name, NAMES, f"known are {', '.join(NAMES)}.")
    raise ConfigError(f"dataset={name} is neither a known data set nor a directory with {SPEC_NAME}; {advice}")
