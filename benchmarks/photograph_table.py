"""Tables of the rows on photographs for the documentation page, and the spread of rows over seeds."""

import re
import statistics
from collections.abc import Sequence

from benchmarks.markdown import MISSING, number, table
from benchmarks.recipe_records import MEASURED, Record, Row
from trainer.errors import count_of

_RUN = ("row", "data", "budget", "images seen")
_COST = ("images/s", "computes in", "memory", "wall time", "outcome", "samples")
_METRICS = ("frechet", "real against real", "precision", "recall", "close to training images")
_HEADER = (*_RUN, *_METRICS, *_COST, "nearest training images")
_PAIRED_HEADER = (*_RUN, "L1", "PSNR in dB", "SSIM", *_COST)
_COLUMNS = """
- **budget**: minutes of processor time for start and training, times cores. Two short runs show how many steps fit,
  and the commands below have this number. Evaluations and sample grids come on top and are part of the wall time.
- **frechet, precision, recall**: metrics of the suite [`photos`](metrics.md#the-suite-photos), at the best checkpoint.
  `end` is the value at the last step, if it differs by more than a tenth. The protocol, such as `photos_5k`, ends in
  the number of samples: compare rows only if protocol and data are equal.
- **real against real**: Fréchet distance of one half of the real images from the other half. A perfect generator
  reaches about this value.
- **close to training images**: share of samples that are closer to a training image than 99% of the training images
  are to each other. The last column shows samples, each with its nearest training images.
- **memory**: largest resident memory of the process.
- **wall time**: duration of the whole command. † marks a row during which other programs used more than a fifth of a
  core, or for which this is unknown."""
_PAIRED_COLUMNS = """
The metrics are those of the suite [`paired`](pix2pix.md#metrics) on held-out pairs, at the best checkpoint. Compare
them only with rows of the same pairs. `images seen` counts pairs."""
_CURVE_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_SEED = re.compile(r"--seed=\d+")


def render(rows: Sequence[tuple[Row, Record]], pictures: set[str]) -> list[str]:
    """Returns the lines of the tables, and of what their columns mean: results, and the Fréchet distance over time.

    Args:
        rows: Rows with their records, at least one. Those of other seeds are left out.
        pictures: Names of the pictures, without `.jpg`.
    """
    shown = [(row, record) for row, record in rows if not has_other_seed(row) and not row.is_paired]
    cells = [_cells(row, record, pictures) for row, record in shown]
    measured = [record for _, record in shown if record.outcome in MEASURED]
    return [*table(_HEADER, cells), *_COLUMNS.split("\n"), *_curves(measured)]


def render_pairs(rows: Sequence[tuple[Row, Record]], pictures: set[str]) -> list[str]:
    """Returns the lines of the table of the rows on pairs, and of what its columns mean; empty without such a row.

    Args:
        rows: Rows with their records.
        pictures: Names of the pictures, without `.jpg`.
    """
    cells = [_paired_cells(row, record, pictures) for row, record in rows if row.is_paired]
    return ["", *table(_PAIRED_HEADER, cells), *_PAIRED_COLUMNS.split("\n")] if cells else []


def has_other_seed(row: Row) -> bool:
    """Returns whether a row repeats another one with another seed."""
    return any(_SEED.fullmatch(flag) for flag in row.flags)


def spread(rows: Sequence[tuple[Row, Record | None]]) -> list[str]:
    """Returns the lines of a table of the means and ranges over seeds; empty without a row of several seeds."""
    groups: dict[tuple[object, ...], list[tuple[Row, Record]]] = {}
    for row, record in rows:
        if record is not None and record.outcome in MEASURED and record.best is not None:
            flags = tuple(flag for flag in row.flags if not _SEED.fullmatch(flag))
            key = (row.recipe, flags, row.prepared, row.init_from, _protocol(record))
            groups.setdefault(key, []).append((row, record))
    cells = []
    for group in groups.values():
        if len(group) > 1:
            frechet, *others = (
                _spread([_value(record, name) for _, record in group]) for name in ("frechet", "precision", "recall")
            )
            values = [f"{frechet}{_protocol(group[0][1])}", *others]
            cells.append([f"`{group[0][0].name}`", str(len(group)), *values])
    header = ("row", "seeds", "frechet, mean ± standard deviation (range)", "precision", "recall")
    sentence = "Other seeds of a row, whose names end in `_seed1` and `_seed2`, are only in this table."
    return [*table(header, cells), "", sentence] if cells else []


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return MISSING
    mean, deviation = statistics.mean(known), statistics.stdev(known)
    return f"{number(mean)} ± {number(deviation)} ({number(min(known))} to {number(max(known))})"


