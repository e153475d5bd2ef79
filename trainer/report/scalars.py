"""The scalars of a run for a page: read as the file grows, and reduced to as many points as a chart can show."""

import math
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainer.errors import DocumentError
from trainer.storage import documents, parse_json
from trainer.storage.local_files import open_regular

EVENT = "event/"
"""Beginning of the names of events among the scalars, such as a rollback."""
_LINE = documents.record({"step": documents.whole()})
MAX_NAMES = 200
"""Maximum number of scalars; later ones are left out."""
_MAX_NAME_CHARACTERS = 200
_OWN_NAMES = ("step", "images_seen", "time")


class _Column:
    """Values of one scalar, and the lines that have them."""

    def __init__(self) -> None:
        self.rows, self.values = array("q"), array("d")


class Scalars:
    """The lines of a `metrics.jsonl`.

    Attributes:
        num_damaged: Number of damaged lines.
        has_more_names: True if the file has more than `MAX_NAMES` scalars.
        events: Lines with an event.

    Args:
        path: Path of the file. It may be absent.
    """

    def __init__(self, path: Path):
        self._path = path
        self._reset()

    def update(self) -> None:
        """Reads the lines that were added since the last call, or all of them if the file was replaced.

        Raises:
            OSError: If the file cannot be read, or is not a regular file.
        """
        if not os.path.lexists(self._path):
            self._reset()
            return
        with open_regular(self._path, "rb") as file:
            if not self._continues(file):
                self._reset()
            file.seek(self._position)
            while content := file.readline(documents.MAX_DOCUMENT_BYTES):
                if not content.endswith(b"\n") and len(content) < documents.MAX_DOCUMENT_BYTES:
                    return  # a line that is still being written
                self._position += len(content)
                self._last_line = content
                self._add(content)

    @property
    def num_lines(self) -> int:
        """Number of readable lines."""
        return len(self._steps)

    @property
    def steps(self) -> np.ndarray:
        """Step of each line, int64."""
        return np.array(self._steps)

    @property
    def times(self) -> np.ndarray:
        """Time of each line in seconds since the epoch, float64; NaN where it is missing."""
        return np.array(self._times)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scalars, without events."""
        return tuple(self._columns)

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps and values of the lines that have a scalar; both are empty if there are none."""
        column = self._columns.get(name, _Column())
        return self.steps[np.array(column.rows, np.int64)], np.array(column.values)

    def tables(self, num_points: int, to_hours: Callable[[np.ndarray], np.ndarray]) -> list[dict[str, Any]]:
        """Returns the scalars as plain JSON values, one table for all scalars that are in the same lines.

        If there are more lines than points, each point stands for consecutive lines, and has their mean, minimum, and
        maximum, so that no outlier is lost. Values that are not finite are left out.

        Args:
            num_points: Maximum number of points of a curve.
            to_hours: Function that converts times in seconds since the epoch to hours of training.
        """
        groups: dict[bytes, list[str]] = {}
        for name in self.names:
            groups.setdefault(self._columns[name].rows.tobytes(), []).append(name)
        return [self._table(names, num_points, to_hours) for names in groups.values()]

    def _table(self, names: list[str], num_points: int, to_hours: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        rows = np.array(self._columns[names[0]].rows)
        count = min(len(rows), num_points)
        bounds = np.linspace(0, len(rows), count + 1).astype(np.int64)
        starts, last_rows = bounds[:-1], rows[bounds[1:] - 1]
        return {
            "lines_per_point": math.ceil(len(rows) / count),
            "step": [int(step) for step in np.array(self._steps)[last_rows]],
            "images": _plain(np.array(self._images)[last_rows]),
            "hours": _plain(to_hours(np.array(self._times)[last_rows])),
            "columns": {name: _summarize(np.array(self._columns[name].values), starts) for name in names},
        }

    def _reset(self) -> None:
        self._position, self._last_line = 0, b""
        self._steps, self._images, self._times = array("q"), array("d"), array("d")
        self._columns: dict[str, _Column] = {}
        self.events: list[dict[str, float]] = []
        self.num_damaged, self.has_more_names = 0, False

    def _continues(self, file: BinaryIO) -> bool:
        """Returns whether the file still has the last line that was read at its place. Lines have their time."""
        file.seek(self._position - len(self._last_line))
        return file.read(len(self._last_line)) == self._last_line

    def _add(self, content: bytes) -> None:
        try:
            line = parse_json(content, self._path, _LINE, remedy="", allow_nan=True)
        except DocumentError:
            self.num_damaged += 1
            return
        numbers = dict(_numbers(line))
        row = len(self._steps)
        self._steps.append(line["step"])
        self._images.append(numbers.get("images_seen", math.nan))
        self._times.append(numbers.get("time", math.nan))
        if any(name.startswith(EVENT) for name in numbers):
            self.events.append(numbers)
        for name, value in numbers.items():
            if name in _OWN_NAMES or name.startswith(EVENT):
                continue
            if name not in self._columns and len(self._columns) >= MAX_NAMES:
                self.has_more_names = True
                continue
            column = self._columns.setdefault(name, _Column())
            column.rows.append(row)
            column.values.append(value)


def _numbers(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a line as floats, by name."""
    for name, value in line.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and len(name) <= _MAX_NAME_CHARACTERS:
            yield name, float(value) if abs(value) < 1e300 or value != value else math.inf


def _summarize(values: np.ndarray, starts: np.ndarray) -> dict[str, list[float | None]]:
    """Returns mean, minimum and maximum of consecutive values; only the values themselves if each is alone."""
    if len(starts) == len(values):
        return {"mean": _plain(values)}
    is_finite = np.isfinite(values)
    counts = np.add.reduceat(is_finite.astype(np.int64), starts)
    sums = np.add.reduceat(np.where(is_finite, values, 0.0), starts)
    return {
        "mean": _plain(np.where(counts, sums / np.maximum(counts, 1), np.nan)),
        "min": _plain(np.minimum.reduceat(np.where(is_finite, values, np.inf), starts)),
        "max": _plain(np.maximum.reduceat(np.where(is_finite, values, -np.inf), starts)),
    }


def _plain(values: np.ndarray) -> list[float | None]:
    """Returns numbers with six digits; None for those that are not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
