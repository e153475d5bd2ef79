"""The comparison of several runs: one page with a table, their curves, and their best samples."""

import json
from collections.abc import Sequence
from typing import Any

from trainer.errors import quote
from trainer.metrics.log_names import own_name
from trainer.report import page
from trainer.report.run_report import RunReport

MAX_RUNS = 500
"""Maximum number of runs in a page."""
_NEUTRAL_SETTINGS = ("job_dir", "track")
"""Settings without an effect on the results of a run."""
_DATA_SETTINGS = {"dataset": "dataset", "dataset_b": "second dataset", "classes": "classes"}
"""Settings that select the real images with which metrics compare, and their names in the notice."""
_DATA_FACTS = {"Images": "number of images", "Image size": "image size"}
_MAX_VALUES = 4


def render(reports: Sequence[RunReport]) -> bytes:
    """Returns the page that compares several runs. The errors are those of `RunReport.write`."""
    runs = [report.content(len(reports)) for report in reports]
    content = {"kind": "comparison", "runs": runs, "notice": _notice(runs), **_differing(runs)}
    return page.render(f"Comparison of {len(runs)} runs", content)


def _notice(runs: Sequence[dict[str, Any]]) -> str | None:
    """Returns the sentence that names why metrics of the runs cannot be compared; None if they can."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        settings = {row["name"]: json.loads(row["value"]) for row in run["settings"] if row["name"] in _DATA_SETTINGS}
        known = {
            **{text: settings.get(name) for name, text in _DATA_SETTINGS.items()},
            **{text: dict(run["facts"]).get(name) for name, text in _DATA_FACTS.items()},
            "metric": run["monitor"] and own_name(run["monitor"]),
        }
        for text, value in known.items():
            if value is not None:
                values.setdefault(text, {})[quote(value) if text in _DATA_SETTINGS.values() else value] = None
    differing = {text: [*texts] for text, texts in values.items() if len(texts) > 1}
    if not differing:
        return None
    reasons = "; ".join(
        f"{text}: {' / '.join([*texts[:_MAX_VALUES], *(['...'] if len(texts) > _MAX_VALUES else [])])}"
        for text, texts in differing.items()
    )
    return (
        "The metrics of these runs may not be comparable, so no run is marked as the best. Compare only runs that have "
        f"these in common: {reasons}."
    )


def _differing(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the settings that differ between the runs: their names, and for each run their values as text by name."""
    tables = [{row["name"]: row["value"] for row in run["settings"]} for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    names = {name: None for name in names if name not in _NEUTRAL_SETTINGS}
    differing = [name for name in names if len({table.get(name) for table in tables}) > 1]
    for run, table in zip(runs, tables, strict=True):
        run["differing"] = {name: table.get(name) for name in differing}
        del run["settings"]
    return {"differing": differing}
