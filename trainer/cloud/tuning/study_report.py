"""Results of a study, local or on Vertex AI: the ranking of its trials, a table and a plot."""

import io
import math
import shlex
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.study_spec import StudySpec, Value
from trainer.cloud.tuning import trial_store
from trainer.cloud.tuning.trial_store import TrialRecord
from trainer.errors import ConfigError

_COLUMNS = 3
_PANEL_INCHES = (3.6, 3.0)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The trials of a study, finished or not."""

    spec: StudySpec
    folder: str
    """Local folder or gs:// prefix with trials.json and a folder for each trial; on Vertex AI, the name of the job."""
    trials: tuple[TrialRecord, ...]
    """Trials in the order in which they started."""

    @property
    def ranking(self) -> tuple[TrialRecord, ...]:
        """All trials, best first. Trials that have not succeeded come last, in their original order."""
        sign = 1 if self.spec.metrics[0].goal == "MINIMIZE" else -1

        def sort_key(record: TrialRecord) -> tuple[bool, float]:
            return (
                record.final_measurement is None,
                sign * record.final_measurement.value if record.final_measurement else 0,
            )

        return tuple(sorted(self.trials, key=sort_key))

    @property
    def best_trial(self) -> TrialRecord | None:
        """The best trial. None: no trial has succeeded."""
        first = self.ranking[0] if self.trials else None
        return first if first and first.final_measurement else None


def format_table(study: Study) -> str:
    """Returns one line per trial, best first, and then the flags of the best trial, quoted for a shell."""
    names = list(dict.fromkeys(parameter.parameter_id for parameter in study.spec.all_parameters()))
    rows = [["trial", "state", study.spec.metrics[0].metric_id, "step", *names]]
    for record in study.ranking:
        final = record.final_measurement
        result = [f"{final.value:.6g}", str(final.step)] if final else ["-", "-"]
        rows.append([record.id, record.state, *result, *(_format_cell(record.parameters.get(name)) for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if best := study.best_trial:
        lines += ["", f"The best trial is {best.id}:", shlex.join(trial_store.to_flags(best.parameters))]
    return "\n".join(lines)


def import_figure() -> Any:
    """Returns Matplotlib's class `Figure`.

    Raises:
        ConfigError: If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a plot needs Matplotlib, which is not installed; run pip install 'gan-trainer[tune]'."
        ) from error
    return Figure


def plot(study: Study) -> bytes:
    """Plots the metric over the values of each parameter and marks the best trial.

    Args:
        study: Study with at least one trial that succeeded.

    Returns:
        Content of a PNG file.

    Raises:
        ConfigError: If Matplotlib is not installed, or no trial has succeeded.
    """
    new_figure = import_figure()
    best = study.best_trial
    if best is None:
        raise ConfigError("no trial of the study has succeeded, so there is nothing to plot; run more trials.")
    names = list(dict.fromkeys(parameter.parameter_id for parameter in study.spec.all_parameters()))
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for panel, name in zip(panels, names, strict=False):
        _plot_parameter(panel, name, study, best)
    for panel in panels[len(names) :]:
        panel.remove()
    for panel in panels[::columns]:
        panel.set_ylabel(study.spec.metrics[0].metric_id)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    return image.getvalue()


def _plot_parameter(panel: Any, name: str, study: Study, best: TrialRecord) -> None:
    """Draws the panel of one parameter, without the trials that lack the parameter."""
    points = [
        (trial.parameters[name], trial.final_measurement.value)
        for trial in study.trials
        if trial.final_measurement and name in trial.parameters
    ]
    # A conditional parameter may have several specs, one for each value of its parent.
    specs = [parameter for parameter in study.spec.all_parameters() if parameter.parameter_id == name]
    listed_values = list(dict.fromkeys(value for spec in specs for value in spec.values))
    is_categorical = any(spec.kind == "categorical" for spec in specs)
    is_logarithmic = not is_categorical and all(spec.scale == "log" for spec in specs)
    ticks = list(dict.fromkeys([*listed_values, *(value for value, _ in points)]))
    panel.set_xlabel(name)
    panel.grid(alpha=0.3)
    if is_categorical:
        panel.set_xticks(range(len(ticks)), [str(value) for value in ticks])
        panel.set_xlim(-0.5, len(ticks) - 0.5)
    elif is_logarithmic:
        panel.set_xscale("log")
    elif all(spec.kind == "discrete" for spec in specs):
        panel.set_xticks(listed_values)
    x = [ticks.index(value) if is_categorical else value for value, _ in points]
    panel.scatter(x, [metric for _, metric in points], s=24, alpha=0.7, label="trial")
    if best.final_measurement and name in best.parameters:
        best_x = best.parameters[name]
        best_x = ticks.index(best_x) if is_categorical else best_x
        panel.scatter(
            [best_x], [best.final_measurement.value], s=110, marker="*", color="tab:red", label="best", zorder=3
        )
    if is_logarithmic:
        _set_logarithmic_ticks(panel.xaxis, *panel.get_xlim())


def _set_logarithmic_ticks(axis: Any, low: float, high: float) -> None:
    """Labels a logarithmic axis with a few plain numbers, which do not overlap."""
    from matplotlib import ticker

    decades = math.log10(high / low)
    if decades < 0.5:
        axis.set_major_locator(ticker.MaxNLocator(4))
    else:
        subs = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 3 else (1,)
        axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _format_cell(value: Value | None) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
