"""Jobs on Vertex AI: `python -m trainer jobs list --project=… --region=us-central1`."""

import logging
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cloud.vertex import client
from trainer.errors import ConfigError
from trainer.logging import fields as logging_fields, print_json
from trainer.registry import check_known

_logger = logging.getLogger(__name__)

_USAGE = """Lists, describes and cancels custom jobs and hyperparameter tuning jobs on Vertex AI.

  python -m trainer jobs list          --project=PROJECT --region=REGION
  python -m trainer jobs describe NAME [--project=PROJECT --region=REGION]
  python -m trainer jobs cancel NAME   [--project=PROJECT --region=REGION]

NAME is a job's number, or projects/PROJECT/locations/REGION/customJobs/NUMBER, which says where it is.
"""
_COLUMNS = ("NAME", "DISPLAY NAME", "KIND", "STATE", "CREATED")


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("project", None, "Project of the jobs.", flag_values=values)
    absl_flags.DEFINE_string("region", None, "Where they run, as in us-central1.", flag_values=values)
    absl_flags.DEFINE_integer("limit", 20, "At most so many, the newest.", lower_bound=1, flag_values=values)
    text = f"http://HOST:PORT of a stand-in for Vertex AI. None: ${client.ENDPOINT_VARIABLE}, else Vertex AI."
    absl_flags.DEFINE_string("api_endpoint", None, text, flag_values=values)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    words = argv[1:]
    count = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    return app.run([argv[0], *words[count:]], _USAGE, define, lambda values: _act(words[:count], values))


def _act(words: Sequence[str], values: absl_flags.FlagValues) -> None:
    if not words:
        raise ConfigError(f"what to do is missing; write jobs {', jobs '.join(_ACTIONS)}.")
    action, *names = words
    check_known("action", action, _ACTIONS)
    wanted = 0 if action == "list" else 1
    if len(names) != wanted:
        told = "jobs list takes no name" if wanted == 0 else f"jobs {action} takes the name of one job"
        raise ConfigError(f"{told}, and got {len(names)}; write jobs {action}{' NAME' * wanted}.")
    place = _place(values, names[0] if names else "")
    _ACTIONS[action](client.Jobs(place), names[0] if names else "", values.limit)


def _place(values: absl_flags.FlagValues, name: str) -> client.Endpoint:
    """Where the job is: a whole name says it, flags say it otherwise."""
    parts = name.split("/")
    is_whole = len(parts) == 6 and (parts[0], parts[2]) == ("projects", "locations")
    project, region = (parts[1], parts[3]) if is_whole else (values.project, values.region)
    for flag, value in (("project", project), ("region", region)):
        if not value:
            raise ConfigError(f"--{flag} is missing; give it{', or the whole name of the job' if name else ''}.")
    return client.place(project, region, values.api_endpoint)


def _list(jobs: client.Jobs, name: str, limit: int) -> None:
    rows = [_COLUMNS]
    for job in jobs.list(limit):
        rows.append((job.name.rpartition("/")[2], job.display_name, job.kind.word, job.state, job.created))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _describe(jobs: client.Jobs, name: str, limit: int) -> None:
    print_json(jobs.get(name).raw)


def _cancel(jobs: client.Jobs, name: str, limit: int) -> None:
    job = jobs.cancel(name)
    _logger.info(f"{job.name} is being cancelled.", extra=logging_fields({"job": job.name}))


_ACTIONS: dict[str, Callable[[client.Jobs, str, int], None]] = {"list": _list, "describe": _describe, "cancel": _cancel}
