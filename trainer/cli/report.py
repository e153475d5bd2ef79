"""The `report` command."""

import contextlib
import re
from collections.abc import Iterable

from absl import flags as absl_flags

from trainer.cli import app
from trainer.errors import CheckpointError, ConfigError, count_of, quote
from trainer.logging import print_line
from trainer.report import comparison, run_report
from trainer.report.run_report import RunReport
from trainer.storage import RunDirectory, locate, parse_path, place_of, state_absence
from trainer.storage.natural_order import natural_sort_key
from trainer.storage.run_directory import CONFIG, REPORT

_USAGE = """Writes a page about a run, or a page that compares several runs: one HTML file that needs no network.

  {command} --job_dir=RUN [--out=report.html]
  {command} --job_dir=RUN --job_dir=RUN2 --out=comparison.html
  {command} --job_dir=STUDY [--out=study.html]

RUN is a run directory, local or gs://BUCKET/NAME. STUDY is a folder whose subfolders are runs. Training writes the page
of its run, too, and refreshes it after each evaluation.
"""
_RUN_IN_FOLDER = re.compile(rf"([^/]+)/{re.escape(CONFIG)}")


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_multi_string(
        "job_dir",
        None,
        "Run directory, or a folder of runs. Repeat the flag to compare runs.",
        required=True,
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "out", None, f"HTML file to write, local or gs://. None: {REPORT} in the directory.", flag_values=values
    )
    absl_flags.DEFINE_float(
        "price_per_hour",
        None,
        "Price of one hour of all machines of a run together, in any currency. None: the page states no price.",
        lower_bound=0.0,
        flag_values=values,
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Writes the page."""
    names = _distinct(parse_path(name) for name in values.job_dir)
    if values.out is not None:
        out = app.output_file("out", values.out, {".html": "a .html"})
    elif len(names) == 1:
        out = locate(names[0]) / REPORT
    else:
        raise ConfigError(f"--out is missing; pass --out=comparison.html to compare {count_of(len(names), 'run')}.")
    runs = _distinct(run for name in names for run in _runs_in(name))
    if len(runs) > comparison.MAX_RUNS:
        raise ConfigError(
            f"{count_of(len(runs), 'run')} are more than a page can compare; pass at most {comparison.MAX_RUNS}."
        )
    with contextlib.ExitStack() as stack:
        directories = [stack.enter_context(RunDirectory(run).open(only=run_report.FILES)) for run in runs]
        reports = [RunReport(directory, values.price_per_hour) for directory in directories]
        content = reports[0].render() if len(reports) == 1 else comparison.render(reports)
    out.write_bytes(content)
    print_line(f"Wrote the report of {count_of(len(runs), 'run')} to {out}.")


main = app.command(_USAGE, define_flags, run_command)


def _distinct(paths: Iterable[str]) -> list[str]:
    """Returns paths without those that are another spelling of an earlier one."""
    places: dict[str, str] = {}
    for path in paths:
        places.setdefault(place_of(path), path)
    return list(places.values())


def _runs_in(name: str) -> list[str]:
    """Returns a run directory, or the runs in a folder in natural order."""
    folder = locate(name)
    if (folder / CONFIG).exists():
        return [name]
    matches = (_RUN_IN_FOLDER.fullmatch(entry.name) for entry in folder.entries())
    runs = sorted((match[1] for match in matches if match), key=natural_sort_key)
    if not runs:
        absence = state_absence(folder, f"has no run: neither the folder nor its subfolders have a {CONFIG}")
        raise CheckpointError(f"job_dir={quote(name)} {absence}; pass the directory of a run.")
    return [f"{name.rstrip('/')}/{run}" for run in runs]