def _cells(row: Row, record: Record, pictures: set[str]) -> list[str]:
    if record.outcome not in MEASURED:
        return _interrupted(row, record, _HEADER)
    close = record.neighbors.get("share_close")
    return [
        *_run_cells(row, record),
        f"{_best_and_end(record, 'frechet')}{_protocol(record)}",
        _real_vs_real(record),
        _best_and_end(record, "precision"),
        _best_and_end(record, "recall"),
        MISSING if close is None else f"{close:.1%}",
        *_cost_cells(row, record),
        *(_picture(name, pictures) for name in (row.name, f"{row.name}-neighbors")),
    ]


def _paired_cells(row: Row, record: Record, pictures: set[str]) -> list[str]:
    if record.outcome not in MEASURED:
        return _interrupted(row, record, _PAIRED_HEADER)
    values = [_best_and_end(record, f"paired_{name}") for name in ("l1", "psnr", "ssim")]
    return [*_run_cells(row, record), *values, *_cost_cells(row, record), _picture(row.name, pictures)]


def _interrupted(row: Row, record: Record, header: Sequence[str]) -> list[str]:
    budget = MISSING if row.core_minutes is None else f"{row.core_minutes:g} core-min"
    known = {
        "row": f"`{row.name}`",
        "data": row.data,
        "budget": budget,
        "outcome": f"interrupted at step {record.step:,}",
    }
    return [known.get(name, MISSING) for name in header]


def _run_cells(row: Row, record: Record) -> list[str]:
    """Returns the cells of `_RUN`."""
    budget = MISSING
    if record.core_minutes is not None:
        budget = f"{record.core_minutes:g} core-min on {count_of(record.machine['cores'], 'core')}"
    data = f"{record.data}, {'×'.join(map(str, record.image_shape))}"
    return [f"`{row.name}`", data, budget, f"{record.step * record.batch:,}"]


def _cost_cells(row: Row, record: Record) -> list[str]:
    """Returns the cells of `_COST`, without the picture."""
    return [
        MISSING if record.images_per_sec is None else f"{record.images_per_sec:,.0f}",
        record.precision or MISSING,
        MISSING if record.peak_memory_mib is None else f"{record.peak_memory_mib / 1024:.1f} GiB",
        f"{record.seconds / 60:.0f} min" + "†" * record.was_disturbed,
        "; ".join(filter(None, [record.outcome, record.stale(row)])),
    ]


def _picture(name: str, pictures: set[str]) -> str:
    return f"![{name}](images/recipes/{name}.jpg)" if name in pictures else MISSING


def _metric(record: Record, prefix: str) -> str | None:
    """Returns the name of a metric, such as `frechet_photos_5k` or `paired_l1`; None if it was not measured."""
    metrics = {} if record.best is None else record.best["metrics"]
    return next((name for name in metrics if name == prefix or name.startswith(f"{prefix}_")), None)


def _protocol(record: Record) -> str:
    """Returns the protocol of the metrics, such as photos_5k, as code after a space; empty without metrics."""
    name = _metric(record, "frechet")
    return "" if name is None else f" `{name.removeprefix('frechet_')}`"


def _value(record: Record, prefix: str) -> float | None:
    """Returns a metric at the best checkpoint."""
    name = _metric(record, prefix)
    return None if name is None or record.best is None else record.best["metrics"][name]


def _best_and_end(record: Record, prefix: str) -> str:
    name, best = _metric(record, prefix), _value(record, prefix)
    if name is None or best is None or record.final is None:
        return MISSING
    end = record.final["metrics"][name]
    return number(best) + (f" (end {number(end)})" if abs(end - best) > 0.1 * abs(best) else "")


def _real_vs_real(record: Record) -> str:
    values = record.real_vs_real
    return next((number(value) for name, value in values.items() if name.startswith("frechet_")), MISSING)


def _curves(measured: list[Record]) -> list[str]:
    """Returns a table of the Fréchet distance over time, with the minutes of each evaluation."""
    header = ["frechet after", "protocol", *(f"{share:.0%} of the time" for share in _CURVE_SHARES)]
    cells = [
        [f"`{record.name}`", _protocol(record).strip() or MISSING, *(_point(record, share) for share in _CURVE_SHARES)]
        for record in measured
    ]
    sentence = "Fréchet distance at the last evaluation before a share of the whole time:"
    return ["", sentence, "", *table(header, cells)] if cells else []


def _point(record: Record, share: float) -> str:
    """Formats the last evaluation until a share of the run's time, and its minute."""
    known = [evaluation for evaluation in record.evaluations if evaluation["seconds"] is not None]
    earlier = [evaluation for evaluation in known if evaluation["seconds"] <= share * record.seconds]
    if not earlier:
        return MISSING
    value = next(value for name, value in earlier[-1]["metrics"].items() if name.startswith("frechet_"))
    return f"{number(value)} ({earlier[-1]['seconds'] / 60:.0f} min)"
