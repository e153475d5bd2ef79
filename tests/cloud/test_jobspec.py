"""Parsed job files."""

import datetime

import pytest
from specs import CONTAINER, JOB, LOSS, PACKAGE, POOL, RATE, STUDY, TUNING, UNITS, WIDTH, changed, child

from trainer.cloud.jobs import job_spec
from trainer.cloud.jobs.job_spec import JobSpec, Scheduling, TuningSpec
from trainer.cloud.jobs.study_spec import Metric
from trainer.cloud.jobs.worker_pools import Container, PythonPackage


def test_a_job_is_read():
    worker = POOL | {
        "replicaCount": 3,
        "machineSpec": {"machineType": "g2-standard-24", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2},
        "containerSpec": CONTAINER | {"command": ["python"], "env": [{"name": "A", "value": ""}]},
        "nfsMounts": [{"server": "10.0.0.1", "path": "/x", "mountPoint": "x"}],
        "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 200},
    }
    evaluator = changed(POOL, containerSpec=..., pythonPackageSpec=PACKAGE | {"args": ["--a"]})
    content = {
        "workerPoolSpecs": [POOL, worker, {}, evaluator],
        "baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run/"},
        "scheduling": {"timeout": "3600.5s", "strategy": "FLEX_START", "maxWaitDuration": "0s", "disableRetries": True},
        "serviceAccount": "me@project",
    }
    job = job_spec.parse(content)
    assert isinstance(job, JobSpec) and job.raw == content and job.base_output_uri == "gs://bkt/run"
    assert [(pool.index, pool.role, pool.replica_count) for pool in job.pools] == [
        (0, "chief", 1),
        (1, "worker", 3),
        (3, "evaluator", 1),
    ]
    assert [pool.accelerator_type for pool in job.pools] == [None, "NVIDIA_L4", None]
    assert [pool.accelerator_count for pool in job.pools] == [0, 2, 0]
    assert job.pools[1].machine_type == "g2-standard-24"
    assert job.pools[1].program == Container(command=("python",), args=("--recipe=digits",), env={"A": ""})
    assert job.pools[2].program == PythonPackage(
        package_uris=("gs://bkt/p.tar.gz",),
        python_module="trainer.task",
        args=("--a",),
        env={},
    )
    assert job.scheduling == Scheduling(timeout_secs=3600.5, restart_job_on_worker_restart=False, disable_retries=True)


def test_reduction_servers_are_sent_and_do_not_train():
    gpus = {"machineType": "a2-highgpu-1g", "acceleratorType": "NVIDIA_TESLA_A100", "acceleratorCount": 1}
    trainer = changed(POOL, machineSpec=gpus)
    reducers = changed(POOL, replicaCount=4, containerSpec={"imageUri": "us-docker.pkg.dev/x/reductionserver:latest"})
    content = {"workerPoolSpecs": [trainer, trainer, reducers]}
    job = job_spec.parse(content)
    assert [pool.role for pool in job.pools] == ["chief", "worker"] and job.raw == content


def test_defaults_of_a_job_are_those_of_vertex_ai():
    job = job_spec.parse(JOB)
    assert job.base_output_uri is None
    assert job.scheduling == Scheduling(timeout_secs=None, restart_job_on_worker_restart=False, disable_retries=False)


@pytest.mark.parametrize("name", ["LOW_COST", "ON_DEMAND", "STRATEGY_UNSPECIFIED", "SPOT"])
def test_every_strategy_is_accepted(name):
    content = JOB | {"scheduling": {"strategy": name}}
    assert job_spec.parse(content).raw == content


def test_an_accelerator_that_is_unspecified_is_none():
    spec = {"machineType": "n1", "acceleratorType": "ACCELERATOR_TYPE_UNSPECIFIED"}
    assert job_spec.parse(changed(JOB, workerPoolSpecs__0__machineSpec=spec)).pools[0].accelerator_type is None


