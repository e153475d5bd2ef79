"""The report of one run: its content as JSON values, and its page."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer import metrics
from trainer.config.suites import SUITES, Goal
from trainer.errors import CheckpointError, StorageError, count_of
from trainer.metrics.log_names import is_metric, log_name, own_name
from trainer.report import page
from trainer.report.pictures import Pictures, bytes_per_grid, select_grids, share_of_page
from trainer.report.scalars import MAX_NAMES, Scalars
from trainer.report.sessions import Session, hours_of_training, sessions_of
from trainer.report.settings_table import settings_table
from trainer.storage import RunDirectory, documents, read_json, write_atomically
from trainer.storage.local import LocalLocation
from trainer.storage.run_directory import (
    CONFIG,
    EVENTS,
    METRICS,
    REAL_VS_REAL_EVENT,
    missing_run,
    read_events,
)

FILES = frozenset({CONFIG, METRICS, EVENTS})
"""Names of the files of a run directory that a report always reads. It downloads the pictures that it shows."""
_NUM_POINTS = 600
_SKIPPED = "skipped_updates"


class RunReport:
    """The report of a run. Repeated reports read only what is new.

    Args:
        directory: Open run directory.
        price_per_hour: Price of one hour of all machines of the run together. None: unknown.
    """

    def __init__(self, directory: RunDirectory, price_per_hour: float | None = None):
        self._directory, self._price_per_hour = directory, price_per_hour
        self._scalars = Scalars(directory.metrics)
        self._pictures = Pictures()

    def write(self) -> None:
        """Writes `report.html` in the run directory, completely or not at all.

        Raises:
            CheckpointError: If the directory has no run.
            StorageError: If its config cannot be read.
            OSError: If a file cannot be read or written.
        """
        write_atomically(self._directory.report, self.render())

    def render(self) -> bytes:
        """Returns the page. The errors are those of `write`."""
        return page.render(f"Run {self._directory.name}", {"kind": "run", "runs": [self.content()]})

    def content(self, num_runs: int = 1) -> dict[str, Any]:
        """Returns the content of the page as JSON values. The errors are those of `write`.

        Args:
            num_runs: Number of runs in the page. Several runs share the points and pictures of a page, and have no
                grids but the best and the last one.
        """
        directory, scalars = self._directory, self._scalars
        config = _read_config(directory)
        events, num_damaged_events = self._read_logs()
        sessions = sessions_of(events, scalars.steps, scalars.times)
        monitor = _monitor_of(config)
        rows = list(self._metric_rows(config, events))
        best_step = next((row["best_step"] for row in rows if row["name"] == monitor), None)
        num_points = max(50, _NUM_POINTS // num_runs) if num_runs > 1 else _NUM_POINTS
        return {
            "name": directory.name,
            "recipe": config.get("recipe"),
            "facts": _facts(events),
            "settings": settings_table(config, next(_starts(events), {})),
            "steps": config.get("steps"),
            "last_step": int(scalars.steps[-1]) if scalars.num_lines else None,
            "monitor": monitor,
            "metrics": rows,
            "tables": scalars.tables(num_points, lambda times: hours_of_training(times, sessions)),
            "pictures": self._picture_urls(best_step, num_runs),
            "best_step": best_step,
            "sessions": [{**dataclasses.asdict(session), "hours": session.hours} for session in sessions],
            "cost": self._cost(sessions),
            "warnings": list(self._warnings(sessions, num_damaged_events)),
        }

    def training_facts(self, step: int) -> dict[str, Any]:
        """Returns what the run trained, and its metrics, as JSON values. The errors are those of `write`.

        Args:
            step: Step of the `value` of each metric, which is None if the run was not evaluated there.
        """
        config = _read_config(self._directory)
        events, _ = self._read_logs()
        rows = list(self._metric_rows(config, events))
        for row in rows:
            steps, values = self._scalars.column(row["name"])
            row["value"] = _plain(next(iter(values[steps == step][-1:].tolist()), None))
        settings = settings_table(config, next(_starts(events), {}))
        return {
            "config": config,
            "facts": _facts(events),
            "class_names": _class_names(events),
            "settings": settings,
            "metrics": rows,
        }

    def _read_logs(self) -> tuple[list[dict[str, Any]], int]:
        """Reads the new scalars. Returns the events, without numbers that are not finite, and their damaged lines."""
        directory = self._directory
        try:
            self._scalars.update()
            events, num_damaged = read_events(directory.events)
        except OSError as error:
            path = directory.display_path(Path(error.filename or directory.metrics))
            raise StorageError(
                f"{path} cannot be read ({error.strerror or error}); restore it from a backup, or delete it."
            ) from error
        return json.loads(json.dumps(events), parse_constant=lambda _: None), num_damaged

    def _metric_rows(self, config: Mapping[str, Any], events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yields one row per metric: its first, last and best value, and that of real against other real images."""
        measured = [event.get("values") for event in events if event["event"] == REAL_VS_REAL_EVENT]
        real_vs_real = measured[-1] if measured and isinstance(measured[-1], dict) else {}
        for name in self._scalars.names:
            if not is_metric(name):
                continue
            steps, values = self._scalars.column(name)
            goal = _goal_of(name, config)
            row = {"name": name, "goal": goal, "first": _plain(values[0]), "last": _plain(values[-1])}
            best = best_step = None
            eligible = np.isfinite(values) & (steps > 0)  # no checkpoint has step 0
            if goal is not None and eligible.any():
                index = int(np.argmin(np.where(eligible, values if goal == "MINIMIZE" else -values, np.inf)))
                best, best_step = float(values[index]), int(steps[index])
            yield {**row, "best": best, "best_step": best_step, "real_vs_real": _plain(real_vs_real.get(name))}

    def _picture_urls(self, best_step: int | None, num_runs: int) -> dict[str, Any]:
        directory, pictures = self._directory, self._pictures
        paths = directory.sample_grids()
        best_grid = (
            min(paths, key=lambda step: (abs(step - best_step), -step)) if paths and best_step is not None else None
        )
        if num_runs > 1:
            steps = [step for step in paths if step in (best_grid, *list(paths)[-1:])]
            max_bytes = share_of_page(2 * num_runs)
        else:
            steps = select_grids(list(paths), best_grid)
            max_bytes = bytes_per_grid(len(steps))
        others = [directory.neighbors] if num_runs == 1 else []
        directory.download([*(paths[step] for step in steps), *others])
        urls = {step: pictures.url(paths[step], max_bytes) for step in steps}
        neighbors = pictures.url(directory.neighbors) if others else None
        pictures.end_page()
        return {
            "grids": [{"step": step, "url": url} for step, url in urls.items() if url is not None],
            "best_grid": best_grid,
            "neighbors": neighbors,
        }

    def _cost(self, sessions: list[Session]) -> dict[str, Any]:
        hours = sum(session.hours for session in sessions)
        price = None if self._price_per_hour is None else hours * self._price_per_hour
        return {
            "hours": hours,
            "device_hours": sum(session.hours * session.num_devices for session in sessions),
            "price": price,
        }

    def _warnings(self, sessions: list[Session], num_damaged_events: int) -> Iterator[str]:
        """Yields a sentence for each event or problem of the run."""
        scalars = self._scalars
        for event in scalars.events:
            step = f"{event['step']:,.0f}"
            if "event/collapse" in event:
                yield f"The generator may have collapsed at step {step}; use the best checkpoint."
            if "event/rollback" in event:
                diverged = f"{event.get('diverged_at_step', math.nan):,.0f}"
                yield f"Training diverged at step {diverged}, and returned to the checkpoint of step {step}."
        _, skipped = scalars.column(_SKIPPED)
        if skipped.sum() > 0:
            yield f"{count_of(int(skipped.sum()), 'update')} with values that are not finite were skipped."
        lost = sum(session.lost_steps for session in sessions)
        if lost:
            yield f"{count_of(lost, 'step')} were repeated after a restart."
        for name, count in ((METRICS, scalars.num_damaged), (EVENTS, num_damaged_events)):
            if count:
                yield f"{name} has {count_of(count, 'damaged line')}, which the report leaves out."
        if scalars.has_more_names:
            yield f"{METRICS} has more than {MAX_NAMES} scalars; the others are left out."
        if not scalars.num_lines:
            yield "The run has no scalars yet."


