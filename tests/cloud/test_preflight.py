"""Jobs and studies that `check_job` accepts. test_cloud_refusals.py has those that it refuses."""

import logging

import pytest
from refusals import check_refusal
from specs import JOB, POOL, SEED, TUNING, changed, child, parameter, pool

from trainer.cloud.jobs import job_spec
from trainer.cloud.jobs.boundary_trials import boundary_trials
from trainer.cloud.jobs.preflight import check_job
from trainer.config.suites import SUITES
from trainer.errors import ConfigError

OUTPUT = {"outputUriPrefix": "gs://bkt/run"}
GPUS = {"machineType": "g2", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
RESTART = {"restartJobOnWorkerRestart": True}
CHIEF = "workerPoolSpecs[0].containerSpec.args"


def job(*pools):
    return JOB | {"workerPoolSpecs": list(pools), "baseOutputDirectory": OUTPUT, "scheduling": RESTART}


def check(content, **options):
    check_job(job_spec.parse(content), **options)


def test_an_evaluator_may_be_another_program():
    other = changed(pool(), containerSpec__command=["bash"])
    check(job(pool(), {}, {}, other))
    batch = "--global_batch_size=5"
    check_refusal(lambda: check(job(pool(batch, machine=GPUS), {}, {}, other)), ConfigError, CHIEF, "5")


def test_a_program_that_is_not_the_trainer_needs_no_output_folder_and_is_reported(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("trainer"), "propagate", True)
    shell = changed(pool("pip install x && python -m trainer.task"), containerSpec__command=["sh", "-c"])
    content = changed(job(shell), baseOutputDirectory=...)
    check(job(pool()))
    check(content, is_local=True)
    assert not caplog.records
    for unknown in (content, changed(TUNING, trialJobSpec=content)):
        caplog.clear()
        check(unknown)
        (record,) = caplog.records
        assert record.levelname == "WARNING" and "trainer.task" in record.getMessage()


@pytest.mark.parametrize(
    ("chief", "worker"),
    [
        ([], []),
        (["--recipe=digits"], ["--loss=non_saturating"]),
        (["--job_dir=gs://bkt/x", "--max_to_keep=9"], ["--job_dir=/gcs/bkt/x", "--cache_mib=1"]),
        (["--dataset=gs://bkt/x"], ["--dataset=/gcs/bkt/x"]),
        (["--init_from=gs://bkt/x@4"], ["--init_from=/gcs/bkt/x@4"]),
        (["--init_from=gs://bkt/x", "--freeze_discriminator_layers=2"],) * 2,
        (["--recipe=mine:own", "--seed=1"], ["--recipe=mine:own"]),
        (["--recipe=photos", "--dataset=gs://bkt/x"], ["--recipe=photos", "--dataset=/gcs/bkt/x"]),
    ],
)
def test_machines_of_the_same_run_are_accepted(chief, worker):
    check(job(pool(*chief), pool(*worker)))


@pytest.mark.parametrize(
    ("args", "pools"),
    [
        (["--global_batch_size=96"], [(1, GPUS), (3, GPUS)]),
        (["--recipe=mine:own"], [(1, GPUS), (2, GPUS)]),
        (["--strategy=one_device", "--global_batch_size=5"], [(1, GPUS)]),
        (["--recipe=photos", "--dataset=gs://bkt/x"], [(1, GPUS), (2, GPUS)]),  # which chooses a batch on the machines
        (["--recipe=photos", "--dataset=gs://bkt/x", "--global_batch_size=12"], [(1, GPUS), (2, GPUS)]),
    ],
)
def test_a_batch_that_divides_is_accepted(args, pools):
    check(job(*(pool(*args, count=count, machine=machine) for count, machine in pools)))


def test_machines_without_accelerators_are_accepted():
    check(job(pool(machine={"machineType": "custom-8-1024"})))


def test_resume_never_is_for_jobs_that_never_restart():
    content = job(pool("--resume=never"))
    check_refusal(lambda: check(content), ConfigError, CHIEF, "--resume=never")
    check(content | {"scheduling": {"disableRetries": True}})
    check(content, is_local=True)


def test_several_machines_that_train_restart_together_or_never():
    several = changed(job(pool(), pool(count=3)), scheduling=...)
    check_refusal(lambda: check(several), ConfigError, "scheduling", "restartJobOnWorkerRestart", "4 machines")
    check(several | {"scheduling": {"disableRetries": True}})
    check(several, is_local=True)
    check(changed(job(pool(), {}, {}, changed(pool(), containerSpec__command=["bash"])), scheduling=...))


@pytest.mark.parametrize("flag", ["--loss=wassertein", "--architecture=dcgn", "--penalties=r3", "--augment=adda"])
def test_a_custom_recipe_may_name_any_part(flag):
    check(job(pool("--recipe=mine:own", flag)))


def study(*args, parameters, metric="frechet", machine=POOL["machineSpec"]):
    content = changed(TUNING, trialJobSpec=job(pool(*args, machine=machine)), studySpec__parameters=parameters)
    goal = next(SUITES[suite].goals[metric] for suite in SUITES.names() if metric in SUITES[suite].goals)
    return changed(content, studySpec__metrics=[{"metricId": metric, "goal": goal}])


@pytest.mark.parametrize(
    ("args", "metric"),
    [
        (["--recipe=wgan_gp", "--dataset=gs://bkt/photos", "--metrics=digits"], "frechet"),
        (["--recipe=wgan_gp", "--dataset=gs://bkt/photos"], "frechet"),
        (["--recipe=wgan_gp", "--dataset=gs://bkt/photos", "--inception_weights=gs://bkt/weights.pb"], "fid"),
        (["--recipe=wgan_gp", "--dataset=gs://bkt/photos", "--inception_score"], "inception_score"),
        (["--recipe=cyclegan"], "cycle_error"),
        (["--recipe=infogan"], "code_accuracy"),
        (["--recipe=acgan"], "conditional_accuracy"),
        (["--recipe=dcgan", "--dataset=stacked:digits"], "kl"),
        (["--recipe=mine:own"], "cycle_error"),
        (["--recipe=mine:own", "--metrics=digits"], "code_accuracy"),
    ],
)
def test_a_metric_that_trials_report_is_accepted(args, metric):
    check(study(*args, parameters=[SEED], metric=metric))


def test_a_parameter_decides_what_is_reported():
    always = parameter("dataset", "categorical", values=["mnist"])
    check(study("--dataset=gs://bkt/photos", parameters=[SEED, always]))


@pytest.mark.parametrize("name", ["discriminator_repeats", "steps"])
@pytest.mark.parametrize(
    ("kind", "spec"), [("integer", {"minValue": 1, "maxValue": 5}), ("discrete", {"values": [1, 5]})]
)
def test_settings_of_whole_numbers_vary_by_whole_numbers(name, kind, spec):
    check(study("--update_order=alternating", parameters=[parameter(name, kind, **spec)]))


def test_a_setting_of_any_number_varies_by_doubles():
    check(study(parameters=[parameter("penalty_weight", "double", minValue=1, maxValue=5)]))


EPOCHS = parameter("epochs", "integer", minValue=1, maxValue=2)


def test_a_parameter_overrides_the_batch_of_the_args():
    size = parameter("global_batch_size", "discrete", values=[64, 128])
    check(study("--global_batch_size=65", parameters=[SEED, size], machine=GPUS))


@pytest.mark.parametrize(
    ("args", "parameters"),
    [
        (["--dataset=gs://bkt/x"], [SEED]),
        (["--dataset=gs://bkt/x"], [parameter("size", "categorical", values=["small", "medium"])]),
        (["--dataset=gs://bkt/x"], [parameter("penalty_weight", "double", minValue=1, maxValue=100)]),
        (["--dataset=gs://bkt/x"], [parameter("model", "categorical", values=["gan", "conditional"])]),
        ([], [parameter("dataset", "categorical", values=["gs://bkt/x", "/gcs/bkt/x"])]),
    ],
)
def test_a_study_may_vary_the_settings_of_photos(args, parameters):
    check(study("--recipe=photos", *args, parameters=parameters, machine=GPUS))


@pytest.mark.parametrize(
    ("args", "worker", "mentions"),
    [
        (["--dataset=gs://bkt/x", "--global_batch_size=63"], [], ("global_batch_size=63", "62", "64")),
        (
            ["--dataset=gs://bkt/x", "--size=medium"],
            ["--dataset=gs://bkt/x", "--size=large"],
            ("size=large", "size=medium"),
        ),
        (["--dataset=gs://bkt/x"], ["--dataset=gs://bkt/x", "--penalty_weight=3"], ("penalty_weight",)),
        (["--dataset=gs://bkt/x", "--penalties=r3"], [], ("r3", "r1")),
        (["--steps=3"], [], ("photos", "--dataset")),
    ],
)
def test_a_job_with_photos_that_cannot_train_is_refused(args, worker, mentions):
    pools = [pool("--recipe=photos", *flags, machine=GPUS) for flags in (args, worker) if flags]
    check_refusal(lambda: check(job(*pools)), ConfigError, "workerPoolSpecs", *mentions)


def test_trials_show_each_end_of_each_parameter():
    inner = child("parentIntValues", [5], parameter("beta_1", "double", minValue=0.1, maxValue=0.9))
    seed = SEED | {"conditionalParameterSpecs": [inner]}
    trials = [*boundary_trials(job_spec.parse(study(parameters=[seed, EPOCHS])).study.parameters)]
    assert trials == [
        {"epochs": 1, "seed": 1},
        {"epochs": 1, "seed": 2},
        {"epochs": 1, "seed": 9},
        {"epochs": 1, "seed": 5, "beta_1": 0.1},
        {"epochs": 1, "seed": 5, "beta_1": 0.9},
        {"seed": 1, "epochs": 1},
        {"seed": 1, "epochs": 2},
    ]
