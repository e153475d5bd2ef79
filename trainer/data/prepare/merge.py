"""Merges prepared datasets into one, without decoding or encoding an image.

Records are copied as they are, except that labels are replaced where the classes of the result have other numbers.
Shards are written one after the other, and finished ones stay after an interruption.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard, fingerprint_of
from trainer.data.datasets import is_prepared, prepared_folder
from trainer.data.prepare.convert import ConversionProgress, check_is_new
from trainer.data.prepare.shard_commit import ShardFolder, ShardReport, shard_name
from trainer.data.prepare.sharding import Part
from trainer.data.record_files import split_records
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import read_labels
from trainer.data.tfrecord_writer import ShardWriter, replace_label
from trainer.errors import ConfigError, DataError, count_of, quote
from trainer.storage import Location
from trainer.storage.documents import MAX_DOCUMENT_BYTES
from trainer.storage.lease import hold
from trainer.storage.local import LocalLocation

_logger = logging.getLogger(__name__)

_EQUAL_FIELDS = ("image_shape", "encoding", "input_channels", "condition_names")
"""Fields of `dataset.json` that all sources must have in common."""
_PIXEL_OPTIONS = ("resize", "bits", "quality")
"""Options about pixels, which `dataset.json` of the result has if they are equal in all sources."""
_ORIGIN_FIELDS = ("name", "source", "license", "attribution", "num_examples", "options")
_ORIGINS = "sources"
"""Option with the origin of each part of a merged dataset."""


@dataclasses.dataclass(frozen=True)
class MergeSource:
    """A dataset to merge.

    Attributes:
        name: Name or folder as the user wrote it.
        files: Files of the dataset.
        new_labels: Label in the result of each label, int64 [number of classes].
    """

    name: str
    files: ShardCache
    new_labels: np.ndarray

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Returns the number of its images of each class of the result, as its description states it: int64 [M]."""
        counts = np.zeros(num_classes, np.int64)
        np.add.at(counts, self.new_labels, self.files.spec.class_counts)
        return counts


@dataclasses.dataclass(frozen=True)
class MergePlan:
    """Sources of a merged dataset, and the order of their shards.

    Attributes:
        sources: Datasets to merge.
        class_names: Class names of the result.
        shards: Source and shard of each shard of the result.
    """

    sources: tuple[MergeSource, ...]
    class_names: tuple[str, ...]
    shards: tuple[tuple[MergeSource, Shard], ...]

    @property
    def num_examples(self) -> int:
        """Number of images of the result."""
        return sum(shard.num_examples for _, shard in self.shards)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class of the result."""
        counts = np.sum([source.class_counts(len(self.class_names)) for source in self.sources], axis=0)
        return tuple(counts.tolist())

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the bytes of the shards depend on."""
        sources = [(fingerprint_of(source.files.spec.shards), source.new_labels.tolist()) for source in self.sources]
        return hashlib.sha256(repr(("merge", sources, len(self.class_names))).encode()).hexdigest()

    def sources_of_first(self, num_images: int) -> tuple[str, ...]:
        """Returns the names of the sources that have some of the first images of the result."""
        starts = itertools.accumulate((shard.num_examples for _, shard in self.shards), initial=0)
        first = (source.name for start, (source, _) in zip(starts, self.shards, strict=False) if start < num_images)
        return tuple(dict.fromkeys(first))


def plan_merge(names: Sequence[str], out: Location, cache: Path) -> MergePlan:
    """Opens datasets and checks that they can be merged.

    The classes of the result are in the order in which they first occur in the sources. Its shards are those of the
    sources, in such an order that the sources are mixed in proportion to their sizes.

    Args:
        names: Names or folders of prepared datasets, at least two.
        out: Folder of the result.
        cache: Local folder for shards of sources in a bucket, one at a time.

    Raises:
        ConfigError: If there are fewer than two sources, a source is not a prepared dataset or is given twice, `out`
            is in a source, or two sources have images of different kinds.
        DataError, StorageError: If the description of a source cannot be read.
    """
    if len(names) < 2:
        raise ConfigError(f"sources={quote(','.join(names))} is not at least two datasets; name them all.")
    folders = [_prepared_folder(name) for name in names]
    _check_folders(names, folders, out)
    caches = [ShardCache(folder, cache, cache_mib=0) for folder in folders]
    specs = [files.spec for files in caches]
    _check_contents(names, specs)
    class_names = tuple(dict.fromkeys(name for spec in specs for name in spec.class_names))
    labels = {name: label for label, name in enumerate(class_names)}
    sources = tuple(
        MergeSource(name, files, np.array([labels[each] for each in files.spec.class_names], np.int64))
        for name, files in zip(names, caches, strict=True)
    )
    return MergePlan(sources, class_names, _order_shards(sources))


