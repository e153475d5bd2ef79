"""Table of the time and memory that the recipe `photos` takes, by device: measured, and estimated by a formula."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import photograph_table
from benchmarks.markdown import MISSING, table
from benchmarks.recipe_records import MEASURED, Record, Row
from trainer.errors import count_of

RECORDS = Path(__file__).parent / "results/devices"
"""Files that `python -m benchmarks.devices` writes, one per device, size and resolution."""

_HEADER = ("device", "size", "images", "batch", "length of the run", "images/s", "time", "memory", "source")

_SOURCES = """
`measured` names a row or a run of a few steps. `formula` is an estimate from the number of operations, with an assumed
share of the device's peak; expect an error of a factor of two. `python -m benchmarks.devices --help` states the
formula."""


def render(rows: Sequence[tuple[Row, Record | None]], records: Path = RECORDS) -> list[str]:
    """Returns the lines of the table and of a text on its sources; empty without any measurement or estimate.

    Args:
        rows: Rows of the recipe benchmark with their records.
        records: Folder of the files of `benchmarks.devices`.
    """
    cells = [_row_cells(record) for row, record in rows if _is_shown(row, record) and record is not None]
    cells += [_device_cells(json.loads(path.read_text())) for path in sorted(records.glob("*.json"))]
    return [*table(_HEADER, cells), *_SOURCES.split("\n")] if cells else []


def _is_shown(row: Row, record: Record | None) -> bool:
    is_measured = record is not None and record.outcome in MEASURED
    return row.recipe == "photos" and is_measured and not photograph_table.has_other_seed(row)


def _row_cells(record: Record) -> list[str]:
    facts = record.machine
    memory = record.peak_memory_mib
    return [
        f"{facts['cpu']}, {count_of(facts['cores'], 'core')}",
        str(record.settings.get("size", MISSING)),
        "×".join(map(str, record.image_shape)),
        str(record.batch),
        f"{record.step * record.batch:,} images",
        MISSING if record.images_per_sec is None else f"{record.images_per_sec:,.0f}",
        _duration(record.seconds),
        MISSING if memory is None else f"{memory / 1024:.1f} GiB",
        f"measured: `{record.name}`",
    ]


def _device_cells(facts: dict[str, object]) -> list[str]:
    speed, images = float(str(facts["images_per_sec"])), int(str(facts["images"]))
    return [
        str(facts["device"]),
        str(facts["size"]),
        f"{facts['side']}×{facts['side']}×3",
        str(facts["batch"]),
        f"{images:,} images",
        f"{speed:,.0f}",
        _duration(images / speed),
        f"{float(str(facts['memory_mib'])) / 1024:.1f} GiB",
        "measured for a few steps" if facts["is_measured"] else "formula",
    ]


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
