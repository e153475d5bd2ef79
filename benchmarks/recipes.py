"""Runs every recipe and writes a table of the results.

    python -m benchmarks.recipes --list                     list the rows and their state
    python -m benchmarks.recipes --minutes=60               run rows without a measurement for an hour
    python -m benchmarks.recipes --only=digits,dcgan        run only these rows
    python -m benchmarks.recipes --table                    only rewrite the tables in docs/recipes.md
    python -m benchmarks.recipes --data_dir=data --only=photos_flowers    a row on photographs

Rows on photographs train on prepared sets in `--data_dir`, for a budget of processor time: the start and two short runs
show how many steps fit. Evaluations come on top. They are omitted without their data. To measure one on a part of the
machine, start the command with `taskset --cpu-list 0`. Prepare the sets from a folder or an archive of images, in one
folder per class:

    python -m trainer prepare --source=cifar10.zip --out=data/cifar32 --image_size=32,32
    python -m trainer prepare --source=cifar10.zip --out=data/cifar64 --image_size=64,64
    python -m trainer prepare --source=flowers.zip --out=data/flowers64 --image_size=64,64
    python -m trainer prepare --source=flowers.zip --out=data/flowers300 --image_size=64,64 --limit=300
    python -m trainer prepare --source=flowers --split=train --out=data/flowers64_train --image_size=64,64
    python -m trainer prepare --source=flowers --split=test --out=data/flowers64_test --image_size=64,64

The last two need a folder `flowers` with a folder `train`, and with a folder `test` of every tenth file by name.

Rows run one after the other, each in its own process. A measured row is not run again unless its recipe has changed; an
interrupted row resumes from its checkpoint. When the time is over, or on SIGTERM or Ctrl-C, the current row receives
SIGTERM and commits its state. Each row leaves a record in `benchmarks/results/recipes` and a thumbnail in
`docs/images/recipes`, and updates the table. To repeat a measurement, delete its record and the files in `--runs` whose
names start with the name of the row.
"""

import dataclasses
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import flags as absl_flags

from benchmarks import recipe_table
from benchmarks.recipe_records import MEASURED, Record, Row
from benchmarks.recipe_runs import Run
from trainer.cli import app
from trainer.config import recipes
from trainer.errors import ConfigError, Preempted, TrainerError
from trainer.registry import did_you_mean

_EVERY_1000_STEPS = tuple(f"--{what}_every_steps=1000" for what in ("evaluate", "sample", "checkpoint"))

_CORE_MINUTES = 60.0
"""Budget of most rows on photographs: half an hour of two cores."""

VARIANTS: list[Row] = [
    # Each variant is one entry: name, recipe, more flags, purpose.
    Row(
        "r3gan_stacked",
        "r3gan_digits",
        ("--dataset=stacked:digits", "--steps=17000", *_EVERY_1000_STEPS),
        "`r3gan_digits` on three digits per image, for about an hour: number of the 1,000 modes and their balance.",
    ),
    Row(
        "dcgan_stacked",
        "dcgan",
        ("--dataset=stacked:digits", "--steps=14000", *_EVERY_1000_STEPS),
        "`dcgan` on three digits per image, for about an hour: the baseline for the number of modes.",
    ),
    Row("digits_seed1", "digits", ("--seed=1",), "`digits` with another seed."),
    Row("digits_seed2", "digits", ("--seed=2",), "`digits` with another seed."),
]

