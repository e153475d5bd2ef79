"""Checks of the buckets of a job before it is sent: its output folder and its packages."""

import functools
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from trainer.cloud.jobs.job_spec import JOB_ID, JobFile, JobSpec, TuningSpec
from trainer.cloud.jobs.pool_consistency import TrainerPool
from trainer.cloud.jobs.source_package import PROVISIONAL
from trainer.cloud.jobs.worker_pools import PythonPackage
from trainer.config import TrainConfig, recipes
from trainer.config.choices import Resume
from trainer.errors import ConfigError, MissingError, StorageError, list_some, quote, status_of
from trainer.logging import quiet_import
from trainer.storage import Location, RunDirectory, is_remote, locate, run_directory, without_mount
from trainer.storage.lease import LEASE, describe_owner
from trainer.training.run_end import CHANGE_ADVICE, describe_changes, describe_end, is_finished
from trainer.training.stored_run import stored_run

_logger = logging.getLogger(__name__)

_PERMISSIONS = tuple(f"storage.objects.{verb}" for verb in ("list", "get", "create", "delete"))
"""Permissions on its bucket that a run needs."""
_TRIAL = re.compile(r"([1-9]\d{0,8})/.*")
_MACHINE_CHOICES = (None, "auto")
"""Values that the machines replace by their own choice."""
_END = "metrics", "stop_on_collapse", "export_model"
"""Settings, besides the steps, that decide whether a run has ended."""


def check_buckets(job: JobFile, pools: Sequence[TrainerPool]) -> None:
    """Rejects a job whose output folder or packages would make it fail after its machines have started.

    Reads are made as this account. If the job runs as another account, that account may still lack permissions.

    Args:
        job: Parsed job file.
        pools: Pools that run the trainer, from `preflight.check_job`.

    Raises:
        ConfigError: If a package does not exist, or the folder holds another or a finished run, the trials of a study,
            or other files.
        StorageError: If a bucket does not exist, or the account of the job cannot write to it.
    """
    spec = job.trial if isinstance(job, TuningSpec) else job
    for pool in spec.pools:
        for uri in pool.program.package_uris if isinstance(pool.program, PythonPackage) else ():
            if not uri.startswith(PROVISIONAL):
                check_if_readable(functools.partial(_check_package, uri), f"The package {uri}")
    folder = pools[0].args.flags.get("job_dir") if pools and not isinstance(job, TuningSpec) else None
    folder = without_mount(folder or spec.base_output_uri or "")
    if is_remote(folder):
        check_if_readable(
            lambda: _check_folder(folder, job, pools, spec.raw.get("serviceAccount")), f"The output folder {folder}"
        )


def check_if_readable(check: Callable[[], object], subject: str) -> None:
    """Runs a check of a bucket. If this account cannot read it, logs a warning, because the job's account may.

    Args:
        check: Function that raises an error if the job cannot use the bucket.
        subject: Name of what is checked, with a capital, for the warning.

    Raises:
        TrainerError: As raised by `check`.
    """
    try:
        check()
    except StorageError as error:
        if error.__cause__ is None or status_of(error) == HTTPStatus.NOT_FOUND:
            raise
        _logger.warning(f"{subject} cannot be checked before the job is sent: {error}")


def _check_package(uri: str) -> None:
    if not locate(uri).exists():
        raise ConfigError(
            f"packageUris has {uri}, which does not exist; copy the package there, or remove packageUris and give "
            "--staging_bucket=gs://BUCKET to build and upload it."
        )


def _check_folder(folder: str, job: JobFile, pools: Sequence[TrainerPool], account: str | None) -> None:
    location = locate(folder)
    names = [entry.name for entry in location.entries()]
    _check_permissions(location, account)
    if not pools:
        return
    owner = describe_owner(location) if LEASE in names else None
    if owner is not None and not pools[0].args.waits_for_lease:
        raise ConfigError(
            f"{folder} is being written by {owner}, so that the job would end at its start; wait until the other "
            "process ends, or give another folder, with --base_output_dir or in the file."
        )
    trials = sorted({int(match[1]) for name in names if (match := _TRIAL.fullmatch(name))})
    if trials:
        shown = list_some(trials, 3)
        raise ConfigError(
            f"{folder} has the trials of an earlier study ({shown}), and new ones would have the same numbers; give a "
            f"new folder, such as --base_output_dir={folder}/{JOB_ID}, in which {JOB_ID} becomes a new ID."
        )
    if isinstance(job, JobSpec) and run_directory.CONFIG in names:
        model_dir = job.base_output_uri and f"{job.base_output_uri}/{run_directory.MODEL}"
        _check_run(folder, model_dir, pools[0].args.config, _known_settings(pools[0]))
        return
    foreign = [name for name in names if not run_directory.is_early_file(name)]
    if foreign:
        raise ConfigError(
            f"{folder} is not empty and has no run that this job could resume: it has {quote(foreign[0])}; give "
            "another folder, with --base_output_dir or in the file."
        )


