"""Plan of a conversion: which images of a source are in the dataset, in which order, format, and number of shards.

The plan is a pure function of the list of images and the options, so that all machines of a job have the same one.
Shapes: `N` selected images, `H W C` height, width and channels.
"""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config.fields import check_number
from trainer.data.class_selection import select_classes
from trainer.data.image_encodings import DEFAULT_QUALITY, ENCODINGS, PNG, check_encodable
from trainer.data.prepare.decoding import check_encoder, read_shape
from trainer.data.prepare.duplicates import drop_duplicates
from trainer.data.prepare.encoding import read_content
from trainer.data.prepare.examples import encode_examples
from trainer.data.prepare.pixels import Target, check_dimensions
from trainer.data.prepare.shard_commit import Rejected
from trainer.data.prepare.sharding import check_num_shards, choose_num_shards
from trainer.data.prepare.sources import Source
from trainer.data.prepare.sources.pairs import PairedSource
from trainer.errors import ConfigError, DataError, FilteredImageError, count_of, quote
from trainer.image_io import MAX_PIXELS, MAX_SIDE
from trainer.storage import scratch_folder

_NUM_INSPECTED = 100
"""Number of images that determine the size and the channels if the options leave them open."""
_NUM_SAMPLED = 32
"""Number of images whose encoded size determines the number of shards if the options leave it open."""
_MAX_SHARD_MIB = 65_536
_SHUFFLE_SEED = 20_061_511


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """Options of a conversion.

    Attributes:
        image_size: Height and width in pixels, in [1, `MAX_SIDE`], together at most `MAX_PIXELS`. None: the size of the
            images, which must be equal.
        resize: One of `pixels.RESIZES`.
        channels: 1, 3 or 4 (with alpha). None: 1 if the first images are all gray, else 3.
        input_channels: The same for the inputs of pairs.
        limit: Maximum number of images, selected evenly from the whole source. None: all images.
        classes: Names or numbers of the classes to include. None: all classes.
        shard_mib: Approximate size of a shard in MiB.
        num_shards: Number of shards. None: as `shard_mib` and the size of the first images determine it.
        max_bad_images: Number of unusable images to skip. If there are more, the conversion fails.
        max_bad_share: The same as a share of all images, in [0, 1]. The larger number of both applies.
        min_side: Smallest side in pixels of the images to use. None: no limit.
        max_aspect_ratio: Largest ratio of the longer to the shorter side of the images to use. None: no limit.
        drop_duplicates: True if of several images with the same content only the first one is used.
        num_processes: Number of decoding processes. None: one per core.
        bits: Number of bits that the pixel values use, in [1, 16]. None: all bits of the files.
        allows_constant: True if images whose pixels are all equal are accepted, and sets of dark images without a
            warning: those of a generator may be as they are.
        encoding: Encoding of the images in the records: a key of `image_encodings.ENCODINGS`.
        quality: Quality of a lossy encoding, in [1, 100]. None: `DEFAULT_QUALITY`.

    Raises:
        ConfigError: If `image_size`, `shard_mib` or `quality` is out of range, `bits` and `channels` do not fit each
            other, or the encoding does not fit other options.
    """

    image_size: tuple[int, int] | None = None
    resize: str = "crop"
    channels: int | None = None
    input_channels: int | None = None
    limit: int | None = None
    classes: tuple[str, ...] | None = None
    shard_mib: float = 64.0
    num_shards: int | None = None
    max_bad_images: int = 0
    max_bad_share: float = 0.0
    min_side: int | None = None
    max_aspect_ratio: float | None = None
    drop_duplicates: bool = False
    num_processes: int | None = None
    bits: int | None = None
    allows_constant: bool = False
    encoding: str = PNG
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.bits is not None and 4 in (self.channels, self.input_channels):
            raise ConfigError(f"bits={self.bits} does not work with 4 channels, because alpha has 8 bits; omit it.")
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
        self._check_encoding()

    def _check_encoding(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ConfigError(f"encoding={quote(self.encoding)} is unknown; choose one of {', '.join(ENCODINGS)}.")
        if self.quality is not None:
            check_number("quality", self.quality, whole=True, minimum=1, maximum=100)
            if not ENCODINGS[self.encoding].is_lossy:
                raise ConfigError(
                    f"quality={self.quality} does not work with encoding={self.encoding}, which loses nothing; omit "
                    "it, or use --encoding=webp or --encoding=jpeg."
                )
        for channels in (self.channels, self.input_channels):
            check_encodable(self.encoding, channels, *(self.image_size or (None, None)))
        check_encoder(self.encoding)

    def max_bad(self, num_images: int) -> int:
        """Returns the number of unusable images among `num_images` that are skipped."""
        return max(self.max_bad_images, int(self.max_bad_share * num_images))


@dataclasses.dataclass(frozen=True)
class ConversionPlan:
    """Selected images, their order and their format.

    Attributes:
        indices: Indices of the selected items of the source, in the order of the dataset, int64 [N].
        labels: Labels of these items, int64 [N].
        class_names: Class names of the dataset, by label.
        target: Format of the converted images.
        input_target: Format of the converted inputs of pairs; None if there are none.
        num_shards: Number of shards, in [1, N].
        duplicates: Images that are left out because an earlier one has the same content.
    """

    indices: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    target: Target
    input_target: Target | None = None
    num_shards: int = 1
    duplicates: tuple[Rejected, ...] = ()


def plan_conversion(source: Source, options: ConversionOptions) -> ConversionPlan:
    """Selects the images and shuffles them once, so that every shard is a random sample of the dataset.

    Args:
        source: Source of images.
        options: Options of the conversion.

    Raises:
        ConfigError: If a class is not in the source, all selected classes are empty, or the number of shards does not
            fit the images.
        DataError: If none of the first images can be used, or pairs have different proportions.
    """
    numbers: Sequence[int] = range(len(source.class_names))
    if options.classes:
        numbers = select_classes(options.classes, source.class_names, "the source")
    class_names = tuple(source.class_names[number] for number in numbers)
    new_labels = {number: label for label, number in enumerate(numbers)}
    labels = np.fromiter((new_labels.get(item.label, -1) for item in source.items), np.int64, len(source.items))
    indices = np.flatnonzero(labels >= 0)
    if not len(indices):
        raise ConfigError(
            f"classes={quote(','.join(options.classes or ()))} selects no image of the source; choose a class that has "
            "images."
        )
    duplicates: tuple[Rejected, ...] = ()
    if options.drop_duplicates:
        indices, duplicates = drop_duplicates(source, indices)
    if options.limit is not None and options.limit < len(indices):
        indices = indices[np.arange(options.limit) * len(indices) // options.limit]
    indices = indices[np.argsort(np.random.PCG64(_SHUFFLE_SEED).random_raw(len(indices)), kind="stable")]
    target, input_target = _choose_targets(source, indices, options)
    plan = ConversionPlan(indices, labels[indices], class_names, target, input_target, duplicates=duplicates)
    return dataclasses.replace(plan, num_shards=_choose_num_shards(source, plan, options))


def describe_options(options: ConversionOptions, plan: ConversionPlan) -> dict[str, Any]:
    """Returns the options that the bytes of the dataset depend on, for `dataset.json`."""
    return {
        "limit": options.limit,
        "classes": None if options.classes is None else list(plan.class_names),
        "image_size": [plan.target.height, plan.target.width],
        "resize": plan.target.resize,
        "channels": plan.target.channels,
        **({} if plan.target.quality is None else {"quality": plan.target.quality}),
        "shard_mib": options.shard_mib,
        **{
            name: value
            for name in ("bits", "num_shards", "min_side", "max_aspect_ratio", "drop_duplicates")
            if (value := getattr(options, name)) not in (None, False)
        },
        **({} if plan.input_target is None else {"input_channels": plan.input_target.channels}),
    }


def _choose_num_shards(source: Source, plan: ConversionPlan, options: ConversionOptions) -> int:
    """Returns the number of shards: from the options or, if they leave it open, from the size of the first images."""
    num_images, target = len(plan.indices), plan.target
    if options.num_shards is not None:
        check_num_shards(options.num_shards, num_images)
        return options.num_shards
    assert target.height is not None and target.width is not None
    channels = target.channels + (0 if plan.input_target is None else plan.input_target.channels)
    image_bytes = 2.0 * target.height * target.width * channels  # more than any PNG has
    if target.encoding == PNG and choose_num_shards(num_images, image_bytes, options.shard_mib) == 1:
        return 1
    with scratch_folder() as scratch:
        indices = plan.indices[:_NUM_SAMPLED].tolist()
        examples = encode_examples(source, indices, plan.target, plan.input_target, 1, scratch)
        sizes = [sum(map(len, example.encoded_images)) for example in examples if example.encoded_images]
    return choose_num_shards(num_images, float(np.mean(sizes)) if sizes else image_bytes, options.shard_mib)


def _choose_targets(source: Source, indices: np.ndarray, options: ConversionOptions) -> tuple[Target, Target | None]:
    """Returns the formats of the images and of the inputs of pairs, which have the same size; None without pairs."""
    if not isinstance(source, PairedSource):
        return _choose_target(source, indices, options), None
    # An image of one value, such as an empty mask, may be a part of a pair.
    options = dataclasses.replace(options, allows_constant=True)
    target = _choose_target(source, indices, options, source.image_side)
    options = dataclasses.replace(options, channels=options.input_channels)
    input_target = _choose_target(source.inputs, indices, options, source.input_side)
    if target.resize not in ("none", "stretch"):
        _check_ratios(source, indices)
    return target, dataclasses.replace(input_target, height=target.height, width=target.width)


def _choose_target(source: Source, indices: np.ndarray, options: ConversionOptions, side: str | None = None) -> Target:
    """Returns the format of the converted images: from the options or, if they leave it open, from the first images.

    Args:
        source: Source of the images.
        indices: Indices of the selected items.
        options: Options of the conversion.
        side: Half of each file that is used. None: all of it.
    """
    height, width = options.image_size or (None, None)
    default_quality = DEFAULT_QUALITY if ENCODINGS[options.encoding].is_lossy else None
    target = Target(
        height,
        width,
        options.channels or 3,
        options.resize if options.image_size else "none",
        options.bits,
        options.allows_constant,
        side,
        min_side=options.min_side,
        max_aspect_ratio=options.max_aspect_ratio,
        encoding=options.encoding,
        quality=options.quality or default_quality,
    )
    if options.channels is None or height is None:
        shapes = _usable_shapes(source, indices, target)
        if height is None:
            sizes = collections.Counter(shape[:2] for shape in shapes)
            height, width = max(sizes, key=lambda size: sizes[size])  # of several, that of the earliest image
            shapes = [shape for shape in shapes if shape[:2] == (height, width)]
            width //= 1 if side is None else 2
        channels = options.channels or max(shape[2] for shape in shapes)
        target = dataclasses.replace(target, height=height, width=width, channels=channels)
    check_encodable(options.encoding, target.channels, target.height, target.width)
    return target


def _usable_shapes(source: Source, indices: np.ndarray, target: Target) -> list[tuple[int, int, int]]:
    """Returns the shapes (H, W, C) of those of the first images that can be read and that no filter leaves out.

    Raises:
        DataError: If there are none.
    """

    def inspect(index: int) -> tuple[int, int, int] | DataError:
        try:
            shape = read_shape(read_content(source, index, scratch))
            check_dimensions(shape[1], shape[0], target)
        except DataError as error:
            return error
        return shape

    with scratch_folder() as scratch:
        results = [inspect(index) for index in indices[:_NUM_INSPECTED].tolist()]
    shapes = [result for result in results if not isinstance(result, DataError)]
    if not shapes:
        name, problem = source.items[int(indices[0])].name, results[0]
        is_filtered = isinstance(problem, FilteredImageError)
        remedy = "; change this limit, or pass both --image_size and --channels" if is_filtered else ""
        raise DataError(f"{count_of(len(results), 'image')} tried, and none can be used: {name} {problem}{remedy}.")
    return shapes


def _check_ratios(source: PairedSource, indices: np.ndarray) -> None:
    """Rejects pairs whose images have other proportions than their inputs, because resizing would shift them.

    Only the first images are inspected.
    """
    with scratch_folder() as scratch:
        for index in indices[:_NUM_INSPECTED].tolist():
            shapes = [_read_shape(side, index, scratch) for side in (source.inputs, source)]
            sizes = [shape[:2] for shape in shapes if not isinstance(shape, DataError)]
            if len(sizes) < 2:
                continue
            (height, width), (other_height, other_width) = sizes
            if abs(height * other_width - width * other_height) > max(*sizes[0], *sizes[1]):  # more than a pixel
                raise DataError(
                    f"{source.inputs.items[index].name} is {height}×{width} and {source.items[index].name} "
                    f"{other_height}×{other_width}, so that they would be cropped or padded differently; give them the "
                    "same proportions, or pass --resize=stretch."
                )


def _read_shape(source: Source, index: int, scratch: Path) -> tuple[int, int, int] | DataError:
    """Returns the shape (H, W, C) of an image, or the reason why it cannot be read."""
    try:
        return read_shape(read_content(source, index, scratch))
    except DataError as error:
        return error
