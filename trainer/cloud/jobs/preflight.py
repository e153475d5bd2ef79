"""Checks a job file against the trainer that it starts: its flags, its output and the metrics of its trials."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.cloud.jobs.arguments import check_args, parse_flags, trainer_args
from trainer.cloud.jobs.boundary_trials import boundary_trials, boundary_values
from trainer.cloud.jobs.job_spec import JobFile, JobSpec, TuningSpec
from trainer.cloud.jobs.machines import is_tpu
from trainer.cloud.jobs.pool_consistency import TrainerPool, check_consistency
from trainer.cloud.jobs.schema_validation import fail
from trainer.cloud.jobs.service_rules import check_output_folder, check_service_rules
from trainer.cloud.jobs.study_spec import Parameter, StudySpec, Value
from trainer.cloud.jobs.worker_pools import TRAINER, Pool, PythonPackage
from trainer.config import TrainConfig
from trainer.config.choices import Resume
from trainer.config.flags import takes_whole_numbers
from trainer.config.suites import SUITES
from trainer.logging import quiet_import
from trainer.registry import did_you_mean
from trainer.storage import is_remote, without_mount

_logger = logging.getLogger(__name__)

_METRIC_SETTINGS = ("num_metric_samples", "dataset", "dataset_b", "classes", "padding", "inception_weights")
"""Settings, apart from the suite, that all trials need alike so that their metrics can be compared."""


def check_job(job: JobFile, *, is_local: bool = False, region: str | None = None) -> list[TrainerPool]:
    """Rejects a job that the trainer would reject, that would lose its results, or whose trials report no metric.

    Programs other than the trainer are not checked.

    Args:
        job: Parsed job file.
        is_local: Whether the job runs on this machine, where it may write to local folders, and where the rules of
            Vertex AI for machines and names do not matter.
        region: Region of the job. None: not known.

    Returns:
        The pools that run the trainer; for a study, those of its boundary trials.

    Raises:
        ConfigError: If there is a mistake; the message describes the first one.
    """
    if not isinstance(job, TuningSpec):
        _check_pools(job, job.path, is_tuning=False, is_local=is_local)
        pools = _check_trainer_args(job, job.path, {})
    else:
        pools = _check_tuning(job, is_local=is_local)
    for pool in pools:
        source = pool.args.config.init_from
        if source is not None and not is_local and not is_remote(without_mount(source)):
            fail(pool.path, f"has --init_from={source}, which is not copied to the machines; give gs://BUCKET/RUN.")
    if not is_local:
        if not pools:
            _logger.warning(
                f"The job does not run python -m {TRAINER}, so its flags and its output folder were not checked."
            )
        spec, envelope = (job.trial, job.raw) if isinstance(job, TuningSpec) else (job, job.envelope)
        check_service_rules(spec, envelope, region)
    return pools


def _check_tuning(job: TuningSpec, *, is_local: bool) -> list[TrainerPool]:
    """Checks a study, and returns the pools of its boundary trials."""
    runs_trainer = all(trainer_args(pool.program) is not None for pool in job.trial.pools)
    if runs_trainer:
        _check_study(job.study)
    _check_pools(job.trial, "trialJobSpec.", is_tuning=True, is_local=is_local)
    return _check_trials(job) if runs_trainer else []


def _check_pools(job: JobSpec, prefix: str, *, is_tuning: bool, is_local: bool) -> None:
    job_dir = None
    trainer_pools = [pool for pool in job.pools if trainer_args(pool.program) is not None]
    if not is_local:
        _check_restart_of_machines(job, trainer_pools, f"{prefix}scheduling")
    for pool in job.pools:
        args = trainer_args(pool.program)
        if args is None:
            continue
        if pool.role == "evaluator":
            problem = "is an evaluator, but the machines that train evaluate; remove this pool."
            fail(f"{prefix}workerPoolSpecs[{pool.index}]", problem)
        path = _args_path(pool, prefix)
        flags, switches = parse_flags(args, path)
        if not is_local:
            _check_accelerator(pool, f"{prefix}workerPoolSpecs[{pool.index}].machineSpec")
            _check_restart(job, flags, path)
        if switches["dry_run"]:
            fail(path, "has --dry_run, which trains nothing; remove it.")
        pool_job_dir = flags.get("job_dir")
        if is_tuning and pool_job_dir is not None:
            fail(path, "has --job_dir, to which all trials would write; replace it with baseOutputDirectory.")
        if pool.role == "chief" and pool_job_dir is not None:
            job_dir = pool_job_dir
            if not is_local and not is_remote(without_mount(job_dir)):
                fail(path, f"has --job_dir={job_dir}, which is lost with the machine; give gs://BUCKET/NAME.")
            check_output_folder(job_dir, f"{path}, --job_dir")
    if job.base_output_uri is not None:
        check_output_folder(job.base_output_uri, f"{prefix}baseOutputDirectory.outputUriPrefix")
    # A local study writes its own files to the folder, whatever its trials run.
    loses_results = is_tuning if is_local else bool(trainer_pools)
    if job.base_output_uri is None and job_dir is None and loses_results:
        alternative = "" if is_tuning else ", or add --job_dir=gs://BUCKET/NAME to the args"
        fail(f"{prefix}baseOutputDirectory", f"is missing, so the results would be lost; give it{alternative}.")


def _check_accelerator(pool: Pool, path: str) -> None:
    """Rejects TPUs, which TensorFlow's packages for CPUs and NVIDIA GPUs cannot use."""
    for type_name in filter(None, (pool.accelerator_type, pool.machine_type)):
        if is_tpu(type_name):
            fail(path, f"requests {type_name}, which the trainer cannot use; give an NVIDIA GPU or no accelerator.")


