"""Holds a job file against the trainer that it starts: its flags, its output, and what its trials are judged by."""

import re
from collections.abc import Mapping

from trainer.cloud.jobs import boundary_trials
from trainer.cloud.jobs.arguments import ParsedArgs, asked, check_args, trainer_args
from trainer.cloud.jobs.job_spec import JobFile, JobSpec, TuningSpec
from trainer.cloud.jobs.known import REPORTED_METRICS, SMALLER_IS_BETTER, reported
from trainer.cloud.jobs.pool_consistency import Machines, check_together
from trainer.cloud.jobs.schema_validation import fail
from trainer.cloud.jobs.study_spec import Parameter, StudySpec, Value
from trainer.cloud.jobs.worker_pools import Pool, PythonPackage, may_lie_at
from trainer.config import TrainConfig
from trainer.config.flags import takes_whole_numbers
from trainer.registry import did_you_mean
from trainer.storage import without_mount

_TPUS = re.compile(r"TPU_|cloud-tpu|ct\d")
"""Types of accelerators and of machines that TensorFlow's packages for CPUs and NVIDIA's accelerators cannot use."""


def check_job(job: JobFile, *, rehearsal: bool = False) -> list[Machines]:
    """Refuses a job that the trainer would refuse, whose results would be lost, or whose trials would be judged by
    nothing. What a program other than the trainer takes and reports is not known.

    Args:
        job: As `jobspec` read it.
        rehearsal: Whether it is for this machine, where results may lie in local folders.

    Returns:
        The machines that run the trainer; of a study those of trials that it may have.

    Raises:
        ConfigError: The first mistake.
    """
    if not isinstance(job, TuningSpec):
        _check_pools(job, "", is_tuning=False, rehearsal=rehearsal)
        return _check_machines(job, "", {})
    is_known = all(trainer_args(pool.program) is not None for pool in job.trial.pools)
    if is_known:
        _check_study(job.study)
    _check_pools(job.trial, "trialJobSpec.", is_tuning=True, rehearsal=rehearsal)
    return _check_trials(job) if is_known else []


def _check_pools(job: JobSpec, prefix: str, *, is_tuning: bool, rehearsal: bool) -> None:
    job_dir = None
    for pool in job.pools:
        args = trainer_args(pool.program)
        if args is None:
            continue
        if pool.role == "evaluator":
            fail(f"{prefix}workerPoolSpecs[{pool.index}]", "is an evaluator, and the chief evaluates; leave it out.")
        where = _where(pool, prefix)
        some = asked(args, where)
        here = some.config.job_dir
        if not rehearsal:
            _check_accelerator(pool, f"{prefix}workerPoolSpecs[{pool.index}].machineSpec")
            _check_restart(job, some, where)
        if some.is_dry_run:
            fail(where, "has --dry_run, which trains nothing; remove it.")
        if is_tuning and here is not None:
            fail(where, "has --job_dir, to which all trials would write; remove it, and give baseOutputDirectory.")
        if pool.role == "chief" and here is not None:
            job_dir = here
            if not rehearsal and not may_lie_at(without_mount(here), rehearsal):
                fail(where, f"has --job_dir={here}, which is lost with the machine; give gs://BUCKET/NAME.")
    if job.base_output_uri is None and job_dir is None and (is_tuning or not rehearsal):
        cure = "" if is_tuning else ", or --job_dir=gs://BUCKET/NAME among the args"
        fail(f"{prefix}baseOutputDirectory", f"is missing, so that the results would be lost; give it{cure}.")


def _check_accelerator(pool: Pool, where: str) -> None:
    kind = pool.accelerator_type or pool.machine_type
    if _TPUS.match(kind):
        fail(where, f"asks for {kind}, which the trainer would leave idle; give an accelerator of NVIDIA's, or none.")


def _check_restart(job: JobSpec, asked: ParsedArgs, where: str) -> None:
    if asked.config.resume == "never" and not job.scheduling.disable_retries:
        fail(
            where,
            "has --resume=never, with which a job that is started again refuses its own checkpoints; remove it, or "
            "give scheduling.disableRetries.",
        )