def merge_shards(
    plan: MergePlan, out: Location, name: str, scratch: Path, on_progress: Callable[[ConversionProgress], None]
) -> tuple[DatasetSpec, ConversionProgress]:
    """Writes a merged dataset, `dataset.json` last.

    The file of one shard is in memory at a time.

    Args:
        plan: Result of `plan_merge`.
        out: Folder of the result. Finished shards of the same merge in it are used; other files are left unchanged.
        name: Name of the result.
        scratch: Local folder for the shard that is being written.
        on_progress: Function that is called after each shard.

    Returns:
        The content of `dataset.json`, and the final progress.

    Raises:
        ConfigError: If `out` already contains a dataset, or the description of the result would be too large.
        LeaseError: If another process writes `out`.
        DataError: If a shard is damaged, or contradicts the description of its dataset.
        StorageError: If a source cannot be read, or `out` cannot be written.
    """
    _check_size(_make_spec(plan, name, [shard for _, shard in plan.shards]))
    with hold(out, f"out={out}") as lease:
        check_is_new(out)
        folder = ShardFolder(out, len(plan.shards), plan.fingerprint, Part())
        reports = folder.clean()
        if reports:
            _logger.info(f"Finished earlier: {len(reports):,} of {count_of(len(plan.shards), 'shard')}.")
        num_finished = sum(report.shard.num_examples for report in reports.values())
        progress = ConversionProgress(plan.num_examples - num_finished, num_kept=len(reports))
        for index, (source, shard) in enumerate(plan.shards):
            if index not in reports:
                path = scratch / shard_name(index)
                report = _write_shard(plan, source, shard, path)
                lease.verify()
                out.upload(scratch, [path.name])
                folder.commit(report, index)
                path.unlink()
                reports[index] = report
                progress.done += shard.num_examples
                on_progress(progress)
        spec = _make_spec(plan, name, [reports[index].shard for index in range(len(plan.shards))])
        _check_counts(plan, reports)
        lease.verify()
        folder.write_rejected([])
        (out / SPEC_NAME).write_bytes(spec.to_json().encode(), only_new=True)
        folder.delete_reports([])
    return spec, progress


def _prepared_folder(name: str) -> Location:
    if not is_prepared(name):
        raise ConfigError(f"sources has {quote(name)}, which has no shards; give folders of prepared datasets.")
    return prepared_folder(name)


def _check_folders(names: Sequence[str], folders: Sequence[Location], out: Location) -> None:
    """Checks that every folder is given once, and that the result is in none of them."""
    names_of_paths: dict[str, str] = {}
    for name, folder in zip(names, folders, strict=True):
        path = _real_path(folder)
        if path in names_of_paths:
            raise ConfigError(f"sources has {names_of_paths[path]} and {name}, which are the same; remove one of them.")
        names_of_paths[path] = name
        if f"{_real_path(out)}/".startswith(f"{path}/"):
            raise ConfigError(f"out={out} is in the source {name}; give a folder outside of it.")


def _real_path(folder: Location) -> str:
    return os.path.realpath(folder.path) if isinstance(folder, LocalLocation) else str(folder).rstrip("/")


def _check_contents(names: Sequence[str], specs: Sequence[DatasetSpec]) -> None:
    """Checks that all datasets have images of the same kind, and that no two have the same shards."""
    names_of_shards: dict[str, str] = {}
    for name, spec in zip(names, specs, strict=True):
        if not spec.num_examples:
            raise ConfigError(f"{name} has no images; remove it from sources.")
        for field in _EQUAL_FIELDS:
            value, first_value = getattr(spec, field), getattr(specs[0], field)
            if value != first_value:
                raise ConfigError(
                    f"{name} has {field} {quote(value)}, but {names[0]} has {quote(first_value)}; prepare both with "
                    "the same options."
                )
        other = names_of_shards.setdefault(fingerprint_of(spec.shards), name)
        if other != name:
            raise ConfigError(f"{name} has the same shards as {other}; remove one of them.")


