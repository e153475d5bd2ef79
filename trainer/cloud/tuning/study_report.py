"""What a local study found: its trials in order, as a table and as a picture."""

import io
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.job_spec import TuningSpec
from trainer.cloud.jobs.study_spec import Value
from trainer.cloud.tuning import trial_store
from trainer.cloud.tuning.trial_store import TrialRecord
from trainer.errors import ConfigError

_COLUMNS = 3
_PANEL_INCHES = (3.6, 3.0)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The trials of a local study, as far as it went."""

    spec: TuningSpec
    folder: str
    """Local or gs://. It holds trials.json, and a folder for each trial."""
    trials: tuple[TrialRecord, ...]
    """In the order in which they began."""

    @property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """The best first; those without a measurement that counts last, in their order."""
        sign = 1 if self.spec.study.metrics[0].goal == "MINIMIZE" else -1

        def place(record: TrialRecord) -> tuple[bool, float]:
            return record.final is None, sign * record.final.value if record.final else 0

        return tuple(sorted(self.trials, key=place))

    @property
    def best(self) -> TrialRecord | None:
        """The best trial. None: none has succeeded."""
        first = self.ranked[0] if self.trials else None
        return first if first and first.final else None


def table(study: Study) -> str:
    """The trials, best first, a line each; then the best one's flags, to copy."""
    names = list(dict.fromkeys(parameter.parameter_id for parameter in study.spec.study.all_parameters()))
    rows = [["trial", "state", study.spec.study.metrics[0].metric_id, "step", *names]]
    for record in study.ranked:
        final = [f"{record.final.value:.6g}", str(record.final.step)] if record.final else ["-", "-"]
        rows.append([record.id, record.state, *final, *(_cell(record.parameters.get(name)) for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if study.best:
        lines += ["", f"The best is trial {study.best.id}:", " ".join(trial_store.flags(study.best.parameters))]
    return "\n".join(lines)


def plot(study: Study) -> bytes:
    """Draws each parameter's values against the metric, with the best trial marked.

    Args:
        study: With at least one trial that succeeded.

    Returns:
        A PNG.

    Raises:
        ConfigError: Matplotlib is not installed, or no trial has succeeded.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("a plot needs Matplotlib; run pip install 'gan-trainer[tune]'.") from error
    if study.best is None:
        raise ConfigError("no trial of the study has succeeded, so there is nothing to draw; run more of them.")
    names = list(dict.fromkeys(one.parameter_id for one in study.spec.study.all_parameters()))
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for panel, name in zip(panels, names, strict=False):
        _draw(panel, name, study, study.best)
    for panel in panels[len(names) :]:
        panel.remove()
    for panel in panels[::columns]:
        panel.set_ylabel(study.spec.study.metrics[0].metric_id)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    return image.getvalue()


def _draw(panel: Any, name: str, study: Study, best: TrialRecord) -> None:
    """One parameter's panel; a trial that lacks the parameter is not in it."""
    found = [(one.parameters[name], one.final.value) for one in study.trials if one.final and name in one.parameters]
    # Several where it depends on its parent what it can be.
    same = [one for one in study.spec.study.all_parameters() if one.parameter_id == name]
    declared = list(dict.fromkeys(value for one in same for value in one.values))
    words = any(one.kind == "categorical" for one in same)
    places = list(dict.fromkeys([*declared, *(value for value, _ in found)]))
    panel.set_xlabel(name)
    panel.grid(alpha=0.3)
    if words:
        panel.set_xticks(range(len(places)), [str(value) for value in places])
        panel.set_xlim(-0.5, len(places) - 0.5)
    elif all(one.scale == "log" for one in same):
        panel.set_xscale("log")
    elif all(one.kind == "discrete" for one in same):
        panel.set_xticks(declared)
    x = [places.index(value) if words else value for value, _ in found]
    panel.scatter(x, [metric for _, metric in found], s=24, alpha=0.7, label="trial")
    if best.final and name in best.parameters:
        at = best.parameters[name]
        at = places.index(at) if words else at
        panel.scatter([at], [best.final.value], s=110, marker="*", color="tab:red", label="best", zorder=3)


def _cell(value: Value | None) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
