"""Converts a source of images to a prepared dataset: reads, decodes, resizes, shuffles, and writes TFRecord shards.

Worker processes decode, threads read ahead, and this process writes. Several machines can each make a part of the
shards. The output does not depend on any of these numbers. Finished shards stay after an interruption.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec
from trainer.data.prepare.conversion_plan import ConversionOptions, ConversionPlan
from trainer.data.prepare.duplicates import digest_contents
from trainer.data.prepare.examples import EncodedExample, encode_examples
from trainer.data.prepare.fingerprint import conversion_fingerprint, sources_of
from trainer.data.prepare.replica_watch import replica_folder
from trainer.data.prepare.shard_commit import Rejected, ShardFolder, ShardReport, committed_spec, shard_name
from trainer.data.prepare.sharding import Part, shard_bounds
from trainer.data.prepare.sources import Source
from trainer.data.tfrecord_writer import ShardWriter
from trainer.errors import ConfigError, DataError, count_of
from trainer.storage import Location, check_new_file, scratch_folder
from trainer.storage.lease import hold

_DARK = 64  # 14 of 16 bits

_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class ConversionProgress:
    """Progress of a conversion on this machine.

    Attributes:
        total: Number of images to convert, without those of finished shards.
        done: Number of these images that were written or skipped.
        rejected: Images that are not in the dataset: those that cannot be used, and those that a filter leaves out.
        num_bad: Number of images in `rejected` that cannot be used.
        num_kept: Number of shards that an earlier process had finished.
        num_with_more_frames: Number of files with frames or pages that are not in the dataset, once it is complete.
    """

    total: int
    done: int = 0
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    num_bad: int = 0
    num_kept: int = 0
    num_with_more_frames: int = 0

    @property
    def bad_images(self) -> list[tuple[str, str]]:
        """Name and problem of each image that cannot be used."""
        return [(name, reason) for name, reason, is_filtered in self.rejected if not is_filtered]

    def reject(self, image: Rejected, num_images: int, options: ConversionOptions) -> None:
        """Adds an image that is not in the dataset of `num_images` selected images.

        Raises:
            DataError: If more images cannot be used than the options allow.
        """
        self.rejected.append(image)
        if image.is_filtered:
            return
        self.num_bad += 1
        if self.num_bad > options.max_bad(num_images):
            limit = f"max_bad={100 * options.max_bad_share:g}%" if options.max_bad_share else ""
            limit = limit or f"max_bad_images={options.max_bad_images}"
            raise DataError(f"{image.name} {image.reason}. Remove the image, or allow more than --{limit}.")


def convert(
    source: Source,
    plan: ConversionPlan,
    options: ConversionOptions,
    out: Location,
    metadata: dict[str, Any],
    on_progress: Callable[[ConversionProgress], None],
) -> tuple[DatasetSpec, ConversionProgress]:
    """Writes the dataset on this machine. The arguments and the errors are those of `convert_part`."""
    spec, progress = convert_part(source, plan, options, out, metadata, on_progress, Part())
    assert spec is not None  # this machine is the chief
    return spec, progress


def convert_part(
    source: Source,
    plan: ConversionPlan,
    options: ConversionOptions,
    out: Location,
    metadata: dict[str, Any],
    on_progress: Callable[[ConversionProgress], None],
    part: Part,
    make_shards: "Callable[[PartConversion, Sequence[int]], None] | None" = None,
) -> tuple[DatasetSpec | None, ConversionProgress]:
    """Writes the shards of one of several machines. The chief waits for all shards and writes `dataset.json` last.

    Without `dataset.json`, the dataset does not exist.

    Args:
        source: Source of images.
        plan: Result of `plan_conversion` for this source.
        options: Options of the conversion.
        out: Folder of the dataset. It must not contain a dataset, except one that the machines of this conversion
            have just written; other files in it are left unchanged.
        metadata: Further fields of `dataset.json`: name, source, options, condition_names, license
            and attribution.
        on_progress: Function that is called after each image.
        part: Shards that this machine writes.
        make_shards: Function that lets other processes write shards with these indices. None: this process does.

    Returns:
        The content of `dataset.json`, None if this machine is not the chief; and the final progress.

    Raises:
        ConfigError: If `out` already contains a dataset, or another machine makes shards of other images or options,
            or none for a long time.
        LeaseError: If another process writes `out`, or the part of this machine.
        DataError: If more images than allowed cannot be used, or no image can be used.
        StorageError: If `out` cannot be written, or something else has the name of the file of a dataset.
    """
    leased = out if part.is_chief else replica_folder(out, part.index)
    with hold(leased, f"out={leased}", replica=part.owner) as lease:
        check_new_file(out / SPEC_NAME)
        if (out / SPEC_NAME).exists():
            spec = (
                committed_spec(out, conversion_fingerprint(source, plan), metadata) if part.num_replicas > 1 else None
            )
            if spec is None:
                check_is_new(out)
            return (spec if part.is_chief else None), ConversionProgress(0)
        conversion = PartConversion(source, plan, options, out, part, on_progress)
        reports = conversion.read_finished()
        if make_shards is None:
            reports |= conversion.write(conversion.missing(reports), lease.verify)
        elif missing := conversion.missing(reports):
            make_shards(conversion, missing)
            reports |= conversion.folder.read_made(reports)
        if not part.is_chief:
            return None, conversion.progress
        all_reports = conversion.folder.wait_for_all(reports, lease.verify)
        progress = _merge_progress(conversion.progress, all_reports, plan, options)
        spec = _make_spec(plan, all_reports, metadata | {"conversion": conversion.fingerprint})
        lease.verify()
        conversion.folder.write_rejected(progress.rejected)
        (out / SPEC_NAME).write_bytes(spec.to_json().encode(), only_new=True)
        conversion.folder.delete_reports([report.shard.file for report in all_reports if not report.shard.num_examples])
    _warn_if_dark(plan, options, all_reports, spec.num_examples)
    return spec, progress


def check_is_new(out: Location) -> None:
    """Checks that a folder does not contain a dataset.

    Raises:
        ConfigError: If it does.
        StorageError: If the folder cannot be read, or something else has the name of the file of a dataset.
    """
    check_new_file(out / SPEC_NAME)
    if (out / SPEC_NAME).exists():
        raise ConfigError(f"out={out} already contains a prepared dataset; give another folder, or delete it.")


class PartConversion:
    """Conversion of the images of one machine's shards.

    Attributes:
        fingerprint: Result of `conversion_fingerprint`.
        folder: Finished shards.
        progress: Progress of this machine.
    """

    def __init__(
        self,
        source: Source,
        plan: ConversionPlan,
        options: ConversionOptions,
        out: Location,
        part: Part,
        on_progress: Callable[[ConversionProgress], None],
        fingerprint: str | None = None,
    ):
        self._source, self._plan, self._options, self._out = source, plan, options, out
        self._part, self._on_progress = part, on_progress
        self._bounds = shard_bounds(len(plan.indices), plan.num_shards).tolist()
        self.fingerprint = fingerprint or conversion_fingerprint(source, plan)
        self.folder = ShardFolder(out, plan.num_shards, self.fingerprint, part, self._has_content)
        self.progress = ConversionProgress(0)

    def read_finished(self) -> dict[int, ShardReport]:
        """Deletes shards that are not finished, and returns the reports of those that are, by index."""
        reports = self.folder.clean()
        num_missing = len(self.missing(reports))
        self.progress.num_kept = len(reports)
        if reports:
            _logger.info(f"Finished earlier: {len(reports):,} of {count_of(len(reports) + num_missing, 'shard')}.")
        for index in sorted(reports):
            for image in reports[index].rejected:
                self.progress.reject(image, len(self._plan.indices), self._options)
        return reports

    def _has_content(self, index: int, report: ShardReport) -> bool:
        """Returns whether the images of a finished shard are the same as when it was made."""
        if self._source.content_digest:  # a part of the fingerprint
            return True
        indices = self._plan.indices[self._bounds[index] : self._bounds[index + 1]].tolist()
        digests = digest_contents(sources_of(self._source), indices)
        return report.content == hashlib.sha256(b"\n".join(digests.tolist())).hexdigest()

    def missing(self, reports: Mapping[int, ShardReport]) -> list[int]:
        """Returns the indices of the shards of this machine that have no report."""
        return [index for index in range(self._plan.num_shards) if self._part.owns(index) and index not in reports]

    def write(self, shards: Sequence[int], verify_lease: Callable[[], None]) -> dict[int, ShardReport]:
        """Writes shards one after the other, so that an interruption loses only one.

        Args:
            shards: Indices of the shards.
            verify_lease: Function that is called before a shard is written. An exception prevents it.

        Returns:
            The reports of these shards, by index.
        """
        ranges = [range(self._bounds[index], self._bounds[index + 1]) for index in shards]
        self.progress.total = sum(map(len, ranges))
        reports = {}
        with scratch_folder() as scratch, contextlib.closing(self._encode(ranges, scratch)) as encoded_images:
            for index, positions in zip(shards, ranges, strict=True):
                examples = itertools.islice(encoded_images, len(positions))
                path = scratch / shard_name(index)
                report = self._write_shard(path, zip(positions, examples, strict=True))
                verify_lease()
                self._out.upload(scratch, [path.name])
                self.folder.commit(report, index)
                path.unlink()
                reports[index] = report
        return reports

    def _encode(self, ranges: Sequence[range], scratch: Path) -> Generator[EncodedExample, None, None]:
        """Yields the examples of some ranges of positions in the plan, in order."""
        positions = np.concatenate([np.empty(0, np.int64), *map(np.array, ranges)])
        plan, indices = self._plan, self._plan.indices[positions].tolist()
        num_processes = self._options.num_processes
        yield from encode_examples(self._source, indices, plan.target, plan.input_target, num_processes, scratch)

    def _write_shard(self, path: Path, examples: Iterable[tuple[int, EncodedExample]]) -> ShardReport:
        """Writes the images of a shard that can be used to a local file.

        Args:
            path: Local file.
            examples: Position in the plan of each example, and the example.
        """
        counts = np.zeros(len(self._plan.class_names), np.int64)
        rejected: list[Rejected] = []
        max_value = num_dark = num_with_more_frames = 0
        digests: list[bytes] = []
        with contextlib.closing(ShardWriter(path)) as writer:
            for position, example in examples:
                self.progress.done += 1
                digests.append(example.digest)
                image = example.rejection(self._source, int(self._plan.indices[position]))
                if image is not None:
                    self.progress.reject(image, len(self._plan.indices), self._options)
                    rejected.append(image)
                else:
                    label = int(self._plan.labels[position])
                    writer.add(*example.encoded_images, label=label)
                    counts[label] += 1
                    max_value = max(max_value, example.image.max_value)
                    num_dark += example.image.max_value <= _DARK
                    num_with_more_frames += example.num_with_more_frames
                self._on_progress(self.progress)
            return ShardReport(
                fingerprint=self.fingerprint,
                shard=writer.finish(),
                class_counts=tuple(counts.tolist()),
                rejected=tuple(rejected),
                max_value=max_value,
                num_dark=int(num_dark),
                num_with_more_frames=num_with_more_frames,
                content=hashlib.sha256(b"\n".join(digests)).hexdigest(),
            )


def _merge_progress(
    progress: ConversionProgress, reports: Sequence[ShardReport], plan: ConversionPlan, options: ConversionOptions
) -> ConversionProgress:
    """Returns the progress of this machine with the rejected images of all machines, and the duplicates."""
    merged = ConversionProgress(progress.total, progress.done, [*plan.duplicates], num_kept=progress.num_kept)
    for report in reports:
        merged.num_with_more_frames += report.num_with_more_frames
        for image in report.rejected:
            merged.reject(image, len(plan.indices), options)
    return merged


def _make_spec(plan: ConversionPlan, reports: Sequence[ShardReport], metadata: dict[str, Any]) -> DatasetSpec:
    """Returns the content of `dataset.json`. Shards without images are left out."""
    counts = np.sum([report.class_counts for report in reports], axis=0)
    if not counts.sum():
        name, problem, _ = next(image for report in reports for image in report.rejected)
        raise DataError(f"{count_of(len(plan.indices), 'image')} tried, and none can be used: {name} {problem}.")
    height, width = plan.target.height, plan.target.width
    assert height is not None and width is not None
    return DatasetSpec(
        image_shape=(height, width, plan.target.channels),
        num_examples=int(counts.sum()),
        class_names=plan.class_names,
        class_counts=tuple(counts.tolist()),
        shards=tuple(report.shard for report in reports if report.shard.num_examples),
        input_channels=0 if plan.input_target is None else plan.input_target.channels,
        encoding=plan.target.encoding,
        **metadata,
    )


def _warn_if_dark(
    plan: ConversionPlan, options: ConversionOptions, reports: Sequence[ShardReport], num_images: int
) -> None:
    num_dark = sum(report.num_dark for report in reports)
    if 2 * num_dark > num_images and options.bits is None and not plan.target.allows_constant:
        _logger.warning(
            f"{num_dark:,} of {count_of(num_images, 'image')} are almost black: their pixel values end at "
            f"{max(report.max_value for report in reports)} of 255. If the files use fewer bits than they have, state "
            "the number: --bits=12 for 16-bit files with values up to 4,095, or --bits=1 for masks of 0 and 1; delete "
            "the dataset first."
        )