PHOTOGRAPHS: list[Row] = [
    # Each row is one entry: name, recipe, more flags, purpose, prepared set, budget.
    *(
        Row(name, recipe, flags, why, "cifar32", core_minutes=_CORE_MINUTES)
        for name, recipe, flags, why in (
            ("photos_cifar", "photos", (), "`photos` on CIFAR-10 without labels."),
            ("photos_cifar_labels", "photos", ("--model=conditional",), "`photos` on CIFAR-10 with labels."),
            ("stylegan2_ada_cifar", "stylegan2_ada", (), "`stylegan2_ada` on CIFAR-10 without labels."),
            ("hinge_sn_cifar", "hinge_sn", (), "`hinge_sn` on CIFAR-10."),
            ("dcgan_cifar", "dcgan", (), "`dcgan` on CIFAR-10."),
        )
    ),
    *(
        Row(name, recipe, flags, why, "flowers64", core_minutes=_CORE_MINUTES)
        for name, recipe, flags, why in (
            ("photos_flowers", "photos", (), "`photos` on 4,317 flowers."),
            ("photos_flowers_seed1", "photos", ("--seed=1",), "`photos_flowers` with another seed."),
            ("photos_flowers_seed2", "photos", ("--seed=2",), "`photos_flowers` with another seed."),
            ("stylegan2_ada_flowers", "stylegan2_ada", (), "`stylegan2_ada` on the flowers."),
            ("dcgan_paper_flowers", "dcgan_paper", ("--padding=0",), "`dcgan_paper` on the flowers."),
        )
    ),
    *(
        Row(name, recipe, (), why, "flowers300", core_minutes=_CORE_MINUTES)
        for name, recipe, why in (
            ("photos_few", "photos", "`photos` on 300 flowers."),
            ("fastgan_few", "fastgan", "`fastgan` on 300 flowers."),
        )
    ),
    Row(
        "photos_cifar64",
        "photos",
        (),
        "`photos` on enlarged images of CIFAR-10: the run that `photos_flowers_transfer` starts from.",
        "cifar64",
        core_minutes=_CORE_MINUTES,
    ),
    Row(
        "photos_flowers_transfer",
        "photos",
        (),
        "`photos_flowers` from the weights of `photos_cifar64`, in half of the time.",
        "flowers64",
        "photos_cifar64",
        _CORE_MINUTES / 2,
    ),
    Row(
        "pix2pix_flowers",
        "pix2pix",
        (),
        "`pix2pix` from gray to color on nine tenths of the flowers, measured on the others.",
        "flowers64_train",
        core_minutes=_CORE_MINUTES,
        held_out="flowers64_test",
        prefix="gray_to_color:",
    ),
]

_ROOT = Path(__file__).parent.parent
_USAGE = f"{__doc__}\n"


@dataclasses.dataclass(frozen=True)
class ResultPaths:
    """Folders and page of the results."""

    records: Path = _ROOT / "benchmarks/results/recipes"
    thumbnails: Path = _ROOT / "docs/images/recipes"
    page: Path = _ROOT / "docs/recipes.md"


RESULTS = ResultPaths()


def rows(data_dir: Path | None = None, runs: Path | None = None, budget_scale: float = 1.0) -> list[Row]:
    """Returns the rows on photographs, a row for every other recipe, and the variants.

    Args:
        data_dir: Folder of prepared sets; None if there is none.
        runs: Folder of the run directories; None if there is none.
        budget_scale: Factor of the budgets.
    """
    photographs = [
        dataclasses.replace(row, data_dir=data_dir, runs=runs, core_minutes=(row.core_minutes or 0.0) * budget_scale)
        for row in PHOTOGRAPHS
    ]
    names = [name for name in recipes.names() if not recipes.takes_context(name)]
    return [*photographs, *(Row(name, name, (), recipes.summary(name)) for name in names), *VARIANTS]


class Budget:
    """A context that reports when to stop: after some minutes, or on SIGTERM or Ctrl-C.

    Args:
        minutes: Time to spend, or None for no limit.
    """

    def __init__(self, minutes: float | None):
        self._end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self.interrupted = False

    def is_over(self) -> bool:
        """Returns whether the benchmark must stop."""
        return self.interrupted or time.monotonic() >= self._end

    def __enter__(self) -> "Budget":
        def interrupt(*_: object) -> None:
            self.interrupted = True

        self._previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def is_measured(row: Row) -> bool:
    """Returns whether the row has a complete record for its current settings."""
    record = Record.load(RESULTS.records, row.name)
    if record is None or record.outcome not in MEASURED or row.missing or record.changed(row):
        return False
    return not _needs_comparison(row, record) or bool(record.real_vs_real)


def _needs_comparison(row: Row, record: Record) -> bool:
    """Returns whether a measured row is compared with real images and with its nearest training images."""
    return row.prepared is not None and not row.is_paired and record.best is not None


def measure(row: Row, runs: Path, is_over: Callable[[], bool]) -> Record:
    """Runs a row and writes its record, its thumbnail and the table.

    Raises:
        TrainerError: If its command failed.
    """
    run = Run(row, runs)
    record = run.resume(is_over)
    record.save(RESULTS.records)
    if record.outcome in MEASURED:
        step = record.best["step"] if record.best else None
        suffix = ".png" if row.prepared is None else ".jpg"
        recipe_table.thumbnail(run.directory, step, RESULTS.thumbnails / f"{row.name}{suffix}")
    if record.outcome in MEASURED and _needs_comparison(row, record):
        record = _with_comparison(record, run, RESULTS.thumbnails / f"{row.name}-neighbors.jpg")
        record.save(RESULTS.records)
    write_table(row.data_dir, runs)
    return record