def test_a_tuning_job_is_read():
    loss = LOSS | {
        "conditionalParameterSpecs": [
            child("parentCategoricalValues", ["wasserstein"], changed(RATE, parameterId="weight")),
            child("parentCategoricalValues", ["hinge"], changed(UNITS, parameterId="weight")),
        ]
    }
    study = STUDY | {
        "parameters": [RATE | {"scaleType": "UNIT_LOG_SCALE"}, UNITS, WIDTH, loss],
        "algorithm": "ALGORITHM_UNSPECIFIED",
        "measurementSelectionType": "BEST_MEASUREMENT",
        "medianAutomatedStoppingSpec": {},
        "studyStoppingConfig": {"maxNumTrials": 3, "maximumRuntimeConstraint": {"maxDuration": "60s"}},
    }
    content = TUNING | {"studySpec": study, "displayName": "gan", "labels": {"a": "b"}, "maxFailedTrialCount": 1}
    job = job_spec.parse(content)
    assert isinstance(job, TuningSpec) and job.raw == content and job.study.raw == study and job.trial.raw == JOB
    assert job.display_name == "gan" and job.trial.pools[0].role == "chief"
    assert (job.max_trial_count, job.parallel_trial_count, job.max_failed_trial_count) == (4, 2, 1)
    assert job.study.metrics == (Metric(metric_id="frechet", goal="MINIMIZE"),)
    assert (job.study.algorithm, job.study.measurement_selection, job.study.early_stopping) == (
        None,
        "BEST_MEASUREMENT",
        "median",
    )
    parameters = [(one.parameter_id, one.kind, one.bounds, one.values, one.scale) for one in job.study.all_parameters()]
    assert parameters == [
        ("rate", "double", (1, 2), (), "log"),
        ("units", "integer", (1, 9), (), "linear"),
        ("width", "discrete", None, (0.5, 1), "linear"),
        ("loss", "categorical", None, ("hinge", "wasserstein"), "linear"),
        ("weight", "double", (1, 2), (), "linear"),
        ("weight", "integer", (1, 9), (), "linear"),
    ]
    assert [one.parent_values for one in job.study.parameters[3].children] == [("wasserstein",), ("hinge",)]


def test_defaults_of_a_study_are_those_of_vertex_ai():
    study = job_spec.parse(TUNING).study
    assert (study.algorithm, study.measurement_selection, study.early_stopping) == (None, "LAST_MEASUREMENT", None)
    assert job_spec.parse(TUNING).max_failed_trial_count == 0 and job_spec.parse(TUNING).display_name is None


@pytest.mark.parametrize("kind", ["decay_curve", "convex"])
def test_other_stopping_rules_are_named(kind):
    key = {"decay_curve": "decayCurveStoppingSpec", "convex": "convexAutomatedStoppingSpec"}[kind]
    assert job_spec.parse(changed(TUNING, **{f"studySpec__{key}": {}})).study.early_stopping == kind


def test_parameters_check_their_values():
    rate, units, width, loss = job_spec.parse(TUNING).study.parameters
    assert rate.allows(1) and rate.allows(2.0) and not rate.allows(2.1) and not rate.allows("1")
    assert units.allows(9) and not units.allows(10) and not units.allows(1.5)
    assert width.allows(0.5) and not width.allows(0.7) and loss.allows("hinge") and not loss.allows("Hinge")


def test_children_of_every_kind_of_parent_are_read():
    parameters = [
        UNITS | {"conditionalParameterSpecs": [child("parentIntValues", [1, 9], changed(RATE, parameterId="a"))]},
        WIDTH | {"conditionalParameterSpecs": [child("parentDiscreteValues", [1], changed(RATE, parameterId="b"))]},
    ]
    study = job_spec.parse(changed(TUNING, studySpec__parameters=parameters)).study
    assert [parameter.parameter_id for parameter in study.all_parameters()] == ["units", "a", "width", "b"]


def test_children_have_children():
    leaf = child("parentIntValues", [2], changed(RATE, parameterId="leaf"))
    middle = changed(UNITS, parameterId="middle") | {"conditionalParameterSpecs": [leaf]}
    loss = LOSS | {"conditionalParameterSpecs": [child("parentCategoricalValues", ["hinge"], middle)]}
    (found,) = job_spec.parse(changed(TUNING, studySpec__parameters=[loss])).study.parameters
    assert [one.parameter_id for one in found.walk()] == ["loss", "middle", "leaf"]
    assert found.children[0].parameter.children[0].parent_values == (2,)


def test_numbers_and_times_are_normalized():
    noon = datetime.datetime(2026, 1, 31, 13, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    job = job_spec.parse(
        changed(
            TUNING,
            maxTrialCount=4.0,
            parallelTrialCount="2",
            studySpec__parameters__0__doubleValueSpec__minValue="1e-5",
            studySpec__studyStoppingConfig={"maximumRuntimeConstraint": {"endTime": noon}},
        )
    )
    assert (repr(job.raw["maxTrialCount"]), job.raw["parallelTrialCount"]) == ("4", 2)
    assert job.study.parameters[0].bounds == (1e-5, 2)
    assert job.study.raw["studyStoppingConfig"] == {"maximumRuntimeConstraint": {"endTime": "2026-01-31T12:00:00Z"}}
