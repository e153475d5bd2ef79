"""Converts a source of images to a prepared data set: reads, decodes, resizes, shuffles, and writes TFRecord shards.

Worker processes decode, threads read ahead, and this process writes. The output does not depend on their numbers.
Shapes: `N` selected images, `H W C` height, width and channels.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.class_selection import select_classes
from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec
from trainer.data.prepare.decoding import read_shape
from trainer.data.prepare.encoding import encode_images, read_content
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources import Source
from trainer.data.tfrecord_writer import ShardWriter, find_leftover_shards
from trainer.errors import ConfigError, DataError, count_of, quote
from trainer.image_io import MAX_PIXELS, MAX_SIDE
from trainer.storage import Location, scratch_folder
from trainer.storage.lease import hold

_logger = logging.getLogger(__name__)

_NUM_INSPECTED = 100
"""Number of images that determine the size and the channels if the options leave them open."""
_MAX_SHARD_MIB = 65_536
_DARK = 64  # 14 of 16 bits
_SHUFFLE_SEED = 20_061_511


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """Options of a conversion.

    Attributes:
        image_size: Height and width in pixels, in [1, `MAX_SIDE`], together at most `MAX_PIXELS`. None: the size of the
            images, which must be equal.
        resize: One of `pixels.RESIZES`.
        channels: 1 or 3. None: 1 if the first images are all gray, else 3.
        limit: Maximum number of images, selected evenly from the whole source. None: all images.
        classes: Names or numbers of the classes to include. None: all classes.
        shard_mib: Size in MiB at which a new shard begins.
        max_bad_images: Number of unusable images to skip. If there are more, the conversion fails.
        num_processes: Number of decoding processes. None: one per core.
        bits: Number of bits that the pixel values use, in [1, 16]. None: all bits of the files.
        allows_constant: True if images whose pixels are all equal are accepted, and sets of dark images without a
            warning: those of a generator may be as they are.

    Raises:
        ConfigError: If `image_size` or `shard_mib` is out of range.
    """

    image_size: tuple[int, int] | None = None
    resize: str = "crop"
    channels: int | None = None
    limit: int | None = None
    classes: tuple[str, ...] | None = None
    shard_mib: float = 64.0
    max_bad_images: int = 0
    num_processes: int | None = None
    bits: int | None = None
    allows_constant: bool = False

    def __post_init__(self) -> None:
        height, width = self.image_size or (1, 1)
        if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE or height * width > MAX_PIXELS:
            raise ConfigError(
                f"image_size={quote(self.image_size)} is not from 1 to {MAX_SIDE:,} pixels on each side and at most "
                f"{MAX_PIXELS:,} in all; choose another size."
            )
        if not 0 < self.shard_mib <= _MAX_SHARD_MIB:  # false for NaN
            raise ConfigError(
                f"shard_mib={self.shard_mib} is not a size from 0 to {_MAX_SHARD_MIB:,} MiB; give a size such as 64."
            )


@dataclasses.dataclass(frozen=True)
class ConversionPlan:
    """Selected images, their order and their format.

    Attributes:
        indices: Indices of the selected items of the source, in the order of the data set, int64 [N].
        labels: Labels of these items, int64 [N].
        class_names: Class names of the data set, by label.
        target: Format of the converted images.
    """

    indices: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    target: Target


@dataclasses.dataclass
class ConversionProgress:
    """Progress of a conversion.

    Attributes:
        total: Number of selected images.
        done: Number of images that were written or skipped.
        bad_images: Name and problem of each skipped image.
        max_value: Largest pixel value of all written images, in [0, 255].
        num_dark: Number of written images whose largest pixel value is at most a quarter of 255.
    """

    total: int
    done: int = 0
    bad_images: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    max_value: int = 0
    num_dark: int = 0


def plan_conversion(source: Source, options: ConversionOptions) -> ConversionPlan:
    """Selects the images and shuffles them once, so that every shard is a random sample of the data set.

    Args:
        source: Source of images.
        options: Options of the conversion.

    Raises:
        ConfigError: If a class is not in the source.
        DataError: If none of the first images can be read.
    """
    numbers: Sequence[int] = range(len(source.class_names))
    if options.classes:
        numbers = select_classes(options.classes, source.class_names, "the source")
    class_names = tuple(source.class_names[number] for number in numbers)
    new_labels = {number: label for label, number in enumerate(numbers)}
    labels = np.array([new_labels.get(item.label, -1) for item in source.items])
    indices = np.flatnonzero(labels >= 0)
    if options.limit is not None and options.limit < len(indices):
        indices = indices[np.arange(options.limit) * len(indices) // options.limit]
    indices = indices[np.argsort(np.random.PCG64(_SHUFFLE_SEED).random_raw(len(indices)), kind="stable")]
    return ConversionPlan(indices, labels[indices], class_names, _choose_target(source, indices, options))


def convert(
    source: Source,
    plan: ConversionPlan,
    options: ConversionOptions,
    out: Location,
    metadata: dict[str, Any],
    on_progress: Callable[[ConversionProgress], None],
) -> tuple[DatasetSpec, ConversionProgress]:
    """Writes the data set. `dataset.json` is written last; without it, the data set does not exist.

    Args:
        source: Source of images.
        plan: Result of `plan_conversion` for this source.
        options: Options of the conversion.
        out: Folder of the data set. It must not contain a data set; other files in it are left unchanged.
        metadata: Further fields of `dataset.json`: name, source, options, license and attribution.
        on_progress: Function that is called after each image.

    Returns:
        The content of `dataset.json`, and the final progress.

    Raises:
        ConfigError: If `out` already contains a data set.
        LeaseError: If another process writes `out`.
        DataError: If more images than allowed cannot be used, or no image can be used.
        StorageError: If `out` cannot be written.
    """
    progress = ConversionProgress(len(plan.indices))
    with hold(out, f"out={out}") as lease:
        if (out / SPEC_NAME).exists():
            raise ConfigError(f"out={out} already contains a prepared data set; give another folder, or delete it.")
        out.delete(find_leftover_shards(out))  # of an interrupted conversion; all other files belong to the user
        with (
            scratch_folder() as scratch,
            contextlib.closing(ShardWriter(scratch, out, options.shard_mib, lease.verify)) as writer,
        ):
            shape, counts = _write_images(source, plan, options, scratch, writer, progress, on_progress)
            shards = writer.finish()
        spec = DatasetSpec(
            image_shape=shape,
            num_examples=int(counts.sum()),
            class_names=plan.class_names,
            class_counts=tuple(counts.tolist()),
            shards=shards,
            **metadata,
        )
        lease.verify()
        (out / SPEC_NAME).write_bytes(spec.to_json().encode(), only_new=True)
    is_dark = 2 * progress.num_dark > spec.num_examples
    if is_dark and options.bits is None and not options.allows_constant:
        _logger.warning(
            f"{progress.num_dark:,} of {count_of(spec.num_examples, 'image')} are almost black: their pixel values "
            "end at "
            f"{progress.max_value} of 255. If the files use fewer bits than they have, state the number: --bits=12 for "
            "16-bit files with values up to 4,095, or --bits=1 for masks of 0 and 1; delete the data set first."
        )
    return spec, progress


def _write_images(
    source: Source,
    plan: ConversionPlan,
    options: ConversionOptions,
    scratch: Path,
    writer: ShardWriter,
    progress: ConversionProgress,
    on_progress: Callable[[ConversionProgress], None],
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Writes all images that can be used. Returns the shape (H, W, C) of an image, and the number in each class."""
    counts = np.zeros(len(plan.class_names), np.int64)
    shape: tuple[int, ...] = ()
    encoded_images = encode_images(source, plan.indices.tolist(), plan.target, options.num_processes, scratch)
    for index, encoded in zip(plan.indices, encoded_images, strict=True):
        label = plan.labels[progress.done]
        progress.done += 1
        if encoded.png is None:
            _skip_image(progress, source.items[index].name, encoded.problem, options)
        else:
            shape = encoded.shape
            writer.add(encoded.png, int(label))
            counts[label] += 1
            progress.max_value = max(progress.max_value, encoded.max_value)
            progress.num_dark += encoded.max_value <= _DARK
        on_progress(progress)
    if not counts.sum():
        name, problem = progress.bad_images[0]
        raise DataError(f"{count_of(progress.total, 'image')} tried, and none can be used: {name} {problem}.")
    return (shape[0], shape[1], shape[2]), counts


