"""Rows of the recipe benchmark and the records of their results. Does not import TensorFlow."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from trainer import __version__, data, metrics
from trainer.config import TrainConfig, flags as config_flags, recipes
from trainer.data.class_selection import with_class_numbers
from trainer.storage import RunDirectory, documents, read_json_lines, write_atomically

MEASURED = ("finished", "diverged", "collapsed")
"""Outcomes of complete measurements."""

_MIN_PEAK_RECALL = 0.05
"""Smallest peak of the recall from which a collapse is recognized; smaller values are chance."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of the benchmark: a recipe, with flags for a variant.

    Attributes:
        name: Name of the row, its record and its thumbnail.
        recipe: Value of `--recipe`.
        flags: More flags of `trainer.task`, each `--name=value`.
        why: Sentence on the purpose of the row.
    """

    name: str
    recipe: str
    flags: tuple[str, ...] = ()
    why: str = ""

    @functools.cached_property
    def config(self) -> TrainConfig:
        """The resolved config, as the trainer resolves it.

        Raises:
            ConfigError: If the recipe or a value is not allowed.
            absl.flags.Error: If a flag is unknown.
        """
        values = absl_flags.FlagValues()
        config_flags.define_config(values)
        values([self.name, *self.flags])
        config = with_class_numbers(recipes.get(self.recipe).override(**config_flags.parsed_settings(values)))
        config = config.override(metrics=config.suite)
        return config.resolve(data.num_examples(config), config.num_virtual_devices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of an image."""
        return data.describe(self.config.dataset, self.config.padding).image_shape

    @property
    def data(self) -> str:
        """Description of the training data."""
        config = self.config
        other = f" and {config.dataset_b}" if config.dataset_b else ""
        classes = f", classes {','.join(map(str, config.classes))}" if config.classes else ""
        return f"{config.dataset}{other}{classes}"

    @property
    def command(self) -> str:
        """Command line that reproduces the run."""
        job_dir = f"--job_dir=runs/{self.name}"
        return shlex.join(["python", "-m", "trainer.task", f"--recipe={self.recipe}", *self.flags, job_dir])

    @property
    def settings(self) -> dict[str, Any]:
        """Settings on which the results depend: the identity of the run and its length."""
        return self.config.identity | {"steps": self.config.steps}

    @property
    def key(self) -> str:
        """Hash of the settings, eight hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]


@dataclasses.dataclass
class Part:
    """One process of a row's run. An interrupted row has several.

    Attributes:
        seconds: Duration of the process.
        exit_code: Exit code; None if the benchmark was killed first.
        load_1min: 1-minute load average of the machine at start and end, including this run.
        other_cores: Mean number of cores that all other programs used; None if unknown.
        started: Start time in seconds since 1970; None if unknown.
    """

    seconds: float = 0.0
    exit_code: int | None = None
    load_1min: tuple[float, float] = (0.0, 0.0)
    other_cores: float | None = None
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

    @property
    def best(self) -> dict[str, Any] | None:
        """Evaluation with the smallest `monitor`, or None."""
        return min(self.evaluations, key=lambda evaluation: evaluation["metrics"][self.monitor], default=None)

    @property
    def final(self) -> dict[str, Any] | None:
        """Last evaluation, or None."""
        return self.evaluations[-1] if self.evaluations else None

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
        current = row.settings
        removed = [name for name in self.settings if name not in current]
        return [name for name in current if self.settings.get(name, defaults[name]) != current[name]] + removed


def machine() -> dict[str, Any]:
    """Returns processor, number of cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
    }


def make(row: Row, directory: RunDirectory, parts: list[Part], outcome: str, sentence: str = "") -> Record:
    """Returns the record of a run.

    Args:
        row: Row of the run.
        directory: Run directory.
        parts: Processes of the run.
        outcome: Outcome according to the exit code. A finished run may be recorded as collapsed.
        sentence: Message of the error that ended the run.
    """
    config = row.config
    lines, _ = read_json_lines(directory.metrics, documents.record({"step": documents.whole()}))
    speeds = [line["images_per_sec"] for line in lines if "images_per_sec" in line]
    monitor = metrics.monitor(config.metrics, config.num_metric_samples) if config.has_metrics else None
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
        machine=machine(),
        parts=[dataclasses.asdict(part) for part in parts],
        date=datetime.now(timezone.utc).date().isoformat(),
        version=__version__,
        settings=row.settings,
    )


def _evaluations(lines: list[dict[str, Any]], monitor: str | None, parts: list[Part]) -> list[dict[str, Any]]:
    """Returns the evaluations after step 0. No checkpoint exists for step 0."""
    return [
        {
            "step": line["step"],
            "seconds": _seconds_until(line["time"], parts),
            "metrics": {name[7:]: line[name] for name in line if name.startswith("metric/")},
        }
        for line in lines
        if line["step"] and f"metric/{monitor}" in line
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
    """Returns the reason why a run counts as collapsed; empty if it does not."""
    final = evaluations[-1]["metrics"]
    for name in (name for name in final if name.startswith("recall_")):
        peak = max(evaluations, key=lambda evaluation: evaluation["metrics"][name])
        value = peak["metrics"][name]
        if value >= _MIN_PEAK_RECALL and final[name] < value / 2:
            return f"{name} ended at {final[name]:.3g}, below half of its peak of {value:.3g} at step {peak['step']}."
    best = min(evaluations, key=lambda evaluation: evaluation["metrics"][monitor])
    value = best["metrics"][monitor]
    if final[monitor] > 2 * value:
        return f"{monitor} ended at {final[monitor]:.3g}, over twice its best of {value:.3g} at step {best['step']}."
    return ""