def _check_restart(job: JobSpec, flags: Mapping[str, Any], path: str) -> None:
    if flags.get("resume") == Resume.NEVER and not job.scheduling.disable_retries:
        fail(
            path,
            "has --resume=never, so a restarted job would reject its own checkpoints; remove it, or set "
            "scheduling.disableRetries.",
        )


def _check_restart_of_machines(job: JobSpec, trainer_pools: Sequence[Pool], path: str) -> None:
    """Rejects several machines that train if one of them would restart alone, while the others wait for it."""
    count, scheduling = sum(pool.replica_count for pool in trainer_pools), job.scheduling
    if count > 1 and not scheduling.restart_job_on_worker_restart and not scheduling.disable_retries:
        fail(
            path,
            f"has no restartJobOnWorkerRestart, so if one of the {count} machines restarts, the others wait for it and "
            "are billed; write restartJobOnWorkerRestart: true.",
        )


def _check_trainer_args(job: JobSpec, prefix: str, trial: Mapping[str, Value]) -> list[TrainerPool]:
    """Checks the args of every pool that runs the trainer, and that the pools can train together.

    Args:
        job: Job with at least one pool that runs the trainer.
        prefix: Path to the job in the file, with its dot.
        trial: Parameters that follow the args of each pool.

    Returns:
        The pools that run the trainer.
    """
    flags, trainer_pools = [f"--{name}={value}" for name, value in trial.items()], []
    for pool in job.pools:
        args, path = trainer_args(pool.program), _args_path(pool, prefix)
        if args is not None:
            path += f" with {' '.join(flags)}" if flags else ""
            parsed = check_args([*args, *flags], path, is_trial=bool(trial))
            trainer_pools.append(TrainerPool(pool=pool, args=parsed, path=path))
    if len(trainer_pools) == len([pool for pool in job.pools if pool.role != "evaluator"]):
        check_consistency(trainer_pools)
    return trainer_pools


def _args_path(pool: Pool, prefix: str) -> str:
    program = "pythonPackageSpec" if isinstance(pool.program, PythonPackage) else "containerSpec"
    return f"{prefix}workerPoolSpecs[{pool.index}].{program}.args"


