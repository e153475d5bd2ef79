"""Two sets of images of any source, read as datasets with images of one size, so that metrics can compare them."""

import dataclasses
import logging
from pathlib import Path

from trainer.data.dataset_spec import SPEC_NAME, read_dataset_spec
from trainer.data.datasets import NAMES, describe, prepared_folder, root_source
from trainer.data.prepare import convert
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.pixels import RESIZES
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.data.prepare.sources.base import NO_LABELS
from trainer.errors import ConfigError
from trainer.storage import locate

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ComparedSet:
    """A set of images to compare.

    Attributes:
        dataset: Name or folder of the dataset that has the images.
        resize: Method with which images of other sizes were resized; `none` if there are none, None if it is not known.
    """

    dataset: str
    resize: str | None


def read_compared_sets(
    images: str,
    against: str,
    scratch: Path,
    *,
    image_size: tuple[int, int] | None = None,
    resize: str | None = None,
    max_bad_images: int = 0,
) -> tuple[ComparedSet, ComparedSet]:
    """Returns two sets of images as datasets with images of the same size.

    A dataset is used as it is. All other sources are converted as `prepare` does it, without classes, to the size of
    the dataset or, if there is none, of most of the first images. Images of that size are not resampled.

    Args:
        images: Dataset, or source that `prepare` accepts: the images to measure.
        against: Dataset or source: the images to compare them with.
        scratch: Empty local folder for the converted images.
        image_size: Height and width in pixels to which images of other sizes are resized. None: there must be none.
        resize: One of `RESIZES`. None: the method of the dataset that is compared, or `crop`.
        max_bad_images: Largest number of unreadable images to skip in each source.

    Raises:
        ConfigError: If the datasets have images of different sizes, or of another size than `image_size`.
        DataError: If a source has no images, or an image that cannot be read or has another size.
        StorageError: If a source in a bucket cannot be read.
    """
    sizes = {name: describe(name).image_shape[:2] for name in (images, against) if is_dataset(name)}
    _check_sizes(sizes, image_size)
    size = image_size or next(iter(sizes.values()), None)
    if image_size is None:
        resize = "none"
    elif resize is None:
        rules = [resize_of(name) for name in sizes]
        resize = next((rule for rule in rules if rule not in (None, "none")), None) or "crop"
    sets: dict[str, ComparedSet] = {}
    for label, name in (("against", against), ("images", images)):  # `against` determines an open size
        if name in sizes:
            sets[label] = ComparedSet(name, "none" if root_source(name) in NAMES else resize_of(name))
        else:
            options = ConversionOptions(
                image_size=size, resize=resize, max_bad_images=max_bad_images, allows_constant=True
            )
            size = _convert(name, scratch / label, options)
            sets[label] = ComparedSet(str(scratch / label), resize)
    return sets["images"], sets["against"]


def is_dataset(name: str) -> bool:
    """Returns whether a name is that of a dataset, such as a prepared folder, and not of another source of images."""
    source = root_source(name)
    if source in NAMES or source != name:
        return True
    folder = locate(name)
    # Other programs also write a file of this name beside their images.
    return (folder / SPEC_NAME).exists() and any(
        entry.name.endswith(".tfrecord") for entry in folder.entries(recursive=False)
    )


def resize_of(dataset: str) -> str | None:
    """Returns the method with which a prepared dataset was resized; None if it is not known."""
    source = root_source(dataset)
    if source in NAMES:
        return None
    resize = read_dataset_spec(prepared_folder(source)).options.get("resize")
    return resize if resize in RESIZES else None


def _check_sizes(sizes: dict[str, tuple[int, int]], image_size: tuple[int, int] | None) -> None:
    """Rejects datasets of different sizes, which cannot be resized here."""
    wanted = image_size or next(iter(sizes.values()), None)
    for name, size in sizes.items():
        if size != wanted and wanted is not None:
            raise ConfigError(
                f"{name} is a dataset of {size[0]}×{size[1]} pixels, expected {wanted[0]}×{wanted[1]}; compare "
                "datasets of one size, omit --image_size, or prepare it again with --image_size="
                f"{wanted[0]},{wanted[1]}."
            )


def _convert(name: str, folder: Path, options: ConversionOptions) -> tuple[int, int]:
    """Converts a source to a dataset in a folder. Returns the height and width of its images."""
    with open_source(name, SourceOptions(label_field=NO_LABELS)) as source:
        for note in source.notes:
            _logger.warning(note)
        plan = plan_conversion(source, options)
        metadata = {"name": folder.name, "source": name, "license": "", "attribution": ""}
        spec, progress = convert.convert(source, plan, options, locate(folder), metadata, lambda progress: None)
    for image, problem in progress.bad_images:
        _logger.warning(f"Skipped: {image} {problem}.")
    return spec.image_shape[0], spec.image_shape[1]
