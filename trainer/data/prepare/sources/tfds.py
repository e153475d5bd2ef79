"""Images of a data set of tensorflow-datasets, where that is installed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trainer.data.prepare.sources.base import Item, OneFileSource
from trainer.errors import DataError


class TfdsSource(OneFileSource):
    """The training split, or the one after a `:` as in `mnist:test`; encoded images are taken as they are stored.

    Args:
        name: Of the data set.
        scratch: Holds the images while they are prepared.

    Raises:
        DataError: tensorflow-datasets is not installed, has no such set or split, cannot download or read it; or the
            set has no `image`, or a `label` that is no class.
    """

    def __init__(self, name: str, scratch: Path):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise DataError(
                f"tfds:{name} needs tensorflow-datasets, which is not installed; run pip install tensorflow-datasets."
            ) from error
        name, _, split = name.partition(":")
        split = split or "train"
        with _told(f"tfds:{name} is no data set that tensorflow-datasets can open", "correct the name"):
            builder = tfds.builder(name)
            features = builder.info.features or {}
        if "image" not in features:
            raise DataError(f"tfds:{name} has no feature `image`; choose a data set of images.")
        labeled = "label" in features
        if labeled and not isinstance(features["label"], tfds.features.ClassLabel):
            raise DataError(
                f"tfds:{name} has a feature `label` that is no class; choose a data set of images in classes."
            )
        self.class_names = tuple(features["label"].names) if labeled else (name,)
        with _told(f"tfds:{name} cannot be downloaded or prepared", "check the network and the disk"):
            builder.download_and_prepare()
        with _told(f"tfds:{name} has no split {split} that can be read", "correct its name, or leave it out for train"):
            examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        self._places, self.items = {}, []
        held = scratch / "members"
        with (
            _told(f"tfds:{name} cannot be read to its end", "free space on the disk, or download it again"),
            held.open("wb") as target,
        ):
            for index, example in enumerate(tfds.as_numpy(examples)):
                item = Item(f"image {index} of {name}", int(example["label"]) if labeled else 0)
                self._places[item.name] = target.tell(), len(example["image"])
                target.write(example["image"])
                self.items.append(item)
        self._file = held.open("rb")


@contextlib.contextmanager
def _told(problem: str, cure: str) -> Iterator[None]:
    """What tensorflow-datasets raises, as a sentence: errors of its own, of the network, of the disk, of TensorFlow."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{problem} ({reason}); {cure}.") from error
