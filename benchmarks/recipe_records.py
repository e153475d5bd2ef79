"""What a row of the recipe benchmark is, and the record of what came of it. Imports no TensorFlow."""

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
from trainer.storage import RunDirectory, read_json_lines, write_atomically

MEASURED = ("finished", "diverged", "collapsed")
"""Outcomes that are not measured again."""

_LEAST_PEAK = 0.05
"""A recall that never rose above this cannot collapse: of 5,000 images so few are chance."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of the benchmark: a recipe, and the flags that make a variant of it.

    Attributes:
        name: Of the row, its record and its thumbnail.
        recipe: As `--recipe` takes it.
        flags: More flags of `trainer.task`, each `--name=value`.
        why: A sentence on what the row is for.
    """

    name: str
    recipe: str
    flags: tuple[str, ...] = ()
    why: str = ""

    @functools.cached_property
    def config(self) -> TrainConfig:
        """The resolved config, as `training.resolve` fills it in.

        Raises:
            ConfigError: The recipe or a value does not fit.
            absl.flags.Error: A flag is unknown.
        """
        values = absl_flags.FlagValues()
        config_flags.define_config(values)
        values([self.name, *self.flags])
        config = recipes.get(self.recipe).override(**config_flags.given(values))
        return config.resolve(data.num_examples(config), config.num_virtual_devices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return data.describe(self.config.dataset, self.config.padding).image_shape

    @property
    def data(self) -> str:
        """What it trains on, in words."""
        config = self.config
        other = f" and {config.dataset_b}" if config.dataset_b else ""
        classes = f", classes {','.join(map(str, config.classes))}" if config.classes else ""
        return f"{config.dataset}{other}{classes}"

    @property
    def command(self) -> str:
        """The command line that reproduces it."""
        job_dir = f"--job_dir=runs/{self.name}"
        return shlex.join(["python", "-m", "trainer.task", f"--recipe={self.recipe}", *self.flags, job_dir])

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on: the run's identity and its length."""
        return self.config.identity | {"steps": self.config.steps}

    @property
    def key(self) -> str:
        """Eight hexadecimal digits that change with the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]


@dataclasses.dataclass
class Part:
    """One process of a row's run; a row that was interrupted has several.

    Attributes:
        seconds: How long the command ran.
        exit_code: None where the benchmark was killed before it knew.
        load_1min: The machine's 1-minute load average at start and end, this run's own included.
        other_cores: Processor cores that all other programs used meanwhile; None where it is not known.
        started: When, in seconds since 1970; None where it is not known.
    """

    seconds: float = 0.0
    exit_code: int | None = None
    load_1min: tuple[float, float] = (0.0, 0.0)
    other_cores: float | None = None
    started: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What came of a row; `benchmarks/results/recipes/ROW.json` is one.

    Attributes:
        step: The last step that was logged; below `steps` where the run was cut.
        seconds: Wall time of the whole command, all parts together.
        images_per_sec: Median of the windows' figures; None where no window ended.
        monitor: The metric that tells the best checkpoint; None without metrics.
        evaluations: After step 0, each with `step`, `metrics`, and the `seconds` that the command had taken by then,
            None where that is not known. With a single one no collapse can be seen.
        outcome: finished, diverged, collapsed or interrupted.
        sentence: Why it is diverged or collapsed, else empty.
        date: Of the end, UTC.
        version: Of the trainer.
        fingerprint: Of the config.
        settings: `Row.settings` when it was run.
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
    fingerprint: str
    settings: dict[str, Any]

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation with the smallest `monitor`; None where there is none."""
        return min(self.evaluations, key=lambda each: each["metrics"][self.monitor], default=None)

    @property
    def final(self) -> dict[str, Any] | None:
        """The last evaluation; None where there is none."""
        return self.evaluations[-1] if self.evaluations else None

    @classmethod
    def load(cls, folder: Path, name: str) -> "Record | None":
        """The record of a row, or None where there is none."""
        path = folder / f"{name}.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def save(self, folder: Path) -> None:
        """Writes the record."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.name}.json", (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())

    def changed(self, row: Row) -> list[str]:
        """The settings that are others now. One that did not exist then had what is its default now."""
        defaults = TrainConfig().to_dict()
        now = row.settings
        gone = [name for name in self.settings if name not in now]
        return [name for name in now if self.settings.get(name, defaults[name]) != now[name]] + gone


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
    }


def make(row: Row, directory: RunDirectory, parts: list[Part], outcome: str, sentence: str = "") -> Record:
    """The record of a run, from what lies in its directory.

    Args:
        row: What was run.
        directory: Where.
        parts: Its processes.
        outcome: As the exit code tells it; a finished run may turn out to be collapsed.
        sentence: Of the error that ended it.
    """
    config = row.config
    lines = list(read_json_lines(directory.metrics))
    speeds = [line["images_per_sec"] for line in lines if "images_per_sec" in line]
    monitor = metrics.monitor(config.metrics) if config.metrics != "none" else None
    found = _evaluations(lines, monitor, parts)
    if outcome == "finished" and found and (collapse := _collapse(found, str(monitor))):
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
        evaluations=found,
        outcome=outcome,
        sentence=sentence,
        machine=machine(),
        parts=[dataclasses.asdict(part) for part in parts],
        date=datetime.now(timezone.utc).date().isoformat(),
        version=__version__,
        fingerprint=config.fingerprint,
        settings=row.settings,
    )


def _evaluations(lines: list[dict[str, Any]], monitor: str | None, parts: list[Part]) -> list[dict[str, Any]]:
    """Every evaluation after step 0, which no checkpoint holds."""
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
    """How long the command had run, all parts together, at a time in seconds since 1970; None where it is not known."""
    total = 0.0
    for part in parts:
        if part.started is None:
            return None
        total += min(max(0.0, time - part.started), part.seconds)
    return round(total, 1)


def _collapse(found: list[dict[str, Any]], monitor: str) -> str:
    """Why a run counts as collapsed; empty where it does not."""
    final = found[-1]["metrics"]
    for name in (name for name in final if name.startswith("recall_")):
        peak = max(found, key=lambda each: each["metrics"][name])
        value = peak["metrics"][name]
        if value >= _LEAST_PEAK and final[name] < value / 2:
            return f"{name} ended at {final[name]:.3g}, below half of its peak of {value:.3g} at step {peak['step']}."
    best = min(found, key=lambda each: each["metrics"][monitor])
    value = best["metrics"][monitor]
    if final[monitor] > 2 * value:
        return f"{monitor} ended at {final[monitor]:.3g}, over twice its best of {value:.3g} at step {best['step']}."
    return ""