def _check_study(study: StudySpec) -> None:
    """Checks the metrics and the parameters of a study."""
    goals = {name: goal for suite in SUITES.names() for name, goal in SUITES[suite].goals.items()}
    for number, metric in enumerate(study.metrics):
        path = f"studySpec.metrics[{number}]"
        if metric.metric_id not in goals:
            advice = did_you_mean(metric.metric_id, goals, f"known metrics are {', '.join(goals)}.")
            fail(f"{path}.metricId", f"is {metric.metric_id!r}, which the trainer does not report; {advice}")
        goal = goals[metric.metric_id]
        if metric.goal != goal:
            best = "smallest" if goal == "MINIMIZE" else "greatest"
            fail(f"{path}.goal", f"is {metric.goal}, but the {best} {metric.metric_id} is the best; write {goal}.")
    for parameter in study.all_parameters():
        _check_parameter(parameter)


def _check_trials(job: TuningSpec) -> list[TrainerPool]:
    """Rejects a study if a boundary trial would fail or would not report the study's metrics.

    Returns:
        The pools of the boundary trials.
    """
    trainer_pools: list[TrainerPool] = []
    for trial in boundary_trials(job.study.parameters):
        pools = _check_trainer_args(job.trial, "trialJobSpec.", trial)
        _check_reported_metrics(job.study, pools[0])
        trainer_pools += pools
    _check_same_protocol(trainer_pools)
    return trainer_pools


def _check_same_protocol(pools: Sequence[TrainerPool]) -> None:
    """Rejects trials whose metrics have the same names but cannot be compared.

    A custom recipe is not loaded, so only the settings in its args are compared.
    """
    for setting, attribute in (("metrics", "suite"), *((name, name) for name in _METRIC_SETTINGS)):
        paths = {
            getattr(pool.args.config.without_mounts(), attribute): pool.path
            for pool in pools
            if not pool.args.has_custom_recipe or setting in pool.args.flags
        }
        if len(paths) > 1:
            values = " and ".join(f"{setting}={value}" for value in paths)
            fail(
                [*paths.values()][-1],
                f"varies how trials are evaluated, with {values}, whose results cannot be compared; give all trials "
                f"the same --{setting}.",
            )


def _check_reported_metrics(study: StudySpec, chief: TrainerPool) -> None:
    config, has_custom_recipe = chief.args.config, chief.args.has_custom_recipe
    if has_custom_recipe and config.metrics == "auto":
        return  # the suite depends on the recipe's dataset
    model = None if has_custom_recipe else config.model
    with quiet_import():
        from trainer.cloud.jobs import config_checks
    names = config_checks.reported_metrics(config.suite, model, inception_score=config.inception_score)
    settings = f"metrics={config.suite}" + ("" if model is None else f", dataset={config.dataset}, model={model}")
    reported = f"only {', '.join(names)}; name one of these" if names else "nothing; set its --metrics"
    for number, metric in enumerate(study.metrics):
        if metric.metric_id not in names:
            fail(
                f"studySpec.metrics[{number}].metricId",
                f"is {metric.metric_id!r}, but a trial with {settings} reports {reported}, or correct {chief.path}.",
            )


def _check_parameter(parameter: Parameter) -> None:
    """Rejects a parameter that is not a flag of the trainer, or whose values its flag does not accept."""
    settings, name = TrainConfig.__dataclass_fields__, parameter.parameter_id
    path = f"studySpec.parameters, {name}"
    if name not in settings:
        nearest = did_you_mean(name, settings)
        fail(path, f"is not a flag of the trainer; {nearest or 'python -m trainer.task --help lists them.'}")
    if name in ("job_dir", "resume"):
        fail(path, "cannot be varied by a tuning job; remove it.")
    if parameter.kind == "double" and takes_whole_numbers(name):
        fail(path, "takes whole numbers, but its values are doubles; write integerValueSpec.")
    for value in boundary_values(parameter):
        parse_flags([f"--{name}={value}"], path)
