"""Finished shards of a dataset that is being prepared, and its commit.

Beside each finished shard is a report: a small hidden file with the checksums of the shard, its counts, and the images
that were rejected. A shard without a valid report is not finished. `dataset.json` is written when all shards are
finished, and the reports are deleted afterwards.
"""

import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer.data.dataset_spec import SHARD_FIELDS, SPEC_NAME, DatasetSpec, Shard, read_dataset_spec
from trainer.data.prepare.replica_watch import ReplicaWatch
from trainer.data.prepare.sharding import Part
from trainer.errors import DataError, DocumentError, MissingError, StorageError, count_of
from trainer.storage import Location, StorageEntry, documents, file_crc32c, read_json
from trainer.storage.documents import MAX_DOCUMENT_BYTES
from trainer.storage.local import LocalLocation
from trainer.storage.parallel import call_in_parallel

_logger = logging.getLogger(__name__)

REJECTED_NAME = "rejected.jsonl"
"""Name of the file that lists the images that are not in the dataset, with reasons."""
_SHARD = r"images-([0-9]{5,})\.tfrecord"
_REPORT = rf"\.{_SHARD}\.json"
_OWN_FILE = re.compile(rf"{_SHARD}|\.{_SHARD}\.partial|{_REPORT}|\.{_REPORT}\.[a-z0-9_]{{8}}")
"""Names of the files of a shard: the shard, its report, and the incomplete files that a killed process leaves."""
_SPEC_FILE = re.compile(rf"\.({re.escape(SPEC_NAME)}|{re.escape(REJECTED_NAME)})\.[a-z0-9_]{{8}}")
_REMEDY = "delete it to prepare its shard again"
_REJECTED_FIELDS = {"name": documents.text(), "reason": documents.text(), "is_filtered": documents.anything}
_SCHEMA = documents.record(
    {
        "fingerprint": documents.text(),
        "shard": documents.record(SHARD_FIELDS),
        "class_counts": documents.list_of(documents.whole()),
        "rejected": documents.list_of(documents.record(_REJECTED_FIELDS)),
        "max_value": documents.whole(0, 255),
        "num_dark": documents.whole(),
        "num_with_more_frames": documents.whole(),
        "content": documents.text(),
    }
)
_POLL_SECS = 2.0
_BLOCK_SIZE = 256
"""Number of reports that are read before the fingerprints in them are compared."""


