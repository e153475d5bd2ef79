"""Source for datasets of tensorflow-datasets, if it is installed."""

from pathlib import Path

from trainer.data.prepare.sources.base import NO_LABELS, SourceOptions, explain_errors
from trainer.data.prepare.sources.records import RecordSource
from trainer.errors import ConfigError, DataError, quote


class TfdsSource(RecordSource):
    """Images of a dataset of tensorflow-datasets. Encoded images are used as they are stored.

    Args:
        name: Name of the dataset. A split may follow after a `:`, as in `mnist:test`; the default is `train`.
        scratch: Local folder for the images.
        options: Options of the source. `split` is only for names without one.

    Raises:
        ConfigError: If both the name and the options have a split.
        DataError: If tensorflow-datasets is not installed, does not have the dataset or the split, or cannot download
            or read it; or if the dataset has no `image`, or its `label` is not a class.
    """

    expected_content = "examples in the split"
    empty_remedy = "choose another split"

    def __init__(self, name: str, scratch: Path, options: SourceOptions):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise DataError(
                f"tfds:{name} needs tensorflow-datasets, which is not installed; run pip install tensorflow-datasets."
            ) from error
        name, _, split = name.partition(":")
        if split and options.split:
            raise ConfigError(
                f"split={quote(','.join(options.split))} does not work with tfds:{name}:{split}, which has a split; "
                "omit one of them."
            )
        split = split or "+".join(options.split) or "train"
        with explain_errors(f"tfds:{name} cannot be opened by tensorflow-datasets", "correct the name"):
            builder = tfds.builder(name)
            features = builder.info.features or {}
        if "image" not in features:
            raise DataError(f"tfds:{name} has no feature `image`; choose a dataset of images.")
        has_labels = "label" in features and options.label_field != NO_LABELS
        if has_labels and not isinstance(features["label"], tfds.features.ClassLabel):
            raise DataError(
                f"tfds:{name} has a feature `label` that is not a class; choose a dataset of images in classes."
            )
        class_names = features["label"].names if has_labels else None
        with explain_errors(f"tfds:{name} cannot be downloaded or prepared", "check the network and the disk"):
            builder.download_and_prepare()
        with explain_errors(
            f"the split {split} of tfds:{name} cannot be read", "correct its name, or omit it for train"
        ):
            examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        with explain_errors(f"tfds:{name} cannot be read completely", "free space on the disk, or download it again"):
            records = (
                (bytes(example["image"]), int(example["label"]) if has_labels else None)
                for example in tfds.as_numpy(examples)
            )
            self._store(records, class_names, scratch, name)
