"""The `submit` command."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from absl import flags as absl_flags

from trainer.cli import app, endpoint_flags, study_flags
from trainer.cloud.jobs import arguments, job_request, job_spec, output_checks, source_package, variables
from trainer.cloud.jobs.job_spec import JOB_ID, JobFile
from trainer.cloud.jobs.overrides import Overrides, new_job_id, parse_labels, parse_output_folder, parse_timeout
from trainer.cloud.jobs.pool_consistency import TrainerPool
from trainer.cloud.jobs.preflight import check_job
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.cloud.vertex import regions
from trainer.cloud.vertex.client import JobClient
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.prices import PRICE_TABLE_VARIABLE, read_price_table
from trainer.config import TrainConfig
from trainer.config.choices import MetricSuite
from trainer.data import availability
from trainer.errors import ConfigError, DataError, StorageError, quote, status_of
from trainer.logging import install_handler, print_json, quiet_import
from trainer.metrics import inception_weights
from trainer.storage import is_remote, local_path, parse_path

_logger = logging.getLogger(__name__)

_USAGE = """Checks a custom job or a hyperparameter tuning job, and sends it to Vertex AI.

  {command} --config=FILE --project=PROJECT --region=REGION [FLAGS]

FILE is a file for gcloud ai custom-jobs create or gcloud ai hp-tuning-jobs create, or a whole CustomJob. It may contain
${PROJECT}, ${BUCKET}, ${REGION} and ${RUN}, which flags, the environment, or the file .env set.
"""
_PLACEHOLDER_BUCKET = "gs://BUCKET"
"""Bucket of the package in the output of a dry run without `--staging_bucket`."""
_FILE_SETTINGS = {"dataset", "dataset_b", "inception_weights"}
_DATA_SETTINGS = _FILE_SETTINGS | {
    *("classes", "padding", "global_batch_size", "model", "metrics"),
    *("recipe", "size", "architecture"),
}
"""Settings that the check of the data and of the weights for metrics depends on."""
_HELP = {
    "config": "YAML file of a CustomJobSpec, a CustomJob, or a HyperparameterTuningJob.",
    "price_table": "CSV or JSON file with prices, to estimate the cost per hour. None: "
    f"${PRICE_TABLE_VARIABLE}, else no estimate.",
    **variables.FLAGS,
    "staging_bucket": "gs://BUCKET to upload the package of a pythonPackageSpec to.",
    "display_name": "Display name of the job. None: the name in the file, else gan-trainer.",
    "service_account": "Email address of the account that the job runs as. None: the account in the file, else the "
    "project's default.",
    "base_output_dir": f"gs://BUCKET/NAME of the output. None: the outputUriPrefix in the file. In both, {JOB_ID} "
    "becomes a new ID.",
    "kms_key": "Key that encrypts the job: projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY.",
    "network": "Network to connect to: projects/PROJECT_NUMBER/global/networks/NAME.",
    "tensorboard": "Managed TensorBoard: projects/PROJECT/locations/REGION/tensorboards/ID. Needs a service account.",
    "persistent_resource": "ID of the persistent resource to run on.",
    "timeout": "Time limit of the job: 3600s, 90m, 24h or 7d.",
    "strategy": "How machines are provisioned: STANDARD, SPOT or FLEX_START.",
}

_NEVER_EMPTY = (
    *("base_output_dir", "kms_key", "service_account", "network", "tensorboard", "persistent_resource"),
    *("display_name", "timeout", "strategy"),
)
"""Flags that replace values of the file."""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    endpoint_flags.define(values)
    for name, text in _HELP.items():
        absl_flags.DEFINE_string(name, None, text, required=name == "config", flag_values=values)
    absl_flags.DEFINE_multi_string("labels", [], "Labels to add: NAME=VALUE,NAME=VALUE.", flag_values=values)
    absl_flags.DEFINE_bool("enable_web_access", None, "Allow web shells on the machines.", flag_values=values)
    study_flags.define(values)
    absl_flags.DEFINE_string("package", ".", "Folder of the package of a pythonPackageSpec.", flag_values=values)
    text = "Regions to try in order, instead of --region: the next one if there is no quota or there are no machines."
    absl_flags.DEFINE_list("regions", [], text, flag_values=values)
    absl_flags.DEFINE_multi_string("args", None, arguments.ARGS_HELP, flag_values=values)
    absl_flags.DEFINE_bool(
        "wait", False, "Follow the job until it ends. The exit code is 0 if it succeeds.", flag_values=values
    )
    absl_flags.DEFINE_bool("dry_run", False, "Print the request as JSON, and send nothing.", flag_values=values)
    absl_flags.DEFINE_bool("render", False, "Print the file that gcloud takes, and send nothing.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Checks the job, then prints the request or the file, or sends the job and optionally follows it."""
    install_handler(uses_stderr=values.dry_run or values.render)
    if values.dry_run and values.render:
        raise ConfigError("--dry_run and --render print different things; pass one of them.")
    if values.render and len(values.regions) > 1:
        names = ",".join(values.regions)
        raise ConfigError(f"--render prints the file for one region, but --regions={names} has several; give one.")
    endpoints = _endpoints(values)
    prices = read_price_table(values.price_table)
    job, request, packages, pools = _read_job(values, endpoints[0].known_region if len(endpoints) == 1 else None)
    if prices is not None and (values.dry_run or values.render):
        for endpoint in endpoints:
            _logger.info(prices.describe_cost(request.body, endpoint.region))
    regions.check_regions(request.body, endpoints)
    if values.dry_run:
        if len(endpoints) > 1:
            _logger.info(f"The request is that for {endpoints[0].region}, the first of --regions.")
        print_json(request.to_http(endpoints[0]))
        return
    job_request.check_placeholders(request.body)
    if values.render:
        print(job_request.render(job, request, endpoints[0]), end="")
        return
    clients = [JobClient(endpoint) for endpoint in endpoints]
    clients[0].to_message(request.kind, request.body)  # checks the request before any package is uploaded
    _check_data(values.config, _data_configs(pools), in_buckets=True)
    with job_spec.errors_of_file(values.config):
        output_checks.check_buckets(job, pools)
    for package in packages:
        package.upload()
        _logger.info(f"Uploaded the package to {package.uri}.")
    regions.send(clients, request.kind, request.body, waits=values.wait, prices=prices)


