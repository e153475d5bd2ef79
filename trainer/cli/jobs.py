"""The `jobs` command."""

import logging
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cloud.vertex.client import JobClient
from trainer.cloud.vertex.endpoint import ENDPOINT_VARIABLE, Endpoint, resolve_endpoint
from trainer.errors import ConfigError, count_of, escape
from trainer.logging import log_fields, print_json, print_line
from trainer.registry import check_known

_logger = logging.getLogger(__name__)

_USAGE = """Lists, describes and cancels custom jobs and hyperparameter tuning jobs on Vertex AI.

  {command} list          --project=PROJECT --region=REGION
  {command} describe NAME [--project=PROJECT --region=REGION]
  {command} cancel NAME   [--project=PROJECT --region=REGION]

NAME is the number of a job, or its resource name projects/PROJECT/locations/REGION/customJobs/NUMBER, which makes the
flags unnecessary.
"""
_COLUMNS = ("NAME", "DISPLAY NAME", "KIND", "STATE", "CREATED")


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("project", None, "Project of the jobs.", flag_values=values)
    absl_flags.DEFINE_string("region", None, "Region of the jobs, such as us-central1.", flag_values=values)
    absl_flags.DEFINE_integer(
        "limit", 20, "Maximum number of jobs to list, newest first.", lower_bound=1, flag_values=values
    )
    text = f"http://HOST:PORT of a test server for Vertex AI. None: ${ENDPOINT_VARIABLE}, else Vertex AI."
    absl_flags.DEFINE_string("api_endpoint", None, text, flag_values=values)


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    words = argv[1:]
    num_words = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return app.run(
        [argv[0], *words[num_words:]], _USAGE, define_flags, lambda values: _run_action(words[:num_words], values)
    )


def _run_action(words: Sequence[str], values: absl_flags.FlagValues) -> None:
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
    name = names[0] if names else ""
    _ACTIONS[action](JobClient(_endpoint(values, name)), name, values.limit)


def _endpoint(values: absl_flags.FlagValues, name: str) -> Endpoint:
    """Returns the endpoint of the project and region in a resource name, or else in the flags."""
    parts = name.split("/")
    is_resource_name = len(parts) == 6 and (parts[0], parts[2]) == ("projects", "locations")
    project, region = (parts[1], parts[3]) if is_resource_name else (values.project, values.region)
    for flag, value in (("project", project), ("region", region)):
        if not value:
            raise ConfigError(f"--{flag} is missing; give it{', or the resource name of the job' if name else ''}.")
    return resolve_endpoint(project, region, values.api_endpoint)


def _list(jobs: JobClient, name: str, limit: int) -> None:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for job in jobs.list(limit):
        cells = job.name.rpartition("/")[2], job.display_name, job.kind.label, job.state, job.create_time
        rows.append(tuple(map(escape, cells)))  # others may have named the job
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _describe(jobs: JobClient, name: str, limit: int) -> None:
    print_json(jobs.get(name).raw)


def _cancel(jobs: JobClient, name: str, limit: int) -> None:
    job = jobs.cancel(name)
    _logger.info(f"Canceling {job.name}.", extra=log_fields({"job": job.name}))


_ACTIONS: dict[str, Callable[[JobClient, str, int], None]] = {"list": _list, "describe": _describe, "cancel": _cancel}
