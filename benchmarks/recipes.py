"""What comes of every recipe: each is run as its command says, and a table of the results is written.

    python -m benchmarks.recipes --list                     the rows, and how far each is
    python -m benchmarks.recipes --minutes=60               runs what is not measured yet, for an hour
    python -m benchmarks.recipes --only=digits,r3gan        these rows alone
    python -m benchmarks.recipes --table                    rewrites the table in docs/recipes.md, and runs nothing

Rows run one after the other, each as a process of its own. A row that is measured is not run again, unless its recipe
has changed since; one that was interrupted goes on from its checkpoint. When the minutes are over, or at SIGTERM or
Ctrl-C, the row that runs is told by SIGTERM to commit its state. After every row there are a record in
`benchmarks/results/recipes`, a thumbnail in `docs/images/recipes`, and a new table. To measure a row again, delete its
record and, in `--runs`, what begins with its name.
"""

import dataclasses
import signal
import sys
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

_OFTEN = tuple(f"--{what}_every_steps=1000" for what in ("evaluate", "sample", "checkpoint"))

VARIANTS: list[Row] = [
    # A row beside the recipes' own is one line here: name, recipe, more flags, why.
    Row(
        "r3gan_stacked",
        "r3gan",
        ("--dataset=stacked:digits", "--steps=17000", *_OFTEN),
        "`r3gan` on three digits an image, for about an hour: how many of the 1,000 modes it shows, and how evenly.",
    ),
    Row(
        "dcgan_stacked",
        "dcgan",
        ("--dataset=stacked:digits", "--steps=14000", *_OFTEN),
        "`dcgan` on three digits an image, for about the same hour: the baseline for its modes.",
    ),
]

_ROOT = Path(__file__).parent.parent
_USAGE = f"{__doc__}\n"


@dataclasses.dataclass(frozen=True)
class Places:
    """Where results are kept."""

    records: Path = _ROOT / "benchmarks/results/recipes"
    thumbnails: Path = _ROOT / "docs/images/recipes"
    page: Path = _ROOT / "docs/recipes.md"


PLACES = Places()


def rows() -> list[Row]:
    """Every registered recipe as it is, then the variants."""
    return [*(Row(name, name, (), recipes.summary(name)) for name in recipes.names()), *VARIANTS]


class Budget:
    """While entered, says when to stop: the minutes have passed, or SIGTERM or Ctrl-C came.

    Args:
        minutes: None: no end.
    """

    def __init__(self, minutes: float | None):
        self._end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self.interrupted = False

    def is_over(self) -> bool:
        """Whether no more time is to be spent."""
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
    """Whether there is a record of the row as it is now."""
    record = Record.load(PLACES.records, row.name)
    return record is not None and record.outcome in MEASURED and not record.changed(row)


def measure(row: Row, runs: Path, is_over: Callable[[], bool]) -> Record:
    """Runs a row and writes its record, its thumbnail and the table.

    Raises:
        TrainerError: Its command failed.
    """
    run = Run(row, runs)
    record = run.go_on(is_over)
    record.save(PLACES.records)
    if record.outcome in MEASURED:
        step = record.best["step"] if record.best else None
        recipe_table.thumbnail(run.directory, step, PLACES.thumbnails / f"{row.name}.png")
    write_table()
    return record


def write_table() -> None:
    """Rewrites the table from the records."""
    recorded = [(row, Record.load(PLACES.records, row.name)) for row in rows()]
    recipe_table.rewrite(PLACES.page, PLACES.thumbnails, recorded)


def print_list(chosen: list[Row], runs: Path) -> None:
    """Prints a line a row."""
    for row in chosen:
        state = recipe_table.state(row, Record.load(PLACES.records, row.name))
        if not is_measured(row) and "interrupted" not in state and Run(row, runs).parts():
            state = f"interrupted ({state})"
        print(f"{row.name:<20} {row.recipe:<20} {row.data:<32} {row.config.steps:>7,} steps  {state}")


def choose(names: list[str]) -> list[Row]:
    """The rows of these names, or all.

    Raises:
        ConfigError: There is no such row; the message names the nearest one.
    """
    known = {row.name: row for row in rows()}
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name} is no row; {did_you_mean(name, known)}--list shows them.")
    return [known[name] for name in names] if names else list(known.values())


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_bool("list", False, "Show the rows and run nothing.", flag_values=values)
    absl_flags.DEFINE_bool("table", False, "Rewrite the table and run nothing.", flag_values=values)
    absl_flags.DEFINE_list("only", [], "Names of rows. None: all of them.", flag_values=values)
    absl_flags.DEFINE_string("runs", str(_ROOT / "runs/recipes"), "Folder of the run directories.", flag_values=values)
    absl_flags.DEFINE_float("minutes", None, "Time to spend. None: no end.", lower_bound=0.0, flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Lists, writes the table, or runs what is not measured."""
    chosen, runs = choose(values.only), Path(values.runs)
    if values.list:
        return print_list(chosen, runs)
    if values.table:
        return write_table()
    failed = []
    with Budget(values.minutes) as budget:
        for row in chosen:
            if is_measured(row):
                continue
            if budget.is_over():
                break
            print(f"{row.name}: {row.config.steps:,} steps; {Run(row, runs).log} tells how it goes.", flush=True)
            try:
                record = measure(row, runs, budget.is_over)
            except TrainerError as error:
                failed.append(row.name)
                print(f"{row.name}: {error}", file=sys.stderr, flush=True)
                continue
            print(f"{row.name}: {record.outcome}, {record.seconds:.0f} s in all. {record.sentence}", flush=True)
    left = [row.name for row in chosen if not is_measured(row)]
    if budget.interrupted:
        raise Preempted(f"stopped; the same command goes on with {', '.join(left)}.")
    if failed:
        raise TrainerError(f"{', '.join(failed)} failed; the others are as --list shows.")
    if left:
        print(f"The time is over; the same command goes on with {', '.join(left)}.")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