class Rejected(NamedTuple):
    """An image that is not in the dataset."""

    name: str
    reason: str
    """Reason, which completes a sentence that begins with the name."""
    is_filtered: bool
    """True if a filter of the user rejects the image; False if it cannot be used."""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields of a JSON object. Bytes of a file name that are not UTF-8 are escaped."""
        name, reason = (text.encode(errors="backslashreplace").decode() for text in (self.name, self.reason))
        return {"name": name, "reason": reason, "is_filtered": self.is_filtered}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """Description of a finished shard.

    Attributes:
        fingerprint: Fingerprint of the conversion that the shard belongs to.
        shard: Description of the file for `dataset.json`.
        class_counts: Number of examples of each class.
        rejected: Images that are not in the shard.
        max_value: Largest pixel value in [0, 255].
        num_dark: Number of images that are almost black.
        num_with_more_frames: Number of files with frames or pages that are not used.
        content: Digest of the contents of all images of the shard, also of the rejected ones.
    """

    fingerprint: str
    shard: Shard
    class_counts: tuple[int, ...]
    rejected: tuple[Rejected, ...]
    max_value: int
    num_dark: int
    num_with_more_frames: int = 0
    content: str = ""

    def to_json(self) -> str:
        """Returns the content of the report's file."""
        return json.dumps(
            dataclasses.asdict(self) | {"rejected": [rejected.to_json() for rejected in self.rejected]}, indent=1
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ShardReport":
        """Returns the report in a document that fits the schema."""
        return cls(
            fingerprint=content["fingerprint"],
            shard=Shard.from_json(content["shard"]),
            class_counts=tuple(content["class_counts"]),
            rejected=tuple(
                Rejected(fields["name"], fields["reason"], bool(fields["is_filtered"]))
                for fields in content["rejected"]
            ),
            max_value=content["max_value"],
            num_dark=content["num_dark"],
            num_with_more_frames=content["num_with_more_frames"],
            content=content["content"],
        )


class ShardFolder:
    """Shards and reports in the folder of a dataset that is being prepared.

    Args:
        out: Folder of the dataset.
        num_shards: Number of shards of the dataset.
        fingerprint: Fingerprint of the conversion. Shards of other conversions are not used.
        part: Shards that this machine makes.
        is_current: Function that returns whether the images of a shard are still those of the source, by the index and
            the report of a shard that is finished when this machine starts.
    """

    def __init__(
        self,
        out: Location,
        num_shards: int,
        fingerprint: str,
        part: Part,
        is_current: Callable[[int, ShardReport], bool] = lambda index, report: True,
    ):
        self._out, self._num_shards, self._fingerprint, self._part = out, num_shards, fingerprint, part
        self._is_current = is_current
        self._outdated: dict[int, ShardReport] = {}

    def clean(self) -> dict[int, ShardReport]:
        """Deletes what an interrupted conversion left of this machine's shards, and no files of the user.

        The chief also deletes the shards that this conversion does not have. Of the shards of other machines, it only
        remembers those with other images than the source, until they are made again.

        Returns:
            The reports of this machine's finished shards, which stay, by the index of the shard.

        Raises:
            StorageError: If the folder cannot be read or written.
        """
        entries = {entry.name: entry for entry in self._out.entries(recursive=False)}
        shards = {name: index for name in entries if (index := _shard_of(name)) is not None}
        finished = {
            index
            for index in shards.values()
            if index < self._num_shards
            and (self._part.owns(index) or self._part.is_chief)
            and _report_name(index) in entries
        }
        reports = {}
        for index, report in self._read_reports(sorted(finished)).items():
            if not self._is_own(report):
                continue
            if not self._part.owns(index):
                if not self._is_current(index, report):
                    self._outdated[index] = report
            elif self._has_checksum(report.shard, entries.get(shard_name(index))) and self._is_current(index, report):
                reports[index] = report
        stays = {name for index in reports for name in (shard_name(index), _report_name(index))}
        owned = (
            name
            for name, index in shards.items()
            if (self._part.owns(index) if index < self._num_shards else self._part.is_chief) and name not in stays
        )
        old = (name for name in entries if self._part.is_chief and _SPEC_FILE.fullmatch(name))
        names = [*owned, *old]
        self._delete(name for name in names if name.startswith("."))  # a report is deleted before its shard
        self._delete(name for name in names if not name.startswith("."))
        return reports

    def commit(self, report: ShardReport, index: int) -> None:
        """Writes the report of a shard whose file is complete.

        Raises:
            DataError: If so many images of the shard are rejected that the report cannot be read again.
            StorageError: If the report cannot be written.
        """
        content = report.to_json().encode()
        if len(content) > MAX_DOCUMENT_BYTES:
            raise DataError(
                f"shard {shard_name(index)} has {count_of(len(report.rejected), 'rejected image')}, too many to list "
                "in its report; prepare the dataset with a smaller --shard_mib, or with a larger --num_shards."
            )
        (self._out / _report_name(index)).write_bytes(content)

    def wait_for_all(self, reports: dict[int, ShardReport], check: Callable[[], None]) -> list[ShardReport]:
        """Waits until all machines have finished their shards.

        Args:
            reports: Reports of this machine's shards.
            check: Function to call again and again, which raises an exception to end the waiting.

        Returns:
            The reports of all shards, in the order of the shards.

        Raises:
            ConfigError: If another machine makes other shards, or none for a long time.
            StorageError: If the folder cannot be read.
        """
        reports, watch = dict(reports), ReplicaWatch(self._out, self._part.num_replicas)
        while True:
            new_reports, other_fingerprints = self._read_new_reports(reports)
            reports |= new_reports
            missing = [index for index in range(self._num_shards) if index not in reports]
            if not missing:
                return [reports[index] for index in range(self._num_shards)]
            watch.check(missing, new_reports, other_fingerprints)
            check()
            time.sleep(_POLL_SECS)

    def read_made(self, reports: Mapping[int, ShardReport]) -> dict[int, ShardReport]:
        """Returns the reports of the shards that other processes have made, by the index of the shard.

        Args:
            reports: Reports of the other shards.

        Raises:
            StorageError: If a shard is missing, or is one of another conversion.
        """
        new_reports, _ = self._read_new_reports(reports)
        if num_missing := self._num_shards - len(reports) - len(new_reports):
            raise StorageError(
                f"out={self._out} does not have {count_of(num_missing, 'shard')} of this conversion after all workers "
                "have ended; give a folder that all of them can write, such as gs://BUCKET/NAME."
            )
        return new_reports

    def write_rejected(self, rejected: Iterable[Rejected]) -> None:
        """Writes `rejected.jsonl`; without rejected images, deletes the file that an earlier dataset left."""
        lines = [json.dumps(image.to_json()) for image in rejected]
        if lines:
            (self._out / REJECTED_NAME).write_bytes("".join(f"{line}\n" for line in lines).encode())
        else:
            self._out.delete([REJECTED_NAME])

    def delete_reports(self, empty_shards: Sequence[str]) -> None:
        """Deletes the reports of a dataset that is committed, and shards without images."""
        self._delete([*map(_report_name, range(self._num_shards)), *empty_shards])

    def _delete(self, names: Iterable[str]) -> None:
        """Deletes files in any order, several at a time."""
        call_in_parallel(lambda name: self._out.delete([name]), names)

    def _read_new_reports(self, reports: Mapping[int, ShardReport]) -> tuple[dict[int, ShardReport], dict[int, str]]:
        """Reads the reports that are not in `reports`.

        Returns:
            The reports by the index of the shard; and, by the index of a machine, the fingerprint of a report of
            another conversion.
        """
        names = {entry.name for entry in self._out.entries(recursive=False)}
        new_reports: dict[int, ShardReport] = {}
        other_fingerprints: dict[int, str] = {}
        pending = [index for index in range(self._num_shards) if index not in reports and _report_name(index) in names]
        while pending:
            for index, report in self._read_reports(pending[:_BLOCK_SIZE]).items():
                if self._is_own(report) and report != self._outdated.get(index):
                    new_reports[index] = report
                else:
                    other_fingerprints[index % self._part.num_replicas] = report.fingerprint
            # One old report of a machine suffices.
            pending = [
                index for index in pending[_BLOCK_SIZE:] if index % self._part.num_replicas not in other_fingerprints
            ]
        return new_reports, other_fingerprints

    def _read_reports(self, indices: Sequence[int]) -> dict[int, ShardReport]:
        """Returns the reports of some shards, without those that are missing or damaged, by the index of the shard."""
        reports = zip(indices, call_in_parallel(self._read_report, indices), strict=True)
        return {index: report for index, report in reports if report is not None}

    def _read_report(self, index: int) -> ShardReport | None:
        """Returns the report of a shard; None if it is missing or damaged."""
        try:
            content = read_json(self._out / _report_name(index), _SCHEMA, remedy=_REMEDY)
        except MissingError:
            return None
        except DocumentError as error:
            _logger.warning(f"{shard_name(index)} is made again: {error}")
            return None
        report = ShardReport.from_json(content)
        return report if report.shard.file == shard_name(index) else None

    def _is_own(self, report: ShardReport) -> bool:
        """Returns whether this is a report of this conversion."""
        return report.fingerprint == self._fingerprint

    def _has_checksum(self, shard: Shard, entry: StorageEntry | None) -> bool:
        """Returns whether the file of a shard is complete."""
        if entry is None or entry.num_bytes != shard.num_bytes:
            return False
        if isinstance(self._out, LocalLocation):
            return file_crc32c(self._out.path / shard.file) == shard.crc32c
        return entry.crc32c == shard.crc32c


def committed_spec(out: Location, fingerprint: str, metadata: Mapping[str, Any]) -> DatasetSpec | None:
    """Returns the dataset in a folder if it is the result of this conversion; else None.

    Args:
        out: Folder with a `dataset.json`.
        fingerprint: Fingerprint of the conversion.
        metadata: Further fields of the description that are known in advance.
    """
    spec, expected = read_dataset_spec(out), {**metadata, "conversion": fingerprint}
    return spec if all(getattr(spec, name) == value for name, value in expected.items()) else None


def shard_name(index: int) -> str:
    """Returns the name of the file of a shard."""
    return f"images-{index:05d}.tfrecord"


def _report_name(index: int) -> str:
    return f".{shard_name(index)}.json"


def _shard_of(name: str) -> int | None:
    """Returns the index of the shard that a file belongs to; None for other files."""
    match = _OWN_FILE.fullmatch(name)
    return int(next(filter(None, match.groups()))) if match else None
