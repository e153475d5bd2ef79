"""The data sets that a config can name, and their descriptions; TensorFlow is not needed to read them."""

import dataclasses
import difflib
import pathlib

from trainer.data.manifest import MANIFEST_NAME, read_manifest
from trainer.errors import ConfigError

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
NAMES = ("digits", *DOWNLOADED)
"""Every name that `describe` knows, beside the directories of prepared data sets."""


def embedded_digits_dir() -> pathlib.Path:
    """Returns the directory of the prepared data set that the package ships: 5,000 digits of MNIST."""
    return pathlib.Path(__file__).parent / "digits"


def describe(name: str) -> DatasetInfo:
    """Describes a data set without reading its images.

    Args:
        name: one of `NAMES`, or a local directory that holds a `dataset.json`.

    Raises:
        ConfigError: if the name is neither.
        DataError: if the `dataset.json` cannot be read.
    """
    if name in DOWNLOADED:
        return DOWNLOADED[name]
    manifest = read_manifest(prepared_dir(name))
    return DatasetInfo(manifest.name, manifest.image_shape, manifest.class_counts, manifest.class_names)


def prepared_dir(name: str) -> pathlib.Path:
    """Returns the directory of the prepared data set called `name`: "digits", or a local directory.

    Raises:
        ConfigError: if there is none.
    """
    if name == "digits":
        return embedded_digits_dir()
    directory = pathlib.Path(name)
    if directory.is_dir():
        if (directory / MANIFEST_NAME).is_file():
            return directory
        raise ConfigError(
            f"dataset={name} is a directory without {MANIFEST_NAME}; name the directory of a prepared data set."
        )
    nearest = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {nearest[0]}? Known" if nearest else "known"
    raise ConfigError(
        f"dataset={name} is neither a known data set nor a directory with {MANIFEST_NAME}; {hint}: {', '.join(NAMES)}."
    )
