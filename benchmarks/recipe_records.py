"""Rows of the recipe benchmark and the records of their results. Does not import TensorFlow."""

import dataclasses
import functools
import hashlib
import json
import shlex
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from benchmarks.machine import machine_facts
from trainer import __version__, data, metrics
from trainer.config import TrainConfig, flags as config_flags, recipes
from trainer.data.class_selection import with_class_numbers
from trainer.metrics.collapse import CollapseRule
from trainer.metrics.log_names import is_metric, log_name, own_name
from trainer.storage import RunDirectory, documents, read_json_lines, write_atomically

_NUM_EVALUATIONS = 10
"""Number of evaluations of a row with a budget."""

_CHOSEN_BY_MACHINE = ("precision", "jit_compile")
"""Settings whose value `auto` stands for any other one."""

_QUIET_CORES = 0.2
"""Number of cores of other programs above which a run counts as disturbed."""

MEASURED = ("finished", "diverged", "collapsed")
"""Outcomes of complete measurements."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of the benchmark: a recipe, with flags for a variant.

    Attributes:
        name: Name of the row, its record and its thumbnail.
        recipe: Value of `--recipe`.
        flags: More flags of `trainer.task`, each `--name=value`.
        why: Sentence on the purpose of the row.
        prepared: Name of the prepared set to train on, in the folder `data_dir`; None for the recipe's own data.
        init_from: Name of another row whose run this one starts from; None for none.
        core_minutes: Minutes of training times cores, from which the number of steps follows; None for the recipe's.
        held_out: Name of the prepared set of held-out pairs; None for none.
        prefix: Prefix of the values of `--dataset` and `--dataset_b`, such as `gray_to_color:`.
        data_dir: Folder of the prepared sets; None if there is none.
        runs: Folder of the run directories.
    """

    name: str
    recipe: str
    flags: tuple[str, ...] = ()
    why: str = ""
    prepared: str | None = None
    init_from: str | None = None
    core_minutes: float | None = None
    held_out: str | None = None
    prefix: str = ""
    data_dir: Path | None = None
    runs: Path | None = None

    @property
    def missing(self) -> str:
        """Sentence on what the row needs and does not have; empty if it can run."""
        for name in self._sets.values():
            if self.data_dir is None or not (self.data_dir / name).is_dir():
                folder = "--data_dir" if self.data_dir is None else str(self.data_dir)
                return f"{self.name} needs the prepared set {name} in {folder}."
        if self.init_from is not None and self._source() is None:
            return f"{self.name} starts from the run of {self.init_from}, which is not in --runs."
        return ""

    @property
    def all_flags(self) -> list[str]:
        """Flags of the command, with those of data and the run to start from."""
        flags = list(self.flags)
        if self.data_dir is not None:
            flags += [f"--{flag}={self.prefix}{self.data_dir / name}" for flag, name in self._sets.items()]
        if self.init_from is not None:
            flags.append(f"--init_from={self._source()}")
        return flags

    @property
    def _sets(self) -> dict[str, str]:
        """Names of the prepared sets by the flags that take them."""
        sets = {"dataset": self.prepared, "dataset_b": self.held_out}
        return {flag: name for flag, name in sets.items() if name is not None}

    def _source(self) -> Path | None:
        """Returns the run directory of `init_from`; None if there is none."""
        runs = [] if self.runs is None else sorted(self.runs.glob(f"{self.init_from}-????????"))
        return max(runs, key=lambda path: path.stat().st_mtime, default=None)

    def with_steps(self, steps: int) -> "Row":
        """Returns the row with a number of steps in place of its budget, and with ten evaluations."""
        every = max(1, -(-steps // _NUM_EVALUATIONS))
        cadence = (f"--{what}_every_steps={every}" for what in ("evaluate", "sample", "checkpoint"))
        return dataclasses.replace(self, flags=(*self.flags, f"--steps={steps}", *cadence), core_minutes=None)

    @functools.cached_property
    def config(self) -> TrainConfig:
        """The resolved config, as the trainer resolves it.

        Raises:
            ConfigError: If the recipe or a value is not allowed.
            absl.flags.Error: If a flag is unknown.
        """
        values = absl_flags.FlagValues()
        config_flags.define_config(values)
        values([self.name, *self.all_flags])
        settings = config_flags.parsed_settings(values)
        config = with_class_numbers(self._recipe_config(settings).override(**settings))
        config = config.override(metrics=config.suite)
        return config.resolve(data.num_examples(config), config.num_virtual_devices)

    def _recipe_config(self, settings: dict[str, Any]) -> TrainConfig:
        if not recipes.takes_context(self.recipe):
            return recipes.get(self.recipe)
        from trainer.environment import Environment
        from trainer.training.configure import create_context  # imports TensorFlow

        return recipes.get(self.recipe, create_context(settings, Environment()))

    @property
    def is_paired(self) -> bool:
        """True for a row that trains on pairs of an input and an image."""
        return self.recipe == "pix2pix"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of an image."""
        return data.describe(self.config.dataset, self.config.padding).image_shape

    @property
    def data(self) -> str:
        """Description of the training data."""
        if self.prepared is not None:
            return self.prefix + self.prepared
        config = self.config
        other = f" and {config.dataset_b}" if config.dataset_b else ""
        classes = f", classes {','.join(map(str, config.classes))}" if config.classes else ""
        return f"{config.dataset}{other}{classes}"

    @property
    def command(self) -> str:
        """Command line that reproduces the run, with paths relative to the repository."""
        flags = [*self.flags, *(f"--{flag}={self.prefix}data/{name}" for flag, name in self._sets.items())]
        if self.init_from is not None:
            flags.append(f"--init_from=runs/{self.init_from}")
        job_dir = f"--job_dir=runs/{self.name}"
        return shlex.join(["python", "-m", "trainer.task", f"--recipe={self.recipe}", *flags, job_dir])

    @property
    def settings(self) -> dict[str, Any]:
        """Settings on which the results depend: the identity of the run and its length."""
        names = {flag: self.prefix + name for flag, name in self._sets.items()}
        source = {"init_from": self.init_from} if self.init_from is not None else {}
        return self.config.identity | names | source | {"steps": self.config.steps}

    @property
    def key(self) -> str:
        """Hash of the settings and the budget, eight hexadecimal digits."""
        facts = self.settings | ({} if self.core_minutes is None else {"core_minutes": self.core_minutes})
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


@dataclasses.dataclass
class Part:
    """One process of a row's run. An interrupted row has several.

    Attributes:
        seconds: Duration of the process.
        exit_code: Exit code; None if the benchmark was killed first.
        load_1min: 1-minute load average of the machine at start and end, including this run.
        other_cores: Mean number of cores that all other programs used; None if unknown.
        processor_seconds: Processor time of the process; None if unknown.
        peak_memory_mib: Largest resident memory of the process; None if unknown.
        started: Start time in seconds since 1970; None if unknown.
    """

    seconds: float = 0.0
    exit_code: int | None = None
    load_1min: tuple[float, float] = (0.0, 0.0)
    other_cores: float | None = None
    processor_seconds: float | None = None
    peak_memory_mib: float | None = None
    started: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Results of a row, stored as `benchmarks/results/recipes/ROW.json`.

    Attributes:
        step: Last logged step; less than `steps` if the run was interrupted.
        seconds: Wall time of all parts.
        images_per_sec: Median of the logged values; None if nothing was logged.
        monitor: Metric that selects the best checkpoint; None without metrics.
        evaluations: Evaluations after step 0, each with `step`, `metrics` and `seconds`, the duration of the command
            until then or None if unknown. A collapse is recognized only with at least two.
        outcome: finished, diverged, collapsed or interrupted.
        sentence: Reason of a divergence or collapse, otherwise empty.
        date: UTC date of the end.
        version: Version of the trainer.
        settings: `Row.settings` at the time of the run.
        core_minutes: Budget of the row; None for the number of steps of the recipe.
        real_vs_real: Metrics of real images against other real images; empty if they were not measured.
        neighbors: Share of samples that are close to a training image, and its threshold; empty if not measured.
        precision: Precision of the networks; None if unknown.
    """

    name: str
    recipe: str
    flags: list[str]
    command: str
    data: str
    image_shape: list[int]
    batch: int
    steps: int
    step: int
    seconds: float
    images_per_sec: float | None
    monitor: str | None
    evaluations: list[dict[str, Any]]
    outcome: str
    sentence: str
    machine: dict[str, Any]
    parts: list[dict[str, Any]]
    date: str
    version: str
    settings: dict[str, Any]
    core_minutes: float | None = None
    real_vs_real: dict[str, float] = dataclasses.field(default_factory=dict)
    neighbors: dict[str, Any] = dataclasses.field(default_factory=dict)
    precision: str | None = None

    @property
    def best(self) -> dict[str, Any] | None:
        """Evaluation with the smallest `monitor`, or None."""
        return min(self.evaluations, key=lambda evaluation: evaluation["metrics"][self.monitor], default=None)

    @property
    def final(self) -> dict[str, Any] | None:
        """Last evaluation, or None."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def peak_memory_mib(self) -> float | None:
        """Largest memory of all parts; None if unknown."""
        known = [part["peak_memory_mib"] for part in self.parts if part.get("peak_memory_mib")]
        return max(known, default=None)

    @property
    def was_disturbed(self) -> bool:
        """True if other programs used more than a fifth of a core during the run, or if their use is unknown."""
        known = [part["other_cores"] for part in self.parts if part["other_cores"] is not None]
        return len(known) < len(self.parts) or max(known, default=0.0) > _QUIET_CORES

    @classmethod
    def load(cls, folder: Path, name: str) -> "Record | None":
        """Reads the record of a row; returns None if it does not exist."""
        path = folder / f"{name}.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def save(self, folder: Path) -> None:
        """Writes the record."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.name}.json", (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())

    def changed(self, row: Row) -> list[str]:
        """Returns the names of settings that have changed since. Settings that did not exist yet count as defaults."""
        defaults = TrainConfig().to_dict()
        current = (row if row.core_minutes is None else row.with_steps(self.steps)).settings
        removed = [name for name in self.settings if name not in current]
        changed = [name for name in current if self.settings.get(name, defaults[name]) != current[name]]
        return [name for name in changed if name not in _CHOSEN_BY_MACHINE or current[name] != "auto"] + removed

    def stale(self, row: Row) -> str:
        """Returns a phrase on the settings that have changed since; empty if there is none or the data is missing."""
        changed = [] if row.missing else self.changed(row)
        return f"stale: {', '.join(changed)} changed since" if changed else ""


def make(
    row: Row,
    directory: RunDirectory,
    parts: list[Part],
    outcome: str,
    sentence: str = "",
    core_minutes: float | None = None,
) -> Record:
    """Returns the record of a run.

    Args:
        row: Row of the run, with its number of steps.
        directory: Run directory.
        parts: Processes of the run.
        outcome: Outcome according to the exit code. A finished run may be recorded as collapsed.
        sentence: Message of the error that ended the run.
        core_minutes: Budget from which the number of steps followed; None if there was none.
    """
    config = row.config
    lines, _ = read_json_lines(directory.metrics, documents.record({"step": documents.whole()}))
    speeds = [line["images_per_sec"] for line in lines if "images_per_sec" in line]
    monitor = metrics.monitor_name(config.metrics, config.num_metric_samples) if config.has_metrics else None
    evaluations = _evaluations(lines, monitor, parts)
    if outcome == "finished" and evaluations and (collapse := _collapse(evaluations, str(monitor))):
        outcome, sentence = "collapsed", collapse
    return Record(
        name=row.name,
        recipe=row.recipe,
        flags=list(row.flags),
        command=row.command,
        data=row.data,
        image_shape=list(row.image_shape),
        batch=config.global_batch_size,
        steps=int(config.steps or 0),
        step=lines[-1]["step"] if lines else 0,
        seconds=round(sum(part.seconds for part in parts), 1),
        images_per_sec=round(statistics.median(speeds), 1) if speeds else None,
        monitor=monitor,
        evaluations=evaluations,
        outcome=outcome,
        sentence=sentence,
        machine=machine_facts(),
        parts=[dataclasses.asdict(part) for part in parts],
        date=datetime.now(timezone.utc).date().isoformat(),
        version=__version__,
        settings=row.settings,
        core_minutes=core_minutes,
        precision=json.loads(directory.config.read_text())["precision"] if directory.config.exists() else None,
    )


def _evaluations(lines: list[dict[str, Any]], monitor: str | None, parts: list[Part]) -> list[dict[str, Any]]:
    """Returns the evaluations after step 0. No checkpoint exists for step 0."""
    return [
        {
            "step": line["step"],
            "seconds": _seconds_until(line["time"], parts),
            "metrics": {own_name(name): line[name] for name in line if is_metric(name)},
        }
        for line in lines
        if line["step"] and monitor is not None and log_name(monitor) in line
    ]


def _seconds_until(time: float, parts: list[Part]) -> float | None:
    """Returns the duration of all parts until a time in seconds since 1970; None if unknown."""
    total = 0.0
    for part in parts:
        if part.started is None:
            return None
        total += min(max(0.0, time - part.started), part.seconds)
    return round(total, 1)


def _collapse(evaluations: list[dict[str, Any]], monitor: str) -> str:
    """Returns the reason why a run counts as collapsed at its end; empty if it does not."""
    names = evaluations[-1]["metrics"]
    recall = next((name for name in names if name.startswith("recall_")), None)
    rule, problem = CollapseRule(monitor, recall), ""
    for evaluation in evaluations:
        problem = rule.update(evaluation["metrics"][monitor], evaluation["metrics"].get(recall))
    return problem and f"At the end, {problem}."
