"""Source for data sets of tensorflow-datasets, if it is installed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trainer.data.prepare.sources.base import Item, OneFileSource
from trainer.errors import DataError


class TfdsSource(OneFileSource):
    """Images of a data set of tensorflow-datasets. Encoded images are used as they are stored.

    Args:
        name: Name of the data set. A split may follow after a `:`, as in `mnist:test`; the default is `train`.
        scratch: Local folder for the images.

    Raises:
        DataError: If tensorflow-datasets is not installed, does not have the data set or the split, or cannot download
            or read it; or if the data set has no `image`, or its `label` is not a class.
    """

    expected_content = "examples in the split"
    empty_remedy = "choose another split"

    def __init__(self, name: str, scratch: Path):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise DataError(
                f"tfds:{name} needs tensorflow-datasets, which is not installed; run pip install tensorflow-datasets."
            ) from error
        name, _, split = name.partition(":")
        split = split or "train"
        with _explain_errors(f"tfds:{name} cannot be opened by tensorflow-datasets", "correct the name"):
            builder = tfds.builder(name)
            features = builder.info.features or {}
        if "image" not in features:
            raise DataError(f"tfds:{name} has no feature `image`; choose a data set of images.")
        has_labels = "label" in features
        if has_labels and not isinstance(features["label"], tfds.features.ClassLabel):
            raise DataError(
                f"tfds:{name} has a feature `label` that is not a class; choose a data set of images in classes."
            )
        self.class_names = tuple(features["label"].names) if has_labels else (name,)
        with _explain_errors(f"tfds:{name} cannot be downloaded or prepared", "check the network and the disk"):
            builder.download_and_prepare()
        with _explain_errors(
            f"the split {split} of tfds:{name} cannot be read", "correct its name, or omit it for train"
        ):
            examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        self._ranges, self.items = {}, []
        path = scratch / "members"
        with (
            _explain_errors(f"tfds:{name} cannot be read completely", "free space on the disk, or download it again"),
            path.open("wb") as file,
        ):
            for index, example in enumerate(tfds.as_numpy(examples)):
                item = Item(f"image {index} of {name}", int(example["label"]) if has_labels else 0)
                self._ranges[item.name] = file.tell(), len(example["image"])
                file.write(example["image"])
                self.items.append(item)
        self._file = path.open("rb")


@contextlib.contextmanager
def _explain_errors(problem: str, remedy: str) -> Iterator[None]:
    """Converts any error of tensorflow-datasets, the network, the disk or TensorFlow to a DataError."""
    try:
        yield
    except Exception as error:  # tensorflow-datasets raises errors of many types
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{problem} ({reason}); {remedy}.") from error