def _order_shards(sources: Sequence[MergeSource]) -> tuple[tuple[MergeSource, Shard], ...]:
    """Returns all shards in such an order that every part of it has images of each source in proportion to its size."""
    positions: list[tuple[float, int, MergeSource, Shard]] = []
    for number, source in enumerate(sources):
        spec, start = source.files.spec, 0
        for shard in spec.shards:
            middle = (start + shard.num_examples / 2) / spec.num_examples
            positions.append((middle, number, source, shard))
            start += shard.num_examples
    return tuple((source, shard) for *_, source, shard in sorted(positions, key=lambda position: position[:2]))


def _write_shard(plan: MergePlan, source: MergeSource, shard: Shard, path: Path) -> ShardReport:
    """Writes the records of a shard with the labels of the result to a local file."""
    labels = read_labels(source.files, [shard])
    new_labels = source.new_labels[labels]
    content = source.files.read(shard)
    with contextlib.closing(ShardWriter(path)) as writer:
        records = split_records(io.BytesIO(content), len(content))
        for record, label, new_label in zip(records, labels.tolist(), new_labels.tolist(), strict=True):
            writer.add_record(record if new_label == label else replace_label(record, new_label))
        return ShardReport(
            fingerprint=plan.fingerprint,
            shard=writer.finish(),
            class_counts=tuple(np.bincount(new_labels, minlength=len(plan.class_names)).tolist()),
            rejected=(),
            max_value=0,
            num_dark=0,
        )


def _check_counts(plan: MergePlan, reports: Mapping[int, ShardReport]) -> None:
    """Checks that the shards of each source have the classes that its description states."""
    for source in plan.sources:
        expected = source.class_counts(len(plan.class_names))
        own_reports = [reports[index] for index, (origin, _) in enumerate(plan.shards) if origin is source]
        counts = np.sum([report.class_counts for report in own_reports], axis=0)
        if (counts != expected).any():
            raise DataError(
                f"{source.name} has {counts.tolist()} images per class of {quote(plan.class_names)}, but its "
                f"{SPEC_NAME} states {expected.tolist()}; prepare the dataset again."
            )


def _make_spec(plan: MergePlan, name: str, shards: Sequence[Shard]) -> DatasetSpec:
    """Returns the content of `dataset.json` of the result, with the origin of all sources."""
    specs = [source.files.spec for source in plan.sources]
    first = specs[0].options
    common = {
        option: first[option]
        for option in _PIXEL_OPTIONS
        if option in first and all(spec.options.get(option) == first[option] for spec in specs)
    }
    origins = [origin for spec in specs for origin in _origins_of(spec)]
    return dataclasses.replace(
        specs[0],
        name=name,
        num_examples=plan.num_examples,
        class_names=plan.class_names,
        class_counts=plan.class_counts,
        shards=tuple(shards),
        options=common | {_ORIGINS: origins},
        source=_join(spec.source for spec in specs),
        license=_join(spec.license for spec in specs),
        attribution=_join(spec.attribution for spec in specs),
        conversion="",
    )


def _join(texts: Iterable[str]) -> str:
    """Returns different texts, without empty ones, as one."""
    return "; ".join(dict.fromkeys(filter(None, texts)))


def _origins_of(spec: DatasetSpec) -> list[Any]:
    """Returns the origin of a dataset; of one that was merged itself, the origins of its parts."""
    origins = spec.options.get(_ORIGINS)
    return origins if isinstance(origins, list) else [{field: getattr(spec, field) for field in _ORIGIN_FIELDS}]


def _check_size(spec: DatasetSpec) -> None:
    num_bytes = len(spec.to_json().encode())
    if num_bytes > MAX_DOCUMENT_BYTES:
        raise ConfigError(
            f"{SPEC_NAME} of {count_of(len(spec.shards), 'shard')} and {count_of(len(spec.class_names), 'class')} "
            f"would have {num_bytes:,} bytes, more than the allowed {MAX_DOCUMENT_BYTES:,}; prepare the sources with "
            "fewer and larger shards, or merge fewer."
        )