def _check_machines(job: JobSpec, prefix: str, trial: Mapping[str, Value]) -> list[Machines]:
    """Refuses names that the trainer does not have, and machines that cannot train together.

    Args:
        job: Of which every pool, or some, run the trainer.
        prefix: The path to it.
        trial: Parameters that come after the args of each pool.

    Returns:
        The machines that run the trainer.
    """
    flags, parts = [f"--{name}={value}" for name, value in trial.items()], []
    for pool in job.pools:
        args, where = trainer_args(pool.program), _where(pool, prefix)
        if args is not None:
            where += f" with {' '.join(flags)}" if flags else ""
            parts.append(Machines(pool=pool, asked=check_args([*args, *flags], where), where=where))
    if len(parts) == len([pool for pool in job.pools if pool.role != "evaluator"]):
        check_together(parts)
    return parts


def _where(pool: Pool, prefix: str) -> str:
    program = "pythonPackageSpec" if isinstance(pool.program, PythonPackage) else "containerSpec"
    return f"{prefix}workerPoolSpecs[{pool.index}].{program}.args"


def _check_study(study: StudySpec) -> None:
    for number, metric in enumerate(study.metrics):
        where = f"studySpec.metrics[{number}]"
        if metric.metric_id not in REPORTED_METRICS:
            advice = did_you_mean(metric.metric_id, REPORTED_METRICS, f"known are {', '.join(REPORTED_METRICS)}.")
            fail(f"{where}.metricId", f"is {metric.metric_id!r}, which the trainer does not report; {advice}")
        best, goal = ("least", "MINIMIZE") if metric.metric_id in SMALLER_IS_BETTER else ("greatest", "MAXIMIZE")
        if metric.goal != goal:
            fail(f"{where}.goal", f"is {metric.goal}, and the best {metric.metric_id} is the {best}; write {goal}.")
    for parameter in study.all_parameters():
        _check_parameter(parameter)


def _check_trials(job: TuningSpec) -> list[Machines]:
    """Refuses a study some of whose trials would fail, or report nothing that they are judged by.

    Returns:
        The machines of the trials that were tried.
    """
    tried: list[Machines] = []
    for trial in boundary_trials.trials(job.study.parameters):
        machines = _check_machines(job.trial, "trialJobSpec.", trial)
        _check_reports(job.study, machines[0])
        tried += machines
    return tried


def _check_reports(study: StudySpec, chief: Machines) -> None:
    config = chief.asked.config
    if chief.asked.has_own_recipe and config.metrics == "auto":
        return  # its data set decides
    model = None if chief.asked.has_own_recipe else config.model
    names, seen = reported(config.suite, model), f"metrics={config.suite}, dataset={config.dataset}, model={model}"
    cure = f"{', '.join(names)} alone; name one of these" if names else "nothing; choose its --metrics"
    for number, metric in enumerate(study.metrics):
        if metric.metric_id not in names:
            fail(
                f"studySpec.metrics[{number}].metricId",
                f"is {metric.metric_id!r}, and a trial with {seen if model else f'metrics={config.suite}'} reports "
                f"{cure}, or correct {chief.where}.",
            )


def _check_parameter(parameter: Parameter) -> None:
    """Refuses a parameter that is no flag, or whose values its flag does not take."""
    known, name = TrainConfig.__dataclass_fields__, parameter.parameter_id
    where = f"studySpec.parameters, {name}"
    if name not in known:
        near = did_you_mean(name, known)
        fail(where, f"is not a flag of the trainer; {near or 'python -m trainer.task --help lists them.'}")
    if name == "job_dir":
        fail(where, "cannot be varied by a tuning job; remove it.")
    if parameter.kind == "double" and takes_whole_numbers(name):
        fail(where, "takes whole numbers, and a double is hardly ever one; write integerValueSpec.")
    for value in boundary_trials.values(parameter):
        asked([f"--{name}={value}"], where)
