"""Refused job files: exit code 2 and one line that names the key or the flag and its value, before anything starts."""

import subprocess

import pytest
import yaml
from refusals import check_command_refusal
from specs import CONTAINER, JOB, PACKAGE, POOL, SEED, STUDY, TUNING, changed, child, parameter, pool

from trainer.cli import local, submit
from trainer.cloud.jobs import job_spec
from trainer.cloud.vertex import client
from trainer.errors import ConfigError

OUTPUT = {"baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run"}}
RIGHT = JOB | OUTPUT
GPU = {"machineType": "n1", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
L4 = {"acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
PLACE_OF_MACHINE = "workerPoolSpecs[0].machineSpec"
TWO_GPUS = GPU | {"acceleratorCount": 2}
CPU = POOL["machineSpec"]
REDUCERS = changed(
    POOL, containerSpec={"imageUri": "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"}
)
CHIEF, WORKERS = "workerPoolSpecs[0].containerSpec.args", "workerPoolSpecs[1].containerSpec.args"
TRIAL = f"trialJobSpec.{CHIEF}"
MINIMIZE_FRECHET = ({"metricId": "frechet", "goal": "MINIMIZE"},)


def job(*pools, **changes):
    """Returns the content of a file with these pools, which restart together, and an output folder."""
    content = RIGHT | {"scheduling": {"restartJobOnWorkerRestart": True}}
    return changed(content, workerPoolSpecs=list(pools), **changes)


def machine(**changes):
    return job(pool(machine=changed(GPU, **changes)))


EPOCHS = parameter("epochs", "integer", minValue=1, maxValue=2)


def study(*parameters, args=(), machine=CPU, metrics=MINIMIZE_FRECHET):
    """Returns the content of a file with a study whose trials run the trainer with these args."""
    trial = job(pool(*args, machine=machine))
    return changed(TUNING, trialJobSpec=trial, studySpec__parameters=list(parameters), studySpec__metrics=list(metrics))


def of_study(**changes):
    """Returns the small tuning job with changes under its studySpec."""
    return changed(TUNING, **{f"studySpec__{key}": value for key, value in changes.items()})


def stopping(text):
    """Returns the YAML of a tuning job in whose studyStoppingConfig a whole number is written as `text`."""
    return f"studySpec:\n  studyStoppingConfig: {{minNumTrials: {text}}}\nmaxTrialCount: 1\n"


BOTH_KINDS = ("CustomJobSpec", "HyperparameterTuningJob")
FILES = [
    ("empty_file", "# nothing", BOTH_KINDS),
    ("list_of_jobs", [JOB], BOTH_KINDS),
    ("unclosed_list", "a: [1", ("job.yaml", "YAML")),
    ("two_documents", "a: 1\n---\nb: 2", ("job.yaml", "YAML")),
    ("bytes_that_are_no_text", b"\xff\xfe\x00", ("job.yaml", "YAML")),
    ("python_object", "!!python/object:os.system {}", ("job.yaml", "YAML")),
    ("tab", "\ta: 1", ("job.yaml", "YAML")),
    ("key_twice", "containerSpec: {a: 1}\nb: 1\ncontainerSpec: {a: 2}\n", ("job.yaml", "containerSpec", "3")),
    ("list_in_itself", "a: &a [*a]", ("job.yaml",)),
    ("object_in_itself", "a: &a {b: 1, c: *a}", ("job.yaml",)),
    ("deep_nesting", "a: " + "[" * 3000, ("job.yaml",)),
    *(
        (f"value_of_another_type_{value[:12]}", stopping(value), ("minNumTrials", value.split()[-1][:60]))
        for value in ("2026-02-30T12:00:00Z", "2026-01-01T00:00:00+99:00", "0b_", "!!bool x", "9" * 5000)
    ),
]
MESSAGES = [
    ("mistake_in_a_whole_job", {"displayName": "x", "jobSpec": JOB | {"network": 5}}, ("jobSpec.network", "5")),
    ("whole_job_with_its_state", {"jobSpec": JOB, "state": "JOB_STATE_FAILED"}, ("state",)),
    ("whole_job_without_a_spec", {"displayName": "x", "encryptionSpec": {"kmsKeyName": "k"}}, ("jobSpec",)),
    ("snake_case_of_a_whole_job", {"display_name": "x", "job_spec": JOB}, ("display_name", "displayName")),
    ("snake_case", {"worker_pool_specs": [POOL]}, ("worker_pool_specs", "workerPoolSpecs")),
    ("snake_case_of_a_study", {"max_trial_count": 3}, ("max_trial_count", "maxTrialCount")),
    (
        "snake_case_inside",
        changed(JOB, workerPoolSpecs__0__machineSpec__accelerator_type="NVIDIA_L4"),
        ("workerPoolSpecs[0].machineSpec.accelerator_type", "acceleratorType"),
    ),
    ("unknown_key", {"workerPoolSpec": [POOL]}, ("workerPoolSpec ", "workerPoolSpecs")),
    (
        "unknown_key_inside",
        changed(JOB, workerPoolSpecs__0__machineSpec__acceleratorTyp="NVIDIA_L4"),
        ("workerPoolSpecs[0].machineSpec.acceleratorTyp ", "acceleratorType"),
    ),
    ("unlike_any_key", changed(JOB, baseOutputDirectory={"x": 1}), ("baseOutputDirectory.x", "outputUriPrefix")),
    ("key_of_a_pool", changed(JOB, replicaCount=1), ("replicaCount", "workerPoolSpecs[")),
    (
        "key_of_a_machine",
        changed(JOB, workerPoolSpecs__0__machineType="n1"),
        ("workerPoolSpecs[0].machineType", "workerPoolSpecs[0].machineSpec"),
    ),
    ("key_of_a_trial", changed(TUNING, workerPoolSpecs=[POOL]), ("workerPoolSpecs", "trialJobSpec")),
    ("key_that_vertex_ai_writes", changed(TUNING, state="JOB_STATE_FAILED"), ("state",)),
    (
        "key_of_vizier",
        of_study(parameters__0__doubleValueSpec__defaultValue=1),
        ("studySpec.parameters[0].doubleValueSpec.defaultValue",),
    ),
    (
        "unknown_accelerator",
        machine(acceleratorType="NVIDIA_TESLA_T5"),
        ("workerPoolSpecs[0].machineSpec.acceleratorType", "NVIDIA_TESLA_T5", "NVIDIA_TESLA_T4"),
    ),
    ("accelerator_in_lower_case", machine(acceleratorType="nvidia-l4"), ("acceleratorType", "nvidia-l4", "NVIDIA_L4")),
    ("number_for_a_word", changed(JOB, scheduling={"strategy": 5}), ("scheduling.strategy", "5", "SPOT")),
    ("list_for_an_object", changed(JOB, scheduling=[]), ("scheduling", "restartJobOnWorkerRestart")),
    ("number_for_a_list", changed(JOB, workerPoolSpecs=3), ("workerPoolSpecs", "3")),
    ("object_for_a_list", changed(JOB, workerPoolSpecs=POOL), ("workerPoolSpecs",)),
    ("no_value", changed(JOB, serviceAccount=None), ("serviceAccount",)),
    ("number_for_text", changed(JOB, network=5), ("network", "5")),
    ("text_for_a_flag", changed(JOB, enableWebAccess="yes"), ("enableWebAccess", "yes")),
    (
        "flag_for_text",
        changed(JOB, workerPoolSpecs__0__containerSpec__args__1=True),
        ("workerPoolSpecs[0].containerSpec.args[1]", "true"),
    ),
    ("numbers_for_labels", changed(TUNING, labels={"a": 1}), ("labels",)),
    *(
        (
            f"replica_count_{value}",
            changed(JOB, workerPoolSpecs__0__replicaCount=value),
            ("workerPoolSpecs[0].replicaCount", str(value).lower()),
        )
        for value in ("two", 1.5, True, 0)
    ),
    ("number_of_seconds", changed(JOB, scheduling={"timeout": 3600}), ("scheduling.timeout", "3600s")),
    ("hours", changed(JOB, scheduling={"maxWaitDuration": "1h"}), ("scheduling.maxWaitDuration", "1h")),
    (
        "too_many_seconds",
        changed(JOB, scheduling={"timeout": "99999999999999s"}),
        ("scheduling.timeout", "99999999999999s", "315576000000s"),
    ),
    (
        "more_than_64_bits",
        changed(JOB, workerPoolSpecs__1=POOL | {"replicaCount": 2**63}),
        ("workerPoolSpecs[1].replicaCount", str(2**63), str(2**63 - 1)),
    ),
    ("more_than_32_bits", machine(acceleratorCount="2147483648"), ("acceleratorCount", "2147483648", "2147483647")),
    (
        "less_than_64_bits",
        changed(JOB, workerPoolSpecs__0__replicaCount=-(10**400)),
        ("workerPoolSpecs[0].replicaCount", "-1000", str(1 - 2**63)),
    ),
    (
        "more_than_a_double",
        of_study(parameters__0__doubleValueSpec__maxValue=10**400),
        ("studySpec.parameters[0].doubleValueSpec.maxValue", "1000", "1.7976931348623157e+308"),
    ),
    (
        "infinity",
        of_study(parameters__0__doubleValueSpec__maxValue=float("inf")),
        ("studySpec.parameters[0].doubleValueSpec.maxValue", "inf"),
    ),
    *(
        (
            f"no_moment_{moment}",
            of_study(studyStoppingConfig={"maximumRuntimeConstraint": {"endTime": moment}}),
            ("studySpec.studyStoppingConfig.maximumRuntimeConstraint.endTime", moment),
        )
        for moment in (
            "tomorrow",
            "2026-02-30T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00.1234567891Z",
            "0001-01-01T00:00:00+01:00",
            "2026-01-31T12:00:00+24:00",
        )
    ),
]
JOBS = [
    ("no_pools", {"network": "x"}, ("workerPoolSpecs",)),
    ("no_keys", {}, ("workerPoolSpecs",)),
    ("empty_list_of_pools", {"workerPoolSpecs": []}, ("workerPoolSpecs",)),
    ("empty_chief", {"workerPoolSpecs": [{}, POOL]}, ("workerPoolSpecs[0]",)),
    ("no_machine", changed(JOB, workerPoolSpecs__0__machineSpec=...), ("workerPoolSpecs[0].machineSpec",)),
    ("empty_machine", job(pool(machine={})), ("workerPoolSpecs[0].machineSpec.machineType",)),
    ("no_replica_count", changed(JOB, workerPoolSpecs__0__replicaCount=...), ("workerPoolSpecs[0].replicaCount",)),
    (
        "empty_image",
        changed(JOB, workerPoolSpecs__0__containerSpec__imageUri=""),
        ("workerPoolSpecs[0].containerSpec.imageUri",),
    ),
    (
        "no_program",
        changed(JOB, workerPoolSpecs__0__containerSpec=...),
        ("workerPoolSpecs[0]", "containerSpec", "pythonPackageSpec"),
    ),
    (
        "two_programs",
        changed(JOB, workerPoolSpecs__0__pythonPackageSpec=PACKAGE),
        ("workerPoolSpecs[0]", "containerSpec", "pythonPackageSpec"),
    ),
    ("two_chiefs", job(pool(count=2)), ("workerPoolSpecs[0].replicaCount", "2", "workerPoolSpecs[1]")),
    ("pool_of_no_machine", job(POOL, pool(count=0)), ("workerPoolSpecs[1].replicaCount", "0", "{}")),
    ("parameter_servers", {"workerPoolSpecs": [POOL, {}, POOL]}, ("workerPoolSpecs[2]", "{}")),
    ("reducers_of_one", {"workerPoolSpecs": [POOL, {}, REDUCERS]}, ("workerPoolSpecs[2]", "{}")),
    ("five_pools", {"workerPoolSpecs": [POOL, {}, {}, {}, {}]}, ("workerPoolSpecs", "5")),
    ("no_accelerator_count", machine(acceleratorCount=...), ("acceleratorType", "NVIDIA_L4", "acceleratorCount")),
    ("no_accelerator_type", machine(acceleratorType=...), ("acceleratorCount", "1", "acceleratorType")),
    *(
        (
            f"output_folder_{path}",
            changed(RIGHT, baseOutputDirectory__outputUriPrefix=path),
            ("baseOutputDirectory.outputUriPrefix", path),
        )
        for path in ("/runs", "gs://", "s3://b/x")
    ),
    (
        "variable_twice",
        changed(JOB, workerPoolSpecs__0__containerSpec__env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        ("workerPoolSpecs[0].containerSpec.env[1]", "A"),
    ),
    (
        "variable_without_value",
        changed(JOB, workerPoolSpecs__0__containerSpec__env=[{"name": "A"}]),
        ("workerPoolSpecs[0].containerSpec.env[0].value",),
    ),
    (
        "restarts_and_no_retries",
        changed(JOB, scheduling={"restartJobOnWorkerRestart": True, "disableRetries": True}),
        ("scheduling", "restartJobOnWorkerRestart", "disableRetries"),
    ),
]
LEAF = parameter("leaf", "integer", minValue=1, maxValue=2)
ON_HINGE = child("parentCategoricalValues", ["hinge"], LEAF)
CHILDREN = "conditionalParameterSpecs"


def conditional(number, *children):
    return of_study(**{f"parameters__{number}__{CHILDREN}": list(children)})


STUDIES = [
    ("no_trial_count", changed(TUNING, maxTrialCount=...), ("maxTrialCount",)),
    ("no_parallel_trials", changed(TUNING, parallelTrialCount=0), ("parallelTrialCount", "0")),
    (
        "fewer_trials_than_in_parallel",
        changed(TUNING, maxTrialCount=1),
        ("maxTrialCount", "1", "parallelTrialCount", "2"),
    ),
    ("negative_failures", changed(TUNING, maxFailedTrialCount=-1), ("maxFailedTrialCount", "-1")),
    (
        "two_chiefs_of_a_trial",
        changed(TUNING, trialJobSpec__workerPoolSpecs__0__replicaCount=2),
        ("trialJobSpec.workerPoolSpecs[0].replicaCount", "2", "trialJobSpec.workerPoolSpecs[1]"),
    ),
    ("no_metrics", of_study(metrics=[]), ("studySpec.metrics",)),
    ("no_goal", of_study(metrics__0__goal=...), ("studySpec.metrics[0].goal", "MAXIMIZE", "MINIMIZE")),
    (
        "unspecified_goal",
        of_study(metrics__0__goal="GOAL_TYPE_UNSPECIFIED"),
        ("studySpec.metrics[0].goal", "GOAL_TYPE_UNSPECIFIED", "MINIMIZE", "MAXIMIZE"),
    ),
    ("misspelled_goal", of_study(metrics__0__goal="minimize"), ("studySpec.metrics[0].goal", "minimize", "MINIMIZE")),
    ("metric_twice", of_study(metrics__1=STUDY["metrics"][0]), ("studySpec.metrics", "frechet")),
    (
        "two_stopping_rules",
        of_study(medianAutomatedStoppingSpec={}, decayCurveStoppingSpec={}),
        ("studySpec", "decayCurveStoppingSpec", "medianAutomatedStoppingSpec"),
    ),
    (
        "empty_constraint",
        of_study(studyStoppingConfig={"minimumRuntimeConstraint": {}}),
        ("studySpec.studyStoppingConfig.minimumRuntimeConstraint", "maxDuration", "endTime"),
    ),
    ("grid_of_a_double", of_study(algorithm="GRID_SEARCH"), ("studySpec.algorithm", "GRID_SEARCH", "rate")),
    ("no_parameter_id", of_study(parameters__0__parameterId=...), ("studySpec.parameters[0].parameterId",)),
    (
        "no_values",
        of_study(parameters__0__doubleValueSpec=...),
        ("studySpec.parameters[0]", "doubleValueSpec", "integerValueSpec"),
    ),
    (
        "values_of_two_types",
        of_study(parameters__0__integerValueSpec={"minValue": 1, "maxValue": 2}),
        ("studySpec.parameters[0]", "doubleValueSpec", "integerValueSpec"),
    ),
    (
        "minimum_above_maximum",
        of_study(parameters__0__doubleValueSpec__maxValue=0.5),
        ("studySpec.parameters[0].doubleValueSpec", "minValue", "1", "maxValue", "0.5"),
    ),
    (
        "logarithm_of_zero",
        of_study(parameters__0__scaleType="UNIT_LOG_SCALE", parameters__0__doubleValueSpec__minValue=0),
        ("studySpec.parameters[0].doubleValueSpec", "0"),
    ),
    (
        "logarithm_of_a_negative_number",
        of_study(parameters__2__scaleType="UNIT_REVERSE_LOG_SCALE", parameters__2__discreteValueSpec__values=[-1, 1]),
        ("studySpec.parameters[2].discreteValueSpec", "-1"),
    ),
    (
        "descending_values",
        of_study(parameters__2__discreteValueSpec__values=[1, 0.5]),
        ("studySpec.parameters[2].discreteValueSpec.values", "1, 0.5"),
    ),
    (
        "no_categories",
        of_study(parameters__3__categoricalValueSpec__values=[]),
        ("studySpec.parameters[3].categoricalValueSpec.values",),
    ),
    (
        "category_twice",
        of_study(parameters__3__categoricalValueSpec__values=["a", "a"]),
        ("studySpec.parameters[3].categoricalValueSpec.values", "a, a"),
    ),
    (
        "category_that_is_no_text",
        of_study(parameters__3__categoricalValueSpec__values=[True, False]),
        ("studySpec.parameters[3].categoricalValueSpec.values[0]", "true"),
    ),
    (
        "scale_of_categories",
        of_study(parameters__3__scaleType="UNIT_LINEAR_SCALE"),
        ("studySpec.parameters[3].scaleType",),
    ),
    ("parameter_twice", of_study(parameters__4=STUDY["parameters"][0]), ("studySpec.parameters", "rate")),
    (
        "child_of_no_category",
        conditional(3, child("parentCategoricalValues", ["hing"], LEAF)),
        (f"studySpec.parameters[3].{CHILDREN}[0].parentCategoricalValues", "hing,", "loss", "hinge"),
    ),
    (
        "child_of_no_whole_number",
        conditional(1, child("parentIntValues", [1, 10], LEAF)),
        (f"studySpec.parameters[1].{CHILDREN}[0].parentIntValues", "10", "units", "9"),
    ),
    (
        "child_of_another_type",
        conditional(2, child("parentIntValues", [1], LEAF)),
        (f"studySpec.parameters[2].{CHILDREN}[0].parentIntValues", "width", "parentDiscreteValues"),
    ),
    (
        "child_of_a_double",
        conditional(0, child("parentDiscreteValues", [1], LEAF)),
        (f"studySpec.parameters[0].{CHILDREN}[0] ", "rate"),
    ),
    (
        "child_of_nothing",
        conditional(3, {"parameterSpec": LEAF}),
        (f"studySpec.parameters[3].{CHILDREN}[0]", "parentCategoricalValues"),
    ),
    (
        "child_without_a_parameter",
        conditional(3, {"parentCategoricalValues": {"values": ["hinge"]}}),
        (f"studySpec.parameters[3].{CHILDREN}[0].parameterSpec",),
    ),
    (
        "mistake_in_a_child",
        conditional(3, changed(ON_HINGE, parameterSpec__integerValueSpec__maxValue=0)),
        (f"studySpec.parameters[3].{CHILDREN}[0].parameterSpec.integerValueSpec", "minValue", "maxValue"),
    ),
    ("child_twice", conditional(3, ON_HINGE, ON_HINGE), ("studySpec.parameters", "leaf")),
    (
        "child_named_as_its_parent",
        conditional(3, changed(ON_HINGE, parameterSpec__parameterId="loss")),
        ("studySpec.parameters", "loss"),
    ),
    (
        "child_named_as_another_parameter",
        conditional(3, changed(ON_HINGE, parameterSpec__parameterId="units")),
        ("studySpec.parameters", "units"),
    ),
]
ARGS = [
    (" ".join(args), job(pool(*args)), (CHIEF, *mentions))
    for args, mentions in [
        (["--setps=3"], ("setps", "steps")),
        (["--zzzzzz=3"], ("--zzzzzz", "--help")),
        (["digits"], ("digits", "--")),
        (["--steps=many"], ("--steps=many",)),
        (["--steps=2.5"], ("--steps=2.5",)),
        (["--steps=0"], ("steps=0",)),
        (["--steps"], ("--steps",)),
        (["--model_options=[1]"], ("--model_options=[1]", "JSON")),
        (["--export_model=maybe"], ("--export_model=maybe", "true", "false")),
        (["--dry_run"], ("--dry_run",)),
        (["--recipe=mine:recipe", "--padding=-1"], ("padding=-1",)),
        (["--recipe=vanila"], ("'vanila'", "vanilla")),
        (["--loss=wassertein"], ("'wassertein'", "wasserstein")),
        (["--architecture=dcgn"], ("'dcgn'", "dcgan")),
        (["--penalties=r1,r3"], ("'r3'", "r2")),
        (["--augment=adda"], ("'adda'", "ada")),
        (["--architecture=resnet"], ("generator_strides", "resnet")),
        (["--recipe=acgan", '--model_options={"clas_weight": 2}'], ("clas_weight", "acgan")),
        (["--steps=3", "--epochs=2"], ("steps=3", "epochs=2")),
        (["--model=cyclegan"], ("model=cyclegan", "dataset_b=None")),
        (["--dataset_b=digits"], ("model=conditional", "dataset_b=digits")),
        (["--recipe=cyclegan", "--balance_classes"], ("balance_classes",)),
        (["--recipe=cyclegan", "--architecture=mlp"], ("model=cyclegan", "architecture")),
        (["--model=fastgan"], ("model=fastgan", "architecture=dcgan", "one of fastgan.")),
        (["--model=stylegan2"], ("model=stylegan2", "architecture=dcgan", "one of stylegan2.")),
        (["--recipe=infogan", "--architecture=stylegan2", "--architecture_options={}"], ("model=infogan", "stylegan2")),
        (["--metrics=cycle"], ("metrics=cycle", "model=conditional")),
        (
            ["--discriminator_repeats=2"],
            ("discriminator_repeats=2", "discriminator_updates=together", "update_order"),
        ),
        (["--recipe=gan_rmsprop", "--penalties=r1"], ("penalties", "discriminator_updates=together")),
        (
            ["--recipe=fastgan", "--dataset=gs://bkt/x", "--discriminator_updates=separate"],
            ("discriminator_updates=separate", "model=fastgan"),
        ),
        (["--recipe=two_phase", "--loss=relativistic"], ("discriminator_updates=separate", "loss")),
        (["--recipe=r3gan_digits", "--augment=ada", "--augment_probability=none"], ("augment_probability=None",)),
        (["--strategy=multi_worker"], ("strategy=multi_worker", "mirrored", "one_device")),
        (["--resume=never"], ("--resume=never", "scheduling.disableRetries")),
        (["--job_dir=runs/x"], ("--job_dir=runs/x", "gs://BUCKET/NAME")),
        (["--job_dir=gs://"], ("--job_dir", "'gs://'", "gs://BUCKET/NAME")),
        (["--init_from=gs://My_Bucket/x"], ("gs://My_Bucket/x",)),
        (["--init_from=runs/x"], ("--init_from=runs/x", "gs://BUCKET/RUN")),
        (["--init_from=/runs/x@4"], ("--init_from=/runs/x@4", "gs://BUCKET/RUN")),
        (["--init_from=~/runs/x"], ("--init_from=~/runs/x", "gs://BUCKET/RUN")),
        (["--recipe=mine:own", "--init_from=runs/x"], ("--init_from=runs/x", "gs://BUCKET/RUN")),
        (["--init_from=s3://b/x"], ("s3://b/x",)),
        (["--job_dir=gs://bkt/x", "--init_from=gs://bkt/x@4"], ("init_from=gs://bkt/x@4", "job_dir=gs://bkt/x")),
        (["--freeze_discriminator_layers=2"], ("freeze_discriminator_layers=2", "init_from")),
        (["--recipe=dcgan", "--penalty_weight=5"], ("penalty_weight=5", "penalties")),
        (
            ["--recipe=photos", "--dataset=gs://bkt/x", "--learning_rate_decay=none", "--learning_rate_end=1e-5"],
            ("learning_rate_end", "learning_rate_decay"),
        ),
    ]
]
MACHINES = [
    ("no_output_folder", JOB, ("baseOutputDirectory", "--job_dir")),
    ("evaluator", job(pool(), {}, {}, pool()), ("workerPoolSpecs[3]",)),
    *(
        (f"lease_on_several_machines_{number}", job(*pools), (path, "--wait_for_lease"))
        for number, (pools, path) in enumerate(
            [
                ((pool("--wait_for_lease"), pool("--wait_for_lease", count=2)), CHIEF),
                ((pool(), pool("--wait_for_lease")), WORKERS),
            ]
        )
    ),
    *(
        (f"machines_with_{chief}_and_{worker}", job(pool(*chief), pool(*worker)), (WORKERS, *mentions))
        for chief, worker, mentions in [
            (["--recipe=dcgan"], [], ("recipe=digits", "recipe=dcgan")),
            (["--loss=hinge"], [], ("loss=non_saturating", "loss=hinge")),
            (["--seed=1"], ["--seed=2"], ("seed=2", "seed=1")),
            (["--steps=10"], ["--steps=20"], ("steps=20", "steps=10")),
            (["--dataset=gs://bkt/x"], ["--dataset=gs://bkt/y"], ("dataset=gs://bkt/y", "dataset=gs://bkt/x")),
            (["--job_dir=gs://bkt/x"], [], ("job_dir=None", "job_dir=gs://bkt/x")),
            (["--recipe=mine:own"], ["--recipe=mine:other"], ("recipe=mine:other", "recipe=mine:own")),
            (["--recipe=mine:own", "--seed=1"], ["--recipe=mine:own", "--seed=2"], ("seed=2", "seed=1")),
        ]
    ),
    *(
        (
            f"batch_of_{batch}_for_{replicas}_replicas_{number}",
            job(*(pool(*args, count=count, machine=machine) for count, machine in pools)),
            (CHIEF, f"global_batch_size={batch}", *nearest),
        )
        for number, (args, pools, batch, replicas, nearest) in enumerate(
            [
                (["--global_batch_size=63"], [(1, TWO_GPUS)], 63, 2, ("62", "64")),
                (["--global_batch_size=100"], [(1, TWO_GPUS), (3, TWO_GPUS)], 100, 8, ("96", "104")),
                (["--global_batch_size=100"], [(1, CPU), (2, CPU)], 100, 3, ("99", "102")),
                (["--recipe=mine:own", "--global_batch_size=9"], [(1, TWO_GPUS)], 9, 2, ("8", "10")),
                (["--global_batch_size=4", "--num_virtual_devices=3"], [(1, CPU)], 4, 3, ("3", "6")),
                (["--recipe=two_phase"], [(1, TWO_GPUS), (3, TWO_GPUS)], 100, 8, ("96", "104")),
                (["--strategy=mirrored", "--global_batch_size=5"], [(1, TWO_GPUS)], 5, 2, ("4", "6")),
            ]
        )
    ),
    *(
        (
            f"{strategy}_on_several_machines",
            job(pool(f"--strategy={strategy}"), pool(f"--strategy={strategy}", count=3)),
            (CHIEF, f"strategy={strategy}", "4"),
        )
        for strategy in ("mirrored", "one_device")
    ),
    ("tpu", machine(acceleratorType="TPU_V3", acceleratorCount=8), ("workerPoolSpecs[0].machineSpec", "TPU_V3")),
    *(
        (f"tpu_{name}", job(pool(machine={"machineType": name})), ("workerPoolSpecs[0].machineSpec", name))
        for name in ("cloud-tpu", "ct5lp-hightpu-4t", "ct6e-standard-4t", "tpu7x-standard-4t")
    ),
]
KEY = "projects/my-project/locations/us-central1/keyRings/r/cryptoKeys/k"
SCHEDULED = changed(job(pool(machine={"machineType": "g2-standard-8"} | L4)), scheduling={})
RESERVED = {"reservationAffinityType": "SPECIFIC_RESERVATION"}


def scheduled(**changes):
    """Returns the content of a file for a GPU with these values of `scheduling`."""
    return changed(SCHEDULED, scheduling=changes)


def reserved(content):
    """Returns the content of a file whose first machine is from a specific reservation."""
    affinity = RESERVED | {
        "key": "compute.googleapis.com/reservation-name",
        "values": ["projects/my-project/zones/us-central1-a/reservations/mine"],
    }
    return changed(content, workerPoolSpecs__0__machineSpec__reservationAffinity=affinity)


SERVICE = [
    *(
        (
            f"machine_{name}_{accelerator}_{count}",
            job(pool("--global_batch_size=96", machine=spec)),
            (PLACE_OF_MACHINE, *mentions),
        )
        for name, accelerator, count, mentions in [
            ("g2-standard-24", "NVIDIA_L4", 1, ("g2-standard-24", "2", "g2-standard-8")),
            ("g2-standard-8", None, 0, ("g2-standard-8", "NVIDIA_L4")),
            ("n1-standard-8", "NVIDIA_TESLA_A100", 1, ("NVIDIA_TESLA_A100", "a2-highgpu-1g")),
            ("n1-standard-8", "NVIDIA_TESLA_T4", 3, ("3", "1, 2, 4")),
            ("n1-standard-8", "NVIDIA_TESLA_P100", 1, ("NVIDIA_TESLA_P100", "NVIDIA_TESLA_T4")),
            ("n1-standard-32", "NVIDIA_TESLA_V100", 1, ("n1-standard-32", "12")),
            ("n1-highmem-32", "NVIDIA_TESLA_T4", 1, ("n1-highmem-32", "24")),
            ("n1-highcpu-64", "NVIDIA_TESLA_P4", 2, ("n1-highcpu-64", "48")),
            ("n4-highmem-8", "NVIDIA_TESLA_T4", 1, ("n4-highmem-8", "n1-standard-8")),
            ("g4-standard-96", "NVIDIA_RTX_PRO_6000", 1, ("g4-standard-96", "2", "g4-standard-48")),
            ("n2-standard-8", "NVIDIA_L4", 1, ("n2-standard-8", "NVIDIA_L4", "g2-standard-8")),
            ("a2-highgpu-1g", "NVIDIA_A100_80GB", 1, ("NVIDIA_TESLA_A100", "a2-ultragpu-1g")),
            ("a3-highgpu-8g", None, 0, ("a3-highgpu-8g", "NVIDIA_H100_80GB", "8")),
            ("a4-highgpu-8g", "NVIDIA_B200", 4, ("a4-highgpu-8g", "8")),
        ]
        for spec in [
            {"machineType": name} | ({"acceleratorType": accelerator, "acceleratorCount": count} if accelerator else {})
        ]
    ),
    ("flex_start_on_a_cpu", RIGHT | {"scheduling": {"strategy": "FLEX_START"}}, ("scheduling.strategy", "FLEX_START")),
    ("flex_start_of_8_days", scheduled(strategy="FLEX_START", timeout="691200s"), ("scheduling.timeout", "691200s")),
    ("no_time", scheduled(timeout="0s"), ("scheduling.timeout", "0s")),
    ("no_time_in_nanoseconds", scheduled(timeout="0.0s"), ("scheduling.timeout", "0.0s")),
    (
        "flex_start_of_two_machines",
        changed(
            scheduled(strategy="FLEX_START", restartJobOnWorkerRestart=True),
            workerPoolSpecs__1=changed(SCHEDULED["workerPoolSpecs"][0], machineSpec__machineType="g2-standard-12"),
        ),
        ("scheduling.strategy", "FLEX_START"),
    ),
    *(
        (f"{strategy}_of_a_reservation", reserved(scheduled(strategy=strategy)), ("scheduling.strategy", strategy))
        for strategy in ("SPOT", "LOW_COST", "FLEX_START")
    ),
    (
        "persistent_resource_of_a_reservation",
        reserved(SCHEDULED | {"persistentResourceId": "mine"}),
        ("persistentResourceId", "mine"),
    ),
    (
        "reservation_without_a_name",
        changed(SCHEDULED, workerPoolSpecs__0__machineSpec__reservationAffinity=RESERVED),
        ("reservationAffinity", "compute.googleapis.com/reservation-name"),
    ),
    *(
        (
            f"disk_{key}_{value}",
            changed(RIGHT, workerPoolSpecs__0__diskSpec={key: value}),
            (f"diskSpec.{key}", str(value)),
        )
        for key, value in [
            ("bootDiskSizeGb", -5),
            ("bootDiskSizeGb", 10),
            ("bootDiskSizeGb", 64_001),
            ("bootDiskType", "ssd"),
        ]
    ),
    *(
        (f"image_{image}", changed(RIGHT, workerPoolSpecs__0__containerSpec__imageUri=image), ("imageUri", image))
        for image in ("my image", "https://pkg.dev/p/r/i", "pkg.dev/p/Repository/i", "pkg.dev/p/r/i:", "i@sha256:12")
    ),
    *(
        (
            f"bucket_{name}",
            changed(RIGHT, baseOutputDirectory__outputUriPrefix=f"gs://{name}/x"),
            ("outputUriPrefix", name),
        )
        for name in (
            *("My_Bucket!", "My-Bucket", "b..x", "google-x", "ab", "192.168.5.4", "b" * 64, f"{'b' * 64}.example"),
        )
    ),
    *(
        (
            f"placeholder_{placeholder}",
            changed(RIGHT, baseOutputDirectory__outputUriPrefix=f"gs://bkt/runs/{placeholder}"),
            ("outputUriPrefix", placeholder),
        )
        for placeholder in ("{jobid}", "{JOB_ID}", "{job_id", "job_id}", "{}", "{run}")
    ),
    ("placeholder_of_the_args", job(pool("--job_dir=gs://bkt/{job_id}")), (CHIEF, "{job_id}", "baseOutputDirectory")),
    (
        "placeholder_of_a_study",
        changed(study(SEED), trialJobSpec__baseOutputDirectory__outputUriPrefix="gs://bkt/{trial}"),
        ("trialJobSpec.baseOutputDirectory.outputUriPrefix", "{trial}"),
    ),
    (
        "long_image",
        changed(RIGHT, workerPoolSpecs__0__containerSpec__imageUri=f"pkg.dev/{'i' * 200_000}"),
        ("imageUri",),
    ),
    (
        "bucket_of_223_letters",
        changed(RIGHT, baseOutputDirectory__outputUriPrefix=f"gs://{'.'.join(['b' * 55] * 4)}/x"),
        ("outputUriPrefix", "222"),
    ),
    ("bucket_of_the_args", job(pool("--job_dir=gs://My-Bucket/x")), (CHIEF, "My-Bucket")),
    ("network", RIGHT | {"network": "default"}, ("network", "'default'", "projects/")),
    (
        "network_of_a_project_id",
        RIGHT | {"network": "projects/my-project/global/networks/default"},
        ("network", "my-project", "PROJECT_NUMBER"),
    ),
    ("account", RIGHT | {"serviceAccount": "me@example.com"}, ("serviceAccount", "me@example.com")),
    ("key", {"jobSpec": RIGHT, "encryptionSpec": {"kmsKeyName": "key"}}, ("encryptionSpec.kmsKeyName", "'key'")),
    (
        "key_elsewhere",
        {"jobSpec": RIGHT, "encryptionSpec": {"kmsKeyName": KEY.replace("us-central1", "europe-west4")}},
        ("encryptionSpec.kmsKeyName", "europe-west4", "us-central1"),
    ),
    ("resource", RIGHT | {"persistentResourceId": "Mine"}, ("persistentResourceId", "'Mine'")),
    (
        "tensorboard_without_an_account",
        RIGHT | {"tensorboard": "projects/my-project/locations/us-central1/tensorboards/1"},
        ("tensorboard", "serviceAccount"),
    ),
    (
        "tensorboard_elsewhere",
        RIGHT | {"tensorboard": "projects/my-project/locations/europe-west4/tensorboards/1"},
        ("tensorboard", "europe-west4", "us-central1"),
    ),
    *(
        (f"label_{name}_{value}", {"jobSpec": RIGHT, "labels": {name: value}}, ("labels", bad))
        for name, value, bad in [
            ("Team", "gan", "Team"),
            ("team", "GAN Team!", "GAN Team!"),
            ("1a", "x", "1a"),
            ("t" * 65, "x", "ttt"),
        ]
    ),
    ("number_for_a_label", {"jobSpec": RIGHT, "labels": {"phase": "x", "team": 1}}, ("labels", "'team'", "1")),
    ("number_for_the_name_of_a_label", {"jobSpec": RIGHT, "labels": {2026: "x"}}, ("labels", "2026")),
    ("many_labels", {"jobSpec": RIGHT, "labels": {f"l{n}": "x" for n in range(65)}}, ("labels", "65", "64")),
    (
        "label_of_a_study",
        study(SEED) | {"labels": {"Team": "x"}},
        ("labels", "Team"),
    ),
    (
        "machine_of_a_study",
        study(SEED, machine={"machineType": "g2-standard-24"} | L4),
        ("trialJobSpec.workerPoolSpecs[0].machineSpec", "g2-standard-24"),
    ),
]
VARIABLES = [
    ("unset", "BUCKET", "gs://${BUCKET}/x", ("${BUCKET}", "--bucket", ".env")),
    ("unknown", "BUKET", "gs://${BUKET}/x", ("${BUKET}", "BUCKET?")),
    ("of_the_environment", "HOME", "gs://bkt/${HOME}", ("${HOME}", "$${NAME}")),
    ("without_a_name", "none", "gs://bkt/${}", ("${}", "PROJECT")),
]
MINIMIZE_KID = [{"metricId": "kid", "goal": "MINIMIZE"}]
METRIC, GOAL = "studySpec.metrics[0].metricId", "studySpec.metrics[0].goal"


def judged_by(metric, *args, goal="MINIMIZE"):
    return study(SEED, args=args, metrics=[{"metricId": metric, "goal": goal}])


PHOTOS = "--dataset=gs://bkt/photos"
TRIALS = [
    ("unknown_metric", judged_by("frechett"), (METRIC, "'frechett'", "frechet?")),
    ("worst_frechet", judged_by("frechet", goal="MAXIMIZE"), (GOAL, "MAXIMIZE", "frechet", "MINIMIZE")),
    ("worst_recall", judged_by("recall"), (GOAL, "MINIMIZE", "recall", "MAXIMIZE")),
    (
        "worst_cycle_error",
        judged_by("cycle_error", "--recipe=cyclegan", goal="MAXIMIZE"),
        (GOAL, "MAXIMIZE", "cycle_error", "MINIMIZE"),
    ),
    *(
        (f"{metric}_of_{' '.join(args)}", judged_by(metric, *args), (METRIC, f"'{metric}'", TRIAL, *mentions))
        for args, metric, mentions in [
            (
                ["--recipe=wgan_gp", PHOTOS],
                "fid",
                ("metrics=photos", "dataset=gs://bkt/photos", "model=gan", "frechet"),
            ),
            (["--recipe=wgan_gp", PHOTOS, "--inception_weights=download"], "frechet", ("metrics=inception", "fid")),
            (["--recipe=wgan_gp", PHOTOS, "--metrics=none"], "frechet", ("metrics=none", "dataset=gs://bkt/photos")),
            (["--recipe=dcgan"], "cycle_error", ("metrics=digits", "dataset=digits", "model=gan", "frechet")),
            (["--recipe=cyclegan"], "frechet", ("metrics=cycle", "model=cyclegan", "cycle_error_a")),
            (["--dataset=stacked:digits", "--recipe=dcgan"], "kid", ("metrics=stacked", "num_modes")),
            (["--recipe=mine:own", "--metrics=none"], "kid", ("metrics=none",)),
        ]
    ),
    (
        "inception_score_that_nobody_asked_for",
        judged_by("inception_score", "--recipe=wgan_gp", PHOTOS, goal="MAXIMIZE"),
        (METRIC, "'inception_score'", TRIAL, "metrics=photos", "dataset=gs://bkt/photos"),
    ),
    (
        "metric_of_some_trials",
        study(SEED, parameter("dataset", "categorical", values=["digits", "stacked:digits"]), metrics=MINIMIZE_KID),
        (METRIC, "'kid'", "metrics=stacked", "dataset=stacked:digits"),
    ),
    (
        "metrics_of_several_suites",
        study(SEED, parameter("dataset", "categorical", values=["digits", "gs://bkt/photos"])),
        (TRIAL, "--metrics", "metrics=photos", "metrics=digits"),
    ),
    (
        "metrics_of_several_numbers_of_samples",
        study(SEED, parameter("num_metric_samples", "discrete", values=[1000, 5000])),
        (TRIAL, "--num_metric_samples", "num_metric_samples=5000", "num_metric_samples=1000"),
    ),
    *(
        (
            f"metrics_of_several_{name}_{number}",
            study(parameter(name, "categorical", values=list(values)), args=args, metrics=metrics),
            (TRIAL, f"--{name}", *values),
        )
        for number, (name, values, args, metrics) in enumerate(
            [
                ("dataset", ("gs://bkt/x", "gs://bkt/y"), ["--recipe=photos"], MINIMIZE_FRECHET),
                ("dataset", ("gs://bkt/x", "gs://bkt/y"), ["--recipe=mine:own"], MINIMIZE_FRECHET),
                ("dataset_b", ("gs://bkt/x", "gs://bkt/y"), ["--recipe=mine:own"], MINIMIZE_FRECHET),
                ("classes", ("1", "2"), ["--recipe=vanilla"], MINIMIZE_FRECHET),
                ("padding", ("0", "2"), ["--recipe=vanilla"], MINIMIZE_FRECHET),
                (
                    "inception_weights",
                    ("gs://bkt/x.pb", "gs://bkt/y.pb"),
                    ["--recipe=wgan_gp", PHOTOS],
                    ({"metricId": "fid", "goal": "MINIMIZE"},),
                ),
            ]
        )
    ),
    (
        "misspelled_parameter",
        study(parameter("generator_learning_rte", "double", minValue=1e-5, maxValue=1e-3)),
        ("generator_learning_rte", "generator_learning_rate"),
    ),
    (
        "misspelled_parameter_of_some_trials",
        study(
            parameter("augment", "categorical", values=["ada"])
            | {CHILDREN: [child("parentCategoricalValues", ["ada"], STUDY["parameters"][0])]}
        ),
        ("studySpec.parameters", "rate "),
    ),
    (
        "too_small_a_parameter",
        study(parameter("generator_learning_rate", "double", minValue=-1, maxValue=1)),
        ("studySpec.parameters", "generator_learning_rate=-1.0"),
    ),
    ("folder_as_a_parameter", study(parameter("job_dir", "categorical", values=["gs://bkt/x"])), ("job_dir",)),
    ("resume_as_a_parameter", study(parameter("resume", "categorical", values=["never"])), ("resume",)),
    (
        "local_run_as_a_parameter",
        study(parameter("init_from", "categorical", values=["gs://bkt/x", "runs/x"])),
        (TRIAL, "--init_from=runs/x"),
    ),
    ("folder_of_all_trials", study(SEED, args=["--job_dir=gs://bkt/x"]), (TRIAL, "--job_dir", "baseOutputDirectory")),
    (
        "no_output_folder_of_trials",
        changed(study(SEED), trialJobSpec__baseOutputDirectory=...),
        ("trialJobSpec.baseOutputDirectory",),
    ),
    *(
        (
            f"double_{name}",
            study(parameter(name, "double", minValue=1, maxValue=5), args=["--update_order=alternating"]),
            ("studySpec.parameters", name, "integerValueSpec"),
        )
        for name in ("discriminator_repeats", "steps")
    ),
    ("arg_and_parameter", study(EPOCHS, args=["--steps=9"]), (TRIAL, "--epochs=1", "steps=9", "epochs=1")),
    (
        "two_parameters",
        study(parameter("steps", "discrete", values=[9]), EPOCHS),
        (TRIAL, "--epochs=1", "--steps=9"),
    ),
    (
        "arg_and_parameter_of_some_trials",
        study(
            SEED,
            parameter("loss", "categorical", values=["wasserstein", "hinge"])
            | {CHILDREN: [child("parentCategoricalValues", ["hinge"], EPOCHS)]},
            args=["--steps=9"],
        ),
        (TRIAL, "--loss=hinge", "--epochs=1", "steps=9"),
    ),
    (
        "unknown_category",
        study(parameter("loss", "categorical", values=["hinge", "wassertein"])),
        (TRIAL, "--loss=wassertein", "'wassertein'", "wasserstein?"),
    ),
    (
        "repeats_without_their_order",
        study(parameter("discriminator_repeats", "integer", minValue=1, maxValue=5)),
        (TRIAL, "--discriminator_repeats=2", "discriminator_updates=together", "update_order"),
    ),
    *(
        (f"batch_{kind}", study(size, machine=TWO_GPUS), (TRIAL, "global_batch_size=65", "64", "66"))
        for kind, size in [
            ("list", parameter("global_batch_size", "discrete", values=[64, 65])),
            ("range", parameter("global_batch_size", "integer", minValue=64, maxValue=128)),
        ]
    ),
]
PACKAGED = changed(RIGHT, workerPoolSpecs__0__containerSpec=..., workerPoolSpecs__0__pythonPackageSpec=PACKAGE)
URIS = "workerPoolSpecs__0__pythonPackageSpec__packageUris"
PLACE = ("--project=p", "--region=us-central1")
SUBMITTED = [
    *((name, content, PLACE, mentions) for name, content, mentions in [*FILES, *MESSAGES, *JOBS, *STUDIES]),
    *((name, content, PLACE, mentions) for name, content, mentions in [*ARGS, *MACHINES, *TRIALS, *SERVICE]),
    *(
        (f"variable_{name}", changed(RIGHT, baseOutputDirectory__outputUriPrefix=uri), PLACE, mentions)
        for name, _, uri, mentions in VARIABLES
    ),
    *(
        (f"flag_{flag[:24]}", RIGHT, (*PLACE, flag), mentions)
        for flag, mentions in [
            ("--bucket=gs://bkt", ("--bucket", "'gs://bkt'")),
            ("--run=../x", ("--run", "'../x'")),
            ("--base_output_dir=runs/x", ("base_output_dir", "runs/x")),
            ("--base_output_dir=gs://My_Bucket!/x", ("My_Bucket!",)),
            *(
                (f"--{name}=", (f"--{name} ",))
                for name in ("kms_key", "service_account", "network", "base_output_dir", "display_name", "timeout")
            ),
            ("--base_output_dir=gs://bkt/{jobid}", ("{jobid}", "{job_id}")),
            ("--labels=team", ("--labels", "'team'")),
            ("--labels=Team=x", ("labels", "Team")),
            ("--labels=a=1,a=2", ("--labels", "'a'")),
            ("--kms_key=key", ("kmsKeyName", "'key'")),
            ("--network=default", ("network", "'default'")),
            ("--tensorboard=7", ("tensorboard", "'7'")),
            ("--persistent_resource=Mine", ("persistentResourceId", "'Mine'")),
            ("--timeout=0s", ("--timeout", "0s")),
            ("--timeout=soon", ("--timeout", "soon")),
            ("--strategy=spot", ("strategy", "'spot'", "SPOT")),
            ("--max_trials=3", ("--max_trials",)),
            ("--parallel_trials=0", ("parallel_trials", "0")),
            ("--render=maybe", ("--render", "maybe")),
            (f"--region={'x' * 200_000}", ("--region", "us-central1")),
            (f"--service_account={'x' * 200_000}", ("serviceAccount",)),
        ]
    ),
    ("two_prints", RIGHT, (*PLACE, "--dry_run", "--render"), ("--dry_run", "--render")),
    ("args_without_number", RIGHT, (*PLACE, *["--args=" + "--seed=1," * 10_000] * 2), ("--args", "20,000")),
    ("trials_flag", study(SEED), (*PLACE, "--max_trials=1"), ("maxTrialCount", "1", "parallelTrialCount")),
    ("package_without_a_bucket", changed(PACKAGED, **{URIS: ...}), PLACE, ("packageUris", "--staging_bucket")),
    (
        "package_that_is_missing",
        changed(PACKAGED, **{URIS: ["dist/no.tar.gz"]}),
        PLACE,
        ("packageUris", "dist/no.tar.gz"),
    ),
    (
        "package_in_a_bucket",
        changed(PACKAGED, **{URIS: ...}),
        (*PLACE, "--staging_bucket=gs://bkt", "--package=gs://bkt/source"),
        ("--package", "gs://bkt/source"),
    ),
    ("package_that_is_not_built", RIGHT, (*PLACE, "--package=folder"), ("--package", "'folder'")),
    ("bucket_of_no_package", RIGHT, (*PLACE, "--staging_bucket=gs://bkt"), ("--staging_bucket", "'gs://bkt'")),
    ("no_project", RIGHT, (), ("--project", "--dry_run")),
    ("no_region", RIGHT, ("--project=p",), ("--region", "--dry_run")),
    ("project_with_a_space", RIGHT, ("--project=My Project", PLACE[1]), ("--project", "'My Project'")),
    ("region_that_is_none", RIGHT, (PLACE[0], "--region=europe"), ("--region", "'europe'", "us-central1")),
    ("project_placeholder", RIGHT, ("--project=PROJECT", PLACE[1]), ("--project=PROJECT",)),
    ("region_placeholder", RIGHT, (PLACE[0], "--region=REGION"), ("--region=REGION",)),
    ("endpoint", RIGHT, ("--dry_run", "--api_endpoint=localhost:1"), ("api_endpoint=localhost:1", "http://")),
    ("open_endpoint", RIGHT, ("--dry_run", "--api_endpoint=http://10.0.0.7:80"), ("http://10.0.0.7:80", "--anonymous")),
    ("anonymous_vertex_ai", RIGHT, ("--dry_run", "--anonymous"), ("--anonymous", "--api_endpoint")),
    ("region_and_regions", RIGHT, ("--region=us-central1", "--regions=us-east1"), ("us-central1", "us-east1")),
    ("region_twice", RIGHT, ("--regions=us-east1,us-east1", "--project=p"), ("us-east1,us-east1",)),
    (
        "regions_at_one_address",
        RIGHT,
        ("--regions=us-east1,us-east4", "--project=p", "--api_endpoint=https://psc.example"),
        ("--regions", "https://psc.example"),
    ),
    ("render_of_regions", RIGHT, ("--regions=us-east1,us-east4", "--project=p", "--render"), ("us-east1,us-east4",)),
    (
        "dry_run_of_a_resource_of_one_region",
        RIGHT | {"persistentResourceId": "mine"},
        ("--regions=us-east1,us-east4", "--project=p", "--dry_run"),
        ("--regions", "persistentResourceId", "'mine'"),
    ),
    ("wrong_region", RIGHT, ("--regions=us-east1,moon", "--project=p"), ("region=moon",)),
    ("regions_without_project", RIGHT, ("--regions=us-east1,us-east4",), ("--project",)),
    ("price_table", RIGHT, ("--dry_run", "--price_table=prices.txt"), ("prices.txt", ".csv")),
    ("staging_bucket", RIGHT, ("--dry_run", "--staging_bucket=here"), ("staging_bucket=here", "gs://BUCKET")),
    ("long_display_name", RIGHT, ("--dry_run", f"--display_name={'x' * 129}"), ("129", "128")),
    ("display_name_of_two_lines", RIGHT, (*PLACE, "--render", "--display_name=a\nb"), (r"'a\nb'",)),
    ("args_flag", RIGHT, ("--dry_run", "--args=--setps=3"), (CHIEF, "setps", "steps")),
    ("word_without_a_flag", RIGHT, ("--dry_run", "now"), ("'now'", "--name=value")),
    *(
        (f"placeholder_{number}", content, PLACE, (text, placeholder))
        for number, (content, text, placeholder) in enumerate(
            [
                (changed(RIGHT, baseOutputDirectory__outputUriPrefix="gs://BUCKET/x"), "gs://BUCKET/x", "BUCKET"),
                (
                    changed(RIGHT, workerPoolSpecs__0__containerSpec=CONTAINER | {"imageUri": "pkg.dev/PROJECT/i"}),
                    "pkg.dev/PROJECT/i",
                    "PROJECT",
                ),
                (RIGHT | {"serviceAccount": "gan@PROJECT.iam"}, "gan@PROJECT.iam", "PROJECT"),
                (job(pool("--dataset=/gcs/BUCKET/x")), "--dataset=/gcs/BUCKET/x", "BUCKET"),
            ]
        )
    ),
]
BASE = "--base_output_dir"
ON_VARIABLES = changed(RIGHT, baseOutputDirectory__outputUriPrefix="gs://${BUCKET}/x")
RUN_LOCALLY = [
    ("output_flag", JOB, (f"{BASE}=s3://b/x",), ("base_output_dir", "s3://b/x", "gs://BUCKET/NAME")),
    ("output_flag_without_a_bucket", JOB, (f"{BASE}=gs://",), ("base_output_dir", "'gs://'", "gs://BUCKET/NAME")),
    ("output_flag_without_a_name", JOB, (f"{BASE}=gs:///x",), ("base_output_dir", "gs:///x", "gs://BUCKET/NAME")),
    (
        "output_folder",
        JOB | {"baseOutputDirectory": {"outputUriPrefix": "s3://b/x"}},
        (),
        ("baseOutputDirectory.outputUriPrefix", "s3://b/x"),
    ),
    ("bucket_of_the_output_flag", JOB, (f"{BASE}=gs://My_Bucket/x",), ("base_output_dir", "gs://My_Bucket/x")),
    ("placeholder_of_the_output_flag", JOB, (f"{BASE}=runs/{{jobid}}",), ("runs/{jobid}", "{job_id}")),
    ("placeholder_of_a_local_run", job(pool("--job_dir=runs/{job_id}")), (), (CHIEF, "--job_dir", "runs/{job_id}")),
    ("preempt_every_secs", JOB, ("--preempt_every_secs=0",), ("--preempt_every_secs=0",)),
    ("variable", ON_VARIABLES, (), ("gs://BUCKET/x", "--bucket")),
    ("unknown_variable", job(pool("--dataset=${DATA}")), (), ("${DATA}", "PROJECT")),
    ("max_restarts", JOB, ("--max_restarts=-1",), ("max_restarts", "-1")),
    ("args_flag", JOB, ("--args=--setps=3",), (CHIEF, "setps", "steps")),
    (
        "args_of_a_package",
        changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__args=["--other"]),
        ("--no_venv",),
        ("workerPoolSpecs[0].pythonPackageSpec.args", "--other"),
    ),
    ("study_without_a_folder", changed(study(SEED), trialJobSpec=JOB), (), ("trialJobSpec.baseOutputDirectory",)),
    ("unknown_parameter", TUNING, (f"{BASE}=x",), ("studySpec.parameters", "rate")),
    (
        "several_metrics",
        study(SEED, metrics=[*MINIMIZE_FRECHET, {"metricId": "kid", "goal": "MINIMIZE"}]),
        (),
        ("studySpec.metrics", "frechet", "kid"),
    ),
    (
        "package_in_a_bucket",
        changed(PACKAGED, **{URIS: ...}),
        ("--package=gs://bkt/source",),
        ("--package", "gs://bkt/source"),
    ),
    ("package_that_is_not_built", JOB, ("--package=folder",), ("--package", "'folder'")),
    (
        "package_that_is_not_used",
        changed(PACKAGED, **{URIS: ...}),
        ("--package=folder", "--no_venv"),
        ("--package", "'folder'"),
    ),
    ("evaluator", job(pool(), {}, {}, pool()), (), ("workerPoolSpecs[3]",)),
    (
        "batch",
        job(pool("--global_batch_size=63", machine=TWO_GPUS)),
        (),
        (CHIEF, "global_batch_size=63", "62", "64"),
    ),
    *(
        (
            f"other_command_{number}",
            changed(JOB, workerPoolSpecs__0__containerSpec__command=command),
            (),
            ("workerPoolSpecs[0].containerSpec.command", str(command), "python -m"),
        )
        for number, command in enumerate(
            [["bash", "-c", "python -m trainer.task"], ["python", "train.py"], ["pythonic"]]
        )
    ),
    (
        "package_that_is_missing",
        changed(PACKAGED, **{URIS: ["dist/none.tar.gz"]}),
        (),
        ("packageUris", "dist/none.tar.gz"),
    ),
]


def rows(table):
    """Returns the rows of a table as parameters, with their names as identifiers."""
    assert len({name for name, *_ in table}) == len(table)
    return [pytest.param(*row, id=name) for name, *row in table]


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Checks that a command refuses the content of a file before it sends a job or starts a process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client.JobClient, "create", None)
    monkeypatch.setattr(subprocess, "Popen", None)

    def run(module, content, flags, mentions):
        text = content if isinstance(content, (str, bytes)) else yaml.safe_dump(content)
        (tmp_path / "job.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        name = module.__name__.rpartition(".")[2]
        check_command_refusal(module.main, [name, "--config=job.yaml", *flags], capsys, 2, *mentions)
        assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]

    return run


@pytest.mark.parametrize(("content", "flags", "mentions"), rows(SUBMITTED))
def test_submit_refuses(check, content, flags, mentions):
    check(submit, content, flags, mentions)


@pytest.mark.parametrize(("content", "flags", "mentions"), rows(RUN_LOCALLY))
def test_local_refuses(check, content, flags, mentions):
    check(local, content, flags, mentions)


def test_the_message_of_a_mistake_is_one_sentence():
    with pytest.raises(ConfigError) as caught:
        job_spec.parse(changed(JOB, workerPoolSpecs__0__replicaCount="two"))
    assert str(caught.value) == "workerPoolSpecs[0].replicaCount is 'two'; it must be a whole number."
