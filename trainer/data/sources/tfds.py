"""Images of a data set of tensorflow-datasets, where that is installed."""

from pathlib import Path

from trainer.data.sources.base import Item, OneFileSource
from trainer.errors import DataError


class TfdsSource(OneFileSource):
    """The training split, or the one after a `:` as in `mnist:test`; encoded images are taken as they are stored.

    Args:
        name: Of the data set.
        scratch: Holds the images while they are prepared.

    Raises:
        DataError: tensorflow-datasets is not installed, or the set has no `image`.
    """

    def __init__(self, name: str, scratch: Path):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise DataError(
                f"tfds:{name} needs tensorflow-datasets, which is not installed; run pip install tensorflow-datasets."
            ) from error
        name, _, split = name.partition(":")
        builder = tfds.builder(name)
        if "image" not in (builder.info.features or {}):
            raise DataError(f"tfds:{name} has no feature `image`; choose a data set of images.")
        builder.download_and_prepare()
        examples = builder.as_dataset(split=split or "train", decoders={"image": tfds.decode.SkipDecoding()})
        labelled = "label" in builder.info.features
        self.class_names = tuple(builder.info.features["label"].names) if labelled else (name,)
        self._places, self.items = {}, []
        held = scratch / "members"
        with held.open("wb") as target:
            for index, example in enumerate(tfds.as_numpy(examples)):
                item = Item(f"image {index} of {name}", int(example["label"]) if labelled else 0)
                self._places[item.name] = target.tell(), len(example["image"])
                target.write(example["image"])
                self.items.append(item)
        self._file = held.open("rb")
