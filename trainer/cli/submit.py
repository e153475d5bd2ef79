"""Sends a job to Vertex AI: `python -m trainer submit --config=config.yaml --project=… --region=us-central1`."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cloud.jobs import arguments, job_spec, request as requests, source_package
from trainer.cloud.jobs.pool_consistency import Machines
from trainer.cloud.jobs.preflight import check_job
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.cloud.vertex import client
from trainer.cloud.vertex.follow import follow
from trainer.config import TrainConfig
from trainer.data import availability
from trainer.errors import ConfigError, DataError, Interrupted, StorageError
from trainer.logging import fields as logging_fields, print_json
from trainer.storage import without_mount

_logger = logging.getLogger(__name__)

_USAGE = """Sends a custom job or a hyperparameter tuning job to Vertex AI, after checking all of it.

  python -m trainer submit --config=FILE --project=PROJECT --region=REGION [FLAGS]

FILE is what gcloud ai custom-jobs create and gcloud ai hp-tuning-jobs create take.
"""
_ANY_BUCKET = "gs://BUCKET"
"""Where a dry run that names no bucket shows a package."""
_DATA = {"dataset", "dataset_b"}
_BESIDE_DATA = {"classes", "global_batch_size", "model"}
"""Settings that decide whether data can be trained on."""
_MISSING = 404


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    texts = {
        "config": "YAML file of a CustomJobSpec or a HyperparameterTuningJob.",
        "project": "Project that runs the job and pays for it.",
        "region": "Where it runs, as in us-central1.",
        "staging_bucket": "gs://BUCKET where the package of a pythonPackageSpec goes.",
        "display_name": "What the job is called. None: as the file says, else gan-trainer.",
        "service_account": "E-mail of the account that the job runs as. None: as the file says, else the project's.",
        "api_endpoint": f"http://HOST:PORT of a stand-in for Vertex AI. None: ${client.ENDPOINT_VARIABLE}, else Vertex "
        "AI.",
    }
    for name, text in texts.items():
        absl_flags.DEFINE_string(name, None, text, required=name == "config", flag_values=values)
    absl_flags.DEFINE_string("package", ".", "Folder of the package of a pythonPackageSpec.", flag_values=values)
    absl_flags.DEFINE_multi_string("args", None, arguments.ARGS_HELP, flag_values=values)
    absl_flags.DEFINE_bool("wait", False, "Follow the job to its end; exit with 0 if it succeeds.", flag_values=values)
    absl_flags.DEFINE_bool("dry_run", False, "Print the request as JSON and send nothing.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Checks the job, sends it or prints it, and waits for it."""
    place = _place(values)
    request, to_send, configs = _prepared(values)
    if values.dry_run:
        print_json(request.told(place))
        return
    requests.check_names(request.body)
    jobs = client.Jobs(place)
    jobs.message(request.kind, request.body)  # or refuses it, before a package is sent
    _check_data(values.config, configs, in_buckets=True)
    for package in to_send:
        package.upload()
        _logger.info(f"Put the package at {package.uri}.")
    job = _created(jobs, request)
    _logger.info(f"Made {job.name}.", extra=logging_fields({"job": job.name}))
    _logger.info(f"See {client.console_address(job.name)}")
    if values.wait:
        follow(jobs, job)
    else:
        _logger.info(f"Follow it with: python -m trainer jobs describe {job.name}")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)


def _place(values: absl_flags.FlagValues) -> client.Endpoint:
    for name in ("project", "region"):
        if not values[name].value and not values.dry_run:
            raise ConfigError(f"--{name} is missing; give it, or print the request with --dry_run.")
    return client.place(values.project or "PROJECT", values.region or "REGION", values.api_endpoint)


def _prepared(
    values: absl_flags.FlagValues,
) -> tuple[requests.Request, list[source_package.Package], Mapping[str, TrainConfig]]:
    """The request, the packages that have to be in their bucket before it is sent, and what the trainer is to do."""
    args = None if values.args is None else [arg for text in values.args for arg in arguments.listed(text)]
    content = requests.with_changes(read_yaml(values.config), args=args, service_account=values.service_account)
    staging_bucket = values.staging_bucket or (_ANY_BUCKET if values.dry_run else None)
    try:
        content, sources = source_package.with_provisional(content, staging_bucket)
        job = job_spec.parse(content)
        configs = _configs(check_job(job))
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(values.config)}: {error}") from error
    _check_data(values.config, configs, in_buckets=False)
    request = requests.request(job, values.display_name)
    found = source_package.packages(sources, staging_bucket, Path(values.package))
    sent = requests.Request(kind=request.kind, body=source_package.with_addresses(request.body, found))
    return sent, [*found.values()], configs


def _configs(machines: Sequence[Machines]) -> dict[str, TrainConfig]:
    """What is asked of data, by where; under a recipe of one's own, which may set all else, what flags name."""
    configs: dict[str, TrainConfig] = {}
    for one in machines:
        known = _DATA & one.asked.given.keys() if one.asked.has_own_recipe else _DATA | _BESIDE_DATA
        settings = {name: getattr(one.asked.config, name) for name in known}
        settings |= {name: without_mount(settings[name]) for name in _DATA & known if settings[name]}
        config = TrainConfig(**{"global_batch_size": 1, **settings})
        if config not in configs.values():
            configs[one.where] = config
    return configs


def _check_data(file: str, configs: Mapping[str, TrainConfig], *, in_buckets: bool) -> None:
    for where, config in configs.items():
        try:
            availability.check_data(config, in_buckets=in_buckets)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{file}: {where}: {error}") from error
        except StorageError as error:
            if getattr(error.__cause__, "code", None) == _MISSING:
                raise
            _logger.warning(f"The data cannot be looked at before the job is sent: {error}")


def _created(jobs: client.Jobs, request: requests.Request) -> client.Job:
    try:
        return jobs.create(request.kind, request.body)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while the job was being sent; look with python -m trainer jobs list whether it is there."
        ) from None