main = app.command(_USAGE, define_flags, run_command)


def _variable_flags(values: absl_flags.FlagValues) -> dict[str, str | None]:
    """Returns the values of the flags that set variables. The first of several regions is that of the file."""
    names = regions.parse_regions(values.region, values.regions)
    return variables.flag_values(values) | {"region": names[0] if names else None}


def _endpoints(values: absl_flags.FlagValues) -> list[Endpoint]:
    """Returns the endpoints of the flags, or of the variables with the same names."""
    settings = variables.read_values(_variable_flags(values), values.env_file, names=variables.ENDPOINT_NAMES)
    is_printed, alternative = values.dry_run or values.render, "print the request with --dry_run"
    return [
        endpoint_flags.resolve(values, settings.get("PROJECT"), region, is_printed=is_printed, alternative=alternative)
        for region in values.regions or [settings.get("REGION")]
    ]


def _read_job(
    values: absl_flags.FlagValues, region: str | None
) -> tuple[JobFile, job_request.Request, list[source_package.Package], Sequence[TrainerPool]]:
    """Reads and checks the job file.

    Args:
        values: Values of the flags.
        region: Region of the job. None: not known.

    Returns:
        The job, its request, the packages to upload before it is sent, and the pools that run the trainer.
    """
    content = read_yaml(values.config)
    default_bucket = _PLACEHOLDER_BUCKET if values.dry_run or values.render else None
    staging_bucket = default_bucket if values.staging_bucket is None else parse_path(values.staging_bucket)
    overrides = _overrides(values)
    with job_spec.errors_of_file(values.config):
        content = overrides.apply(content)
        names = variables.used_in(content)
        settings = variables.read_values(_variable_flags(values), values.env_file, names=names)
        if not values.dry_run:
            variables.check_set(content, settings)
        content = variables.expand(content, settings)
        content, sources = source_package.with_provisional_uris(content, staging_bucket)
        if values.render and sources:
            raise ConfigError(
                "packageUris has no package that is already in a bucket, which gcloud needs; copy the package there, "
                "and name it in packageUris."
            )
        job = job_spec.parse(content)
        pools = check_job(job, region=region)
    _check_package_flags(values, sources)
    _check_data(values.config, _data_configs(pools), in_buckets=False)
    request = job_request.create_request(job, values.display_name)
    packages = source_package.collect_packages(
        sources, staging_bucket, local_path(values.package, "give a local folder with --package")
    )
    body = source_package.with_final_uris(request.body, packages)
    return job, job_request.Request(kind=request.kind, body=body), [*packages.values()], pools


