"""The `submit` command."""

import logging
import os
from collections.abc import Mapping, Sequence

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cloud.jobs import arguments, job_spec, request as requests, source_package
from trainer.cloud.jobs.pool_consistency import TrainerPool
from trainer.cloud.jobs.preflight import check_job
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.cloud.vertex.client import Job, JobClient, console_url
from trainer.cloud.vertex.endpoint import ENDPOINT_VARIABLE, Endpoint, resolve_endpoint
from trainer.cloud.vertex.follow import follow
from trainer.config import TrainConfig
from trainer.config.choices import MetricSuite
from trainer.data import availability
from trainer.errors import ConfigError, DataError, Interrupted, StorageError
from trainer.logging import log_fields, print_json, quiet_import
from trainer.metrics import inception_weights
from trainer.storage import is_remote, local_path, parse_path, without_mount

_logger = logging.getLogger(__name__)

_USAGE = """Checks a custom job or a hyperparameter tuning job, and sends it to Vertex AI.

  {command} --config=FILE --project=PROJECT --region=REGION [FLAGS]

FILE is a file for gcloud ai custom-jobs create or gcloud ai hp-tuning-jobs create.
"""
_PLACEHOLDER_BUCKET = "gs://BUCKET"
"""Bucket of the package in the output of a dry run without `--staging_bucket`."""
_DATASET_SETTINGS = {"dataset", "dataset_b"}
_FILE_SETTINGS = _DATASET_SETTINGS | {"inception_weights"}
_DATA_SETTINGS = _FILE_SETTINGS | {
    *("classes", "padding", "global_batch_size", "model", "metrics"),
    *("recipe", "size", "architecture"),
}
"""Settings that the check of the data and of the weights for metrics depends on."""
_NOT_FOUND = 404
_HELP = {
    "config": "YAML file of a CustomJobSpec or a HyperparameterTuningJob.",
    "project": "Project that runs the job and pays for it.",
    "region": "Region of the job, such as us-central1.",
    "staging_bucket": "gs://BUCKET to upload the package of a pythonPackageSpec to.",
    "display_name": "Display name of the job. None: the name in the file, else gan-trainer.",
    "service_account": "Email address of the account that the job runs as. None: the account in the file, else the "
    "project's default.",
    "api_endpoint": f"http://HOST:PORT of a test server for Vertex AI. None: ${ENDPOINT_VARIABLE}, else Vertex AI.",
}


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    for name, text in _HELP.items():
        absl_flags.DEFINE_string(name, None, text, required=name == "config", flag_values=values)
    absl_flags.DEFINE_string("package", ".", "Folder of the package of a pythonPackageSpec.", flag_values=values)
    absl_flags.DEFINE_multi_string("args", None, arguments.ARGS_HELP, flag_values=values)
    absl_flags.DEFINE_bool(
        "wait", False, "Follow the job until it ends. The exit code is 0 if it succeeds.", flag_values=values
    )
    absl_flags.DEFINE_bool("dry_run", False, "Print the request as JSON, and send nothing.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Checks the job, then prints the request, or sends it and optionally follows the job."""
    endpoint = _endpoint(values)
    request, packages, configs = _read_job(values)
    if values.dry_run:
        print_json(request.to_http(endpoint))
        return
    requests.check_placeholders(request.body)
    jobs = JobClient(endpoint)
    jobs.to_message(request.kind, request.body)  # checks the request before any package is uploaded
    _check_data(values.config, configs, in_buckets=True)
    for package in packages:
        package.upload()
        _logger.info(f"Uploaded the package to {package.uri}.")
    job = _create(jobs, request)
    _logger.info(f"Created {job.name}.", extra=log_fields({"job": job.name}))
    _logger.info(f"See {console_url(job.name)}")
    if values.wait:
        follow(jobs, job)
    else:
        _logger.info(f"To see its state: python -m trainer jobs describe {job.name}")


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)


def _endpoint(values: absl_flags.FlagValues) -> Endpoint:
    for name in ("project", "region"):
        if not values[name].value and not values.dry_run:
            raise ConfigError(f"--{name} is missing; give it, or print the request with --dry_run.")
    return resolve_endpoint(values.project or "PROJECT", values.region or "REGION", values.api_endpoint)


def _read_job(
    values: absl_flags.FlagValues,
) -> tuple[requests.Request, list[source_package.Package], Mapping[str, TrainConfig]]:
    """Reads and checks the job file.

    Returns:
        The request, the packages to upload before it is sent, and the data settings of the trainer by path in the file.
    """
    args = None if values.args is None else [arg for text in values.args for arg in arguments.split_list(text)]
    content = requests.with_overrides(read_yaml(values.config), args=args, service_account=values.service_account)
    default_bucket = _PLACEHOLDER_BUCKET if values.dry_run else None
    staging_bucket = default_bucket if values.staging_bucket is None else parse_path(values.staging_bucket)
    try:
        content, sources = source_package.with_provisional_uris(content, staging_bucket)
        job = job_spec.parse(content)
        configs = _data_configs(check_job(job))
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(values.config)}: {error}") from error
    _check_data(values.config, configs, in_buckets=False)
    request = requests.create_request(job, values.display_name)
    packages = source_package.collect_packages(sources, staging_bucket, local_path(values.package))
    body = source_package.with_final_uris(request.body, packages)
    return requests.Request(kind=request.kind, body=body), [*packages.values()], configs


def _data_configs(pools: Sequence[TrainerPool]) -> dict[str, TrainConfig]:
    """Returns the different data settings of the pools, by path in the file.

    A custom recipe is not loaded, so under one only the data sets that flags name are known. A recipe that takes a
    context fits its batch to the data.
    """
    configs: dict[str, TrainConfig] = {}
    for pool in pools:
        if pool.args.has_custom_recipe:
            names = _FILE_SETTINGS & pool.args.flags.keys()
        else:
            names = _DATA_SETTINGS - (set() if pool.args.knows_batch else {"global_batch_size"})
        settings = {name: getattr(pool.args.config, name) for name in names}
        settings |= {name: without_mount(settings[name]) for name in _FILE_SETTINGS & names if settings[name]}
        config = TrainConfig(**{"global_batch_size": 1, **settings})
        if config not in configs.values():
            configs[pool.path] = config
    return configs


def _check_data(file: str, configs: Mapping[str, TrainConfig], *, in_buckets: bool) -> None:
    for path, config in configs.items():
        with quiet_import():
            from trainer.cloud.jobs.config_checks import needs_labels
        try:
            availability.check_data(config, needs_labels=needs_labels(config.model), in_buckets=in_buckets)
            _check_weights(config, in_buckets=in_buckets)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{file}: {path}: {error}") from error
        except StorageError as error:
            if getattr(error.__cause__, "code", None) == _NOT_FOUND:
                raise
            _logger.warning(f"The data cannot be checked before the job is sent: {error}")


def _check_weights(config: TrainConfig, *, in_buckets: bool) -> None:
    """Rejects a job that evaluates with weights that its machines cannot read. They are verified on the machines."""
    is_used = config.suite == MetricSuite.INCEPTION or config.inception_weights is not None
    if is_used and (in_buckets or not is_remote(config.inception_weights or "")):
        inception_weights.check(config.inception_weights)


def _create(jobs: JobClient, request: requests.Request) -> Job:
    try:
        return jobs.create(request.kind, request.body)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while sending the job; run python -m trainer jobs list to see whether it was created."
        ) from None