def _read_config(directory: RunDirectory) -> dict[str, Any]:
    if not directory.config.exists():
        raise missing_run(directory.name)
    path = directory.display_path(directory.config)
    remedy = "copy the run again, or use another directory"
    schema = documents.map_of(documents.anything)
    return read_json(LocalLocation(directory.config), schema, remedy=remedy, error=CheckpointError, origin=path)


def _starts(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Returns the events that are starts."""
    return (event for event in events if event["event"] == "start")


def _class_names(events: list[dict[str, Any]]) -> list[str]:
    """Returns the names of the classes of the last start; empty if it states none."""
    names = next(_starts(reversed(events)), {}).get("class_names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _facts(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns the facts of the last start: names and texts."""
    start: dict[str, Any] = next(_starts(reversed(events)), {})
    shape, weights = start.get("image_shape"), start.get("weights")
    facts = {
        "Images": start.get("num_images"),
        "Image size": "×".join(map(str, shape)) if isinstance(shape, list) else None,
        "Devices": f"{start.get('num_devices')} {start.get('device')}" if "num_devices" in start else None,
        "Weights": ", ".join(f"{name} {_text(count)}" for name, count in weights.items())
        if isinstance(weights, dict)
        else None,
        "Version": start.get("version"),
    }
    return [(name, _text(value)) for name, value in facts.items() if value is not None]


def _text(value: object) -> str:
    """Returns a number with separators, and any other value as a text of limited length."""
    return f"{value:,}" if isinstance(value, int | float) else str(value)[:1000]


def _monitor_of(config: Mapping[str, Any]) -> str | None:
    """Returns the name of the scalar that selects the best checkpoint; None if it is unknown."""
    suite, num_samples = config.get("metrics"), config.get("num_metric_samples")
    if suite not in metrics.names() or not isinstance(num_samples, int | None):
        return None
    return log_name(metrics.monitor_name(suite, num_samples))


def _goal_of(name: str, config: Mapping[str, Any]) -> Goal | None:
    """Returns whether the smallest or the greatest value of a metric is the best; None if it is unknown."""
    suite, num_samples = config.get("metrics"), config.get("num_metric_samples")
    if suite not in metrics.names() or not isinstance(num_samples, int | None):
        return None
    return SUITES[suite].goals.get(metrics.without_protocol(own_name(name), suite, num_samples))


def _plain(value: Any) -> float | None:
    """Returns a finite number; None for any other value."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