def _with_comparison(record: Record, run: Run, picture: Path) -> Record:
    """Adds the metrics of real against real images to a record, and writes a picture of nearest training images."""
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "neighbors.png"
        evaluation = run.compare(full)
        recipe_table.reduce(full, picture)
    neighbors = {name: value for name, value in evaluation["neighbors"].items() if name != "picture"}
    return dataclasses.replace(record, real_vs_real=evaluation["real_vs_real"], neighbors=neighbors)


def write_table(data_dir: Path | None = None, runs: Path | None = None) -> None:
    """Rewrites the tables from the records."""
    recorded = [(row, Record.load(RESULTS.records, row.name)) for row in rows(data_dir, runs)]
    recipe_table.rewrite(RESULTS.page, RESULTS.thumbnails, recorded)


def print_list(chosen: list[Row], runs: Path) -> None:
    """Prints one line per row."""
    for row in chosen:
        state = recipe_table.state(row, Record.load(RESULTS.records, row.name))
        if not (row.missing or is_measured(row)) and "interrupted" not in state and Run(row, runs).parts():
            state = f"interrupted ({state})"
        length = f"{row.core_minutes:>5g} core-min" if row.core_minutes else f"{row.config.steps:>7,} steps"
        print(f"{row.name:<24} {row.recipe:<20} {row.data:<32} {length:<15} {state}")


def choose(names: list[str], known_rows: list[Row]) -> list[Row]:
    """Returns the rows with these names, or all rows.

    Raises:
        ConfigError: If a name is unknown.
    """
    known = {row.name: row for row in known_rows}
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name} is not a row; {did_you_mean(name, known)}--list shows all rows.")
    return [known[name] for name in names] if names else list(known.values())


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_bool("list", False, "List the rows and exit.", flag_values=values)
    absl_flags.DEFINE_bool("table", False, "Rewrite the table and exit.", flag_values=values)
    absl_flags.DEFINE_list("only", [], "Names of rows; empty for all rows.", flag_values=values)
    absl_flags.DEFINE_string("runs", str(_ROOT / "runs/recipes"), "Folder of the run directories.", flag_values=values)
    absl_flags.DEFINE_string(
        "data_dir", None, "Folder of the prepared sets of the rows on photographs.", flag_values=values
    )
    absl_flags.DEFINE_float(
        "core_minutes",
        _CORE_MINUTES,
        "Minutes of training times cores of a row on photographs. Rows with another budget change in proportion.",
        lower_bound=0.1,
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "minutes", None, "Minutes to spend; no limit by default.", lower_bound=0.0, flag_values=values
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Lists rows, writes the table, or runs rows without a measurement."""
    runs = Path(values.runs).absolute()
    data_dir = None if values.data_dir is None else Path(values.data_dir).absolute()
    chosen = choose(values.only, rows(data_dir, runs, values.core_minutes / _CORE_MINUTES))
    if values.list:
        return print_list(chosen, runs)
    if values.table:
        return write_table(data_dir, runs)
    failed = []
    with Budget(values.minutes) as budget:
        for row in chosen:
            if row.missing:
                print(f"{row.missing} It is omitted.", flush=True)
                continue
            if is_measured(row):
                continue
            if budget.is_over():
                break
            length = f"{row.core_minutes:g} minutes of a core" if row.core_minutes else f"{row.config.steps:,} steps"
            print(f"{row.name}: {length}; the log is {Run(row, runs).log}.", flush=True)
            try:
                record = measure(row, runs, budget.is_over)
            except TrainerError as error:
                failed.append(row.name)
                print(f"{row.name}: {error}", file=sys.stderr, flush=True)
                continue
            print(f"{row.name}: {record.outcome}, {record.seconds:.0f} s in total. {record.sentence}", flush=True)
    remaining = [row.name for row in chosen if not (row.missing or is_measured(row))]
    if budget.interrupted:
        raise Preempted(f"stopped; the same command resumes with {', '.join(remaining)}.")
    if failed:
        raise TrainerError(f"{', '.join(failed)} failed; --list shows the state of all rows.")
    if remaining:
        print(f"The time is over; the same command continues with {', '.join(remaining)}.")


main = app.command(_USAGE, define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