def _check_package_flags(values: absl_flags.FlagValues, sources: Mapping[str, str]) -> None:
    """Rejects flags of packages without effect.

    Args:
        values: Values of the flags.
        sources: Sources of the packages to upload, from `source_package.with_provisional_uris`.
    """
    if values.staging_bucket is not None and not sources:
        raise ConfigError(
            f"--staging_bucket={quote(values.staging_bucket)} has no effect, because the job has no package to upload; "
            "omit it."
        )
    if values["package"].present and source_package.FROM_PROJECT not in sources.values():
        raise ConfigError(
            f"--package={quote(values.package)} has no effect, because the job has no package to build; omit it, or "
            "remove packageUris from the file."
        )


def _overrides(values: absl_flags.FlagValues) -> Overrides:
    """Returns the values of the file that flags replace."""
    for name in _NEVER_EMPTY:
        if values[name].value == "":
            raise ConfigError(f"--{name} is empty; give it a value, or omit the flag to keep that of the file.")
    key = values.kms_key
    return Overrides(
        args=arguments.split_lists(values.args),
        spec={
            "serviceAccount": values.service_account,
            "network": values.network,
            "tensorboard": values.tensorboard,
            "persistentResourceId": values.persistent_resource,
            "enableWebAccess": values.enable_web_access,
            "baseOutputDirectory": parse_output_folder(values.base_output_dir, is_local=False),
        },
        scheduling={"timeout": parse_timeout(values.timeout), "strategy": values.strategy},
        job={"encryptionSpec": None if key is None else {"kmsKeyName": key}},
        labels=parse_labels(values.labels),
        study=study_flags.parse(values),
        job_id=new_job_id(),
    )


def _data_configs(pools: Sequence[TrainerPool]) -> dict[str, TrainConfig]:
    """Returns the different data settings of the pools, by path in the file.

    A custom recipe is not loaded, so under one only the datasets that flags name are known. A recipe that takes a
    context fits its batch to the data.
    """
    configs: dict[str, TrainConfig] = {}
    for pool in pools:
        if pool.args.has_custom_recipe:
            names = _FILE_SETTINGS & pool.args.flags.keys()
        else:
            names = _DATA_SETTINGS - (set() if pool.args.knows_batch else {"global_batch_size"})
        settings = {name: getattr(pool.args.config, name) for name in names}
        config = TrainConfig(**{"global_batch_size": 1, **settings}).without_mounts()
        if config not in configs.values():
            configs[pool.path] = config
    return configs


def _check_data(file: str, configs: Mapping[str, TrainConfig], *, in_buckets: bool) -> None:
    for path, config in configs.items():
        with quiet_import():
            from trainer.cloud.jobs.config_checks import needs_labels, takes_pairs
        try:
            needs = {"needs_labels": needs_labels(config.model), "takes_pairs": takes_pairs(config.model)}
            availability.check_data(config, **needs, in_buckets=in_buckets)
            _check_weights(config, in_buckets=in_buckets)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{file}: {path}: {error}") from error
        except StorageError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                raise
            _logger.warning(f"The data cannot be checked before the job is sent: {error}")


def _check_weights(config: TrainConfig, *, in_buckets: bool) -> None:
    """Rejects a job that evaluates with weights that its machines cannot read. They are verified on the machines."""
    is_used = config.suite == MetricSuite.INCEPTION or config.inception_weights is not None
    if is_used and (in_buckets or not is_remote(config.inception_weights or "")):
        inception_weights.check(config.inception_weights)
