"""The comparison of several runs: one page with a table, their curves, and their best samples."""

from collections.abc import Sequence
from typing import Any

from trainer.report import page
from trainer.report.run_report import RunReport

MAX_RUNS = 500
"""Maximum number of runs in a page."""
_NEUTRAL_SETTINGS = ("job_dir", "track")
"""Settings without an effect on the results of a run."""


def render(reports: Sequence[RunReport]) -> bytes:
    """Returns the page that compares several runs. The errors are those of `RunReport.write`."""
    runs = [report.content(len(reports)) for report in reports]
    return page.render(f"Comparison of {len(runs)} runs", {"kind": "comparison", "runs": runs, **_differing(runs)})


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
