"""The `jobs` command."""

import logging
import time
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from trainer.cli import app, endpoint_flags
from trainer.cloud.jobs import variables
from trainer.cloud.vertex import follow
from trainer.cloud.vertex.client import JobClient
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.logs import SEVERITIES, JobLog
from trainer.cloud.vertex.resource_name import ResourceName, number_of
from trainer.errors import ConfigError, JobError, count_of, escape, quote
from trainer.logging import log_fields, print_json, print_line
from trainer.registry import check_known

_logger = logging.getLogger(__name__)

_USAGE = """Lists, describes, follows and cancels custom jobs and hyperparameter tuning jobs on Vertex AI.

  {command} list          --project=PROJECT --region=REGION [--filter=labels.team=vision] [--limit=20]
  {command} describe NAME [--project=PROJECT --region=REGION]
  {command} logs NAME     [--project=PROJECT --region=REGION] [--follow] [--tail=100] [--severity=WARNING]
  {command} wait NAME     [--project=PROJECT --region=REGION]
  {command} trials NAME   [--project=PROJECT --region=REGION] [--plot=FILE.png]
  {command} cancel NAME   [--project=PROJECT --region=REGION]

NAME is the number of a job, or its resource name projects/PROJECT/locations/REGION/customJobs/NUMBER, which makes the
flags unnecessary. Words and flags may have any order. The exit code of wait is 0 if the job succeeds, 3 if it is
canceled, 4 if its state can no longer be read, and 1 if it ends in any other way.
"""
_COLUMNS = ("NAME", "DISPLAY NAME", "KIND", "STATE", "CREATED", "LABELS")
_ACTIONS_OF_FLAGS = {
    "limit": "list",
    "filter": "list",
    "follow": "logs",
    "tail": "logs",
    "severity": "logs",
    "task_name": "logs",
    "plot": "trials",
}
_LOG_RETRY_SECS = 10.0
_MAX_LOG_READS = 6
_sleep = time.sleep


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    endpoint_flags.define(values)
    absl_flags.DEFINE_integer(
        "limit", 20, "list: maximum number of jobs, newest first.", lower_bound=1, flag_values=values
    )
    text = 'list: jobs to list, in the API\'s language: state="JOB_STATE_RUNNING" AND labels.team=vision. None: all.'
    absl_flags.DEFINE_string("filter", None, text, flag_values=values)
    absl_flags.DEFINE_bool("follow", False, "logs: print new entries until the job ends.", flag_values=values)
    absl_flags.DEFINE_integer(
        "tail", None, "logs: number of newest entries. None: the whole log.", lower_bound=1, flag_values=values
    )
    absl_flags.DEFINE_enum(
        "severity",
        None,
        SEVERITIES,
        "logs: lowest severity of the entries. None: all.",
        case_sensitive=False,
        flag_values=values,
    )
    text = "logs: replica whose entries are printed, such as workerpool0-0. None: all replicas."
    absl_flags.DEFINE_string("task_name", None, text, flag_values=values)
    absl_flags.DEFINE_string(
        "plot", None, "trials: .png file for a plot of each parameter against the metric.", flag_values=values
    )


def run_command(values: absl_flags.FlagValues, words: Sequence[str]) -> None:
    """Runs the action that the first word names."""
    if not words:
        raise ConfigError(f"the action is missing; write jobs {', jobs '.join(_ACTIONS)}.")
    action, *names = words
    check_known("action", action, _ACTIONS)
    num_names = 0 if action == "list" else 1
    if len(names) != num_names:
        allowed = "one name" if num_names else "no names"
        raise ConfigError(
            f"jobs {action} received {count_of(len(names), 'name')} and takes {allowed}; write jobs "
            f"{action}{' NAME' * num_names}."
        )
    for flag, owner in _ACTIONS_OF_FLAGS.items():
        if values[flag].present and action != owner:
            raise ConfigError(f"--{flag} is a flag of jobs {owner}, not of jobs {action}; remove it.")
    name = names[0] if names else ""
    _ACTIONS[action](JobClient(_endpoint(values, name)), name, values)


main = app.command(_USAGE, define_flags, run_command, takes_words=True)


def _endpoint(values: absl_flags.FlagValues, name: str) -> Endpoint:
    """Returns the endpoint of the project and region in a resource name, or else in the flags."""
    resource = ResourceName.parse(name)
    if "/" in name and resource is None:
        raise ConfigError(
            f"{quote(name)} is not the name of a job; give its number, or projects/PROJECT/locations/REGION/customJobs/"
            "NUMBER."
        )
    project: str | None
    region: str | None
    if resource is not None:
        project, region = resource.project, resource.region
    else:
        project, region = variables.project_and_region(values.project, values.region)
    alternative = "give the resource name of the job" if name else ""
    return endpoint_flags.resolve(values, project, region, alternative=alternative)


def _list(jobs: JobClient, name: str, values: absl_flags.FlagValues) -> None:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for job in jobs.list(values.limit, values.filter or ""):
        labels = ",".join(f"{key}={value}" for key, value in sorted(job.labels.items()))
        cells = number_of(job.name), job.display_name, job.kind.label, job.state, job.create_time, labels
        rows.append(tuple(map(escape, cells)))  # others may have named the job
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _describe(jobs: JobClient, name: str, values: absl_flags.FlagValues) -> None:
    print_json(jobs.get(name).raw)


def _logs(jobs: JobClient, name: str, values: absl_flags.FlagValues) -> None:
    """Prints the log, then optionally new entries until the job ends, in whatever state."""
    job = jobs.get(name)
    log = JobLog(jobs.endpoint, job.name, min_severity=values.severity, task_name=values.task_name)
    for attempt in range(_MAX_LOG_READS):
        if attempt:
            _sleep(_LOG_RETRY_SECS)
        for entry in log.last_entries(values.tail) if values.tail else log.new_entries():
            follow.log_entry(entry)
        if log.is_complete:
            break
    else:
        raise JobError(f"Cloud Logging is unavailable, so the log of {job.name} is not complete; try again.")
    if values.follow:
        follow.wait(jobs, job, log)


def _wait(jobs: JobClient, name: str, values: absl_flags.FlagValues) -> None:
    follow.check_success(follow.wait(jobs, jobs.get(name)))


def _trials(jobs: JobClient, name: str, values: absl_flags.FlagValues) -> None:
    """Prints a table of the trials and the flags of the best one, and draws a plot."""
    from trainer.cloud.tuning import study_report, vertex_study

    plot = app.output_file("plot", values.plot, {".png": "a .png"}) if values.plot else None
    study = vertex_study.to_study(jobs.get(name))
    for line in study_report.format_table(study).splitlines():
        print_line(line)
    if plot is not None:
        plot.write_bytes(study_report.plot(study))
        _logger.info(f"Wrote a plot of the trials to {plot}.")


def _cancel(jobs: JobClient, name: str, values: absl_flags.FlagValues) -> None:
    job = jobs.cancel(name)
    _logger.info(f"Canceling {job.name}.", extra=log_fields({"job": job.name}))


_ACTIONS: dict[str, Callable[[JobClient, str, absl_flags.FlagValues], None]] = {
    "list": _list,
    "describe": _describe,
    "logs": _logs,
    "wait": _wait,
    "trials": _trials,
    "cancel": _cancel,
}