def describe_options(options: ConversionOptions, plan: ConversionPlan) -> dict[str, Any]:
    """Returns the options that the bytes of the data set depend on, for `dataset.json`."""
    return {
        "limit": options.limit,
        "classes": None if options.classes is None else list(plan.class_names),
        "image_size": [plan.target.height, plan.target.width],
        "resize": plan.target.resize,
        "channels": plan.target.channels,
        "shard_mib": options.shard_mib,
        **({} if options.bits is None else {"bits": options.bits}),
    }


def _choose_target(source: Source, indices: np.ndarray, options: ConversionOptions) -> Target:
    """Returns the format of the converted images: from the options or, if they leave it open, from the first images."""
    height, width = options.image_size or (None, None)
    channels = options.channels
    if channels is None or height is None:
        with scratch_folder() as scratch:
            results = [_read_shape(source, int(index), scratch) for index in indices[:_NUM_INSPECTED]]
        shapes = [result for result in results if not isinstance(result, DataError)]
        if not shapes:
            name, problem = source.items[int(indices[0])].name, results[0]
            raise DataError(f"{count_of(len(results), 'image')} tried, and none can be read: {name} {problem}.")
        channels = channels or max(shape[2] for shape in shapes)
        height, width = (height, width) if height else shapes[0][:2]
    resize = options.resize if options.image_size else "none"
    return Target(height, width, channels, resize, options.bits, options.allows_constant)


def _read_shape(source: Source, index: int, scratch: Path) -> tuple[int, int, int] | DataError:
    """Returns the shape (H, W, C) of an image, or the reason why it cannot be read."""
    try:
        return read_shape(read_content(source, index, scratch))
    except DataError as error:
        return error


def _skip_image(progress: ConversionProgress, name: str, problem: str, options: ConversionOptions) -> None:
    progress.bad_images.append((name, problem))
    if len(progress.bad_images) > options.max_bad_images:
        raise DataError(
            f"{name} {problem}. Remove the image, or allow more than --max_bad_images={options.max_bad_images}."
        )