def _check_permissions(location: Location, account: str | None) -> None:
    """Rejects a bucket that the job's account cannot write. Only the permissions of this account can be read.

    Args:
        location: Output folder.
        account: Service account of the job. None: Vertex AI's agent, or the default that the project has set.
    """
    from trainer.storage.gcs import BucketLocation, principal  # Google's SDK takes a while to import

    if not isinstance(location, BucketLocation):
        return
    try:
        missing = location.missing_permissions(_PERMISSIONS)
    except MissingError:  # the bucket was listed, so this is a test server without the method
        return
    own_account = principal()
    if not missing:
        return
    problem = f"{own_account} lacks {', '.join(missing)} on the bucket {location.bucket}"
    if account == own_account:
        raise StorageError(
            f"{problem}, so that the output cannot be written; grant roles/storage.objectUser on it, or give the "
            "--service_account that has it."
        )
    _logger.warning(
        f"{problem}. The job runs as {account or 'the default account of Vertex AI'}, whose permissions cannot be "
        "checked from here: it needs roles/storage.objectUser."
    )


def _check_run(folder: str, model_dir: str | None, config: TrainConfig, known: Collection[str]) -> None:
    """Rejects a run that the job would not resume: one of other settings, and one that is finished.

    Args:
        folder: Run directory in a bucket.
        model_dir: Folder of the job for the model; None if there is no such folder.
        config: Config of the job.
        known: Names of the settings of the job that are known.
    """
    directory = RunDirectory(folder)
    with directory.open(only=[run_directory.CONFIG]):
        stored = stored_run(directory)
        if stored is None:
            return
        with quiet_import():
            from trainer.training.complete_config import with_stored_datasets
            from trainer.training.transfer import with_stored_source
        config = with_stored_source(with_stored_datasets(config, stored.config), stored.config)
        checkpoints = stored._replace(history=stored.known_history(config)).checkpoints(directory, with_best=False)
        step = max(checkpoints.steps(), default=None)
        if step is None:
            return
        _check_settings(folder, config, stored.config, known)
        if config.resume == Resume.NEVER:
            raise ConfigError(
                f"{folder} has a run at step {step}, but the args have --resume=never; give another folder."
            )
        manifest = checkpoints.newest_manifest()
        config = _with_stored_end(config, stored.config, known)
        if manifest is None or not is_finished(manifest, config):
            return
        if config.export_model and not _has_model(manifest.step, directory.model_destinations(model_dir)):
            return
    raise ConfigError(
        f"{folder} has a run that {describe_end(manifest, config)}, or give another folder, with --base_output_dir or "
        "in the file."
    )


def _check_settings(folder: str, config: TrainConfig, stored: TrainConfig, known: Collection[str]) -> None:
    """Rejects a run with other settings than those of the job that are known."""
    requested = {
        name: value for name, value in _comparable(config).items() if name in known and value not in _MACHINE_CHOICES
    }
    changed = describe_changes(requested, _comparable(stored))
    if changed and not config.allow_config_change:
        raise ConfigError(
            f"{folder} has a run with {changed}; use the settings of that run, another folder, or {CHANGE_ADVICE}."
        )


def _with_stored_end(config: TrainConfig, stored: TrainConfig, known: Collection[str]) -> TrainConfig:
    """Returns a config with the stored values of settings that decide whether a run has ended and are not known."""
    names = [name for name in _END if name not in known or getattr(config, name) in _MACHINE_CHOICES]
    if not {"steps", "epochs"} & {*known}:
        names.append("steps")
    return config.override(**{name: getattr(stored, name) for name in names})


def _has_model(step: int, destinations: Sequence[Location]) -> bool:
    """Returns whether a run has exported its model at a step to every destination, as the trainer checks it."""
    with quiet_import():
        from trainer.serving import saved_model
    return all(saved_model.was_exported_at(step, place) for place in destinations)


def _known_settings(pool: TrainerPool) -> set[str]:
    """Returns the names of the settings of a job that are known before its machines start."""
    args = pool.args
    if args.has_custom_recipe or recipes.takes_context(args.config.recipe):
        return {*args.flags, "recipe"}
    return set(TrainConfig.__dataclass_fields__)


def _comparable(config: TrainConfig) -> Mapping[str, Any]:
    """Returns the settings that identify a run, with one spelling for each folder."""
    return config.without_mounts().identity
