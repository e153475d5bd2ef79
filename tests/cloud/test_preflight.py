"""What the trainer would refuse on machines that are billed is refused before: machines, batches, names, studies."""

import pytest
from specs import JOB, POOL, TUNING, changed, child

from trainer.cloud import examples, jobspec
from trainer.cloud.known import SMALLER_IS_BETTER
from trainer.cloud.preflight import check_job
from trainer.errors import ConfigError

OUTPUT = {"outputUriPrefix": "gs://b/run"}
GPUS = {"machineType": "g2", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
CHIEF, WORKERS = "workerPoolSpecs[0].containerSpec.args", "workerPoolSpecs[1].containerSpec.args"


def pool(*args, count=1, machine=POOL["machineSpec"]):
    return changed(POOL, replicaCount=count, machineSpec=machine, containerSpec__args=list(args))


def job(*pools):
    return JOB | {"workerPoolSpecs": list(pools), "baseOutputDirectory": OUTPUT}


def refusal(content, **options):
    with pytest.raises(ConfigError) as caught:
        check_job(jobspec.parse(content), **options)
    return str(caught.value)


@pytest.mark.parametrize("options", [{}, {"rehearsal": True}])
def test_an_evaluator_that_is_the_trainer_is_refused(options):
    assert refusal(job(pool(), {}, {}, pool()), **options) == (
        "workerPoolSpecs[3] is an evaluator, and the chief evaluates; leave it out."
    )


def test_an_evaluator_that_is_another_program_is_its_own_affair():
    other = changed(pool(), containerSpec__command=["bash"])
    check_job(jobspec.parse(job(pool(), {}, {}, other)))
    assert "must divide by 2" in refusal(job(pool("--global_batch_size=5", machine=GPUS), {}, {}, other))


@pytest.mark.parametrize(
    ("chief", "worker", "told"),
    [
        (["--recipe=dcgan"], [], "recipe=digits where the chief has recipe=dcgan"),
        (["--loss=hinge"], [], "loss=non_saturating where the chief has loss=hinge"),
        (["--seed=1"], ["--seed=2"], "seed=2 where the chief has seed=1"),
        (["--steps=10"], ["--steps=20"], "steps=20 where the chief has steps=10"),
        (["--dataset=gs://b/x"], ["--dataset=gs://b/y"], "dataset=gs://b/y where the chief has dataset=gs://b/x"),
        (["--job_dir=gs://b/x"], [], "job_dir=None where the chief has job_dir=gs://b/x"),
        (["--recipe=mine:own"], ["--recipe=mine:other"], "recipe=mine:other where the chief has recipe=mine:own"),
        (["--recipe=mine:own", "--seed=1"], ["--recipe=mine:own", "--seed=2"], "seed=2 where the chief has seed=1"),
    ],
)
def test_machines_with_different_settings_are_refused(chief, worker, told):
    assert refusal(job(pool(*chief), pool(*worker))) == f"{WORKERS} ask for {told}; give all machines the same flags."


@pytest.mark.parametrize(
    ("chief", "worker"),
    [
        ([], []),
        (["--recipe=digits"], ["--loss=non_saturating"]),
        (["--job_dir=gs://b/x", "--keep_checkpoints=9"], ["--job_dir=/gcs/b/x", "--cache_mib=1"]),
        (["--dataset=gs://b/x"], ["--dataset=/gcs/b/x"]),
        (["--recipe=mine:own", "--seed=1"], ["--recipe=mine:own"]),
    ],
)
def test_machines_whose_runs_are_the_same_are_right(chief, worker):
    check_job(jobspec.parse(job(pool(*chief), pool(*worker))))


@pytest.mark.parametrize(
    ("args", "pools", "sentence"),
    [
        (["--global_batch_size=63"], [(1, GPUS)], "63 must divide by 2 replicas; try 62 or 64."),
        (["--global_batch_size=100"], [(1, GPUS), (3, GPUS)], "100 must divide by 8 replicas; try 96 or 104."),
        (["--global_batch_size=100"], [(1, {"machineType": "n"}), (2, {"machineType": "n"})], "100 must divide by 3 "),
        (["--recipe=mine:own", "--global_batch_size=9"], [(1, GPUS)], "9 must divide by 2 replicas; try 8 or 10."),
        (["--global_batch_size=4", "--num_virtual_devices=3"], [(1, {"machineType": "n"})], "4 must divide by 3 "),
        (["--recipe=two_phase"], [(1, GPUS), (3, GPUS)], "100 must divide by 8 replicas; try 96 or 104."),
        (["--strategy=mirrored", "--global_batch_size=5"], [(1, GPUS)], "5 must divide by 2 replicas; try 4 or 6."),
    ],
)
def test_a_batch_that_the_accelerators_cannot_share_is_refused(args, pools, sentence):
    content = job(*(pool(*args, count=count, machine=machine) for count, machine in pools))
    assert refusal(content).startswith(f"{CHIEF}: global_batch_size={sentence}")
    assert refusal(content, rehearsal=True) == refusal(content)


@pytest.mark.parametrize(
    ("args", "pools"),
    [
        (["--global_batch_size=96"], [(1, GPUS), (3, GPUS)]),
        (["--recipe=mine:own"], [(1, GPUS), (2, GPUS)]),
        (["--strategy=one_device", "--global_batch_size=5"], [(1, GPUS)]),
    ],
)
def test_a_batch_that_can_be_shared_is_right(args, pools):
    check_job(jobspec.parse(job(*(pool(*args, count=count, machine=machine) for count, machine in pools))))


SEVERAL = [(1, {"machineType": "n"}), (3, {"machineType": "n"})]


@pytest.mark.parametrize(
    ("strategy", "pools", "told"),
    [
        (
            "multi_worker",
            SEVERAL[:1],
            "multi_worker needs several machines in TF_CONFIG; choose mirrored or one_device.",
        ),
        (
            "mirrored",
            SEVERAL,
            "mirrored trains on one machine, and each of the 4 of this job would train the same alone",
        ),
        (
            "one_device",
            SEVERAL,
            "one_device trains on one machine, and each of the 4 of this job would train the same ",
        ),
    ],
)
def test_a_strategy_that_does_not_fit_the_number_of_machines_is_refused(strategy, pools, told):
    content = job(*(pool(f"--strategy={strategy}", count=count, machine=machine) for count, machine in pools))
    assert refusal(content).startswith(f"{CHIEF}: strategy={told}")


@pytest.mark.parametrize(
    "machine", [{"machineType": "n1", "acceleratorType": "TPU_V3", "acceleratorCount": 8}, {"machineType": "ct5lp-1t"}]
)
def test_accelerators_that_the_trainer_would_leave_idle_are_refused(machine):
    kind = machine.get("acceleratorType", machine["machineType"])
    assert refusal(job(pool("--global_batch_size=64", machine=machine))).startswith(
        f"workerPoolSpecs[0].machineSpec asks for {kind}, which the trainer would leave idle; "
    )
    check_job(jobspec.parse(job(pool(machine={"machineType": "custom-8-1024"}))))


def test_a_job_that_would_refuse_its_own_checkpoints_is_refused():
    content = job(pool("--resume=never"))
    assert refusal(content).startswith(
        f"{CHIEF} has --resume=never, with which a job that is started again refuses its"
    )
    check_job(jobspec.parse(content | {"scheduling": {"disableRetries": True}}))
    check_job(jobspec.parse(content), rehearsal=True)


@pytest.mark.parametrize(
    ("metric", "goal", "args"),
    [("frechet", "MINIMIZE", []), ("recall", "MAXIMIZE", []), ("cycle_error", "MINIMIZE", ["--recipe=cyclegan"])],
)
def test_a_study_that_looks_for_the_worst_is_refused(metric, goal, args):
    right = study(*args, parameters=[SEED], metric=metric)
    assert right["studySpec"]["metrics"][0]["goal"] == goal
    check_job(jobspec.parse(right))
    wrong = "MAXIMIZE" if goal == "MINIMIZE" else "MINIMIZE"
    best = "least" if goal == "MINIMIZE" else "greatest"
    assert refusal(changed(right, studySpec__metrics__0__goal=wrong)) == (
        f"studySpec.metrics[0].goal is {wrong}, and the best {metric} is the {best}; write {goal}."
    )


@pytest.mark.parametrize("flag", ["--loss=wassertein", "--architecture=dcgn", "--penalties=r3", "--augment=adda"])
def test_an_unknown_part_is_refused_unless_the_recipe_may_bring_it(flag):
    assert refusal(job(pool(flag))).startswith(f"{CHIEF}: {flag.partition('=')[2]!r} is an unknown ")
    check_job(jobspec.parse(job(pool("--recipe=mine:own", flag))))


def study(*args, parameters, metric="frechet", machine=POOL["machineSpec"]):
    content = changed(TUNING, trialJobSpec=job(pool(*args, machine=machine)), studySpec__parameters=parameters)
    goal = "MINIMIZE" if metric in SMALLER_IS_BETTER else "MAXIMIZE"
    return changed(content, studySpec__metrics=[{"metricId": metric, "goal": goal}])


def parameter(name, kind, **spec):
    return {"parameterId": name, f"{kind}ValueSpec": spec}


SEED = parameter("seed", "integer", minValue=1, maxValue=9)
METRIC = "studySpec.metrics[0].metricId is"
TRIAL = f"trialJobSpec.{CHIEF} with"


@pytest.mark.parametrize(
    ("args", "metric", "told"),
    [
        (
            ["--recipe=wgan_gp", "--dataset=gs://b/photos"],
            "frechet",
            "metrics=none, dataset=gs://b/photos, wiring=gan reports nothing; choose its --metrics",
        ),
        (
            ["--recipe=dcgan"],
            "cycle_error",
            "metrics=digits, dataset=digits, wiring=gan reports frechet, kid, precision, recall, density, coverage "
            "alone; name one of these",
        ),
        (
            ["--recipe=cyclegan"],
            "frechet",
            "metrics=cycle, dataset=digits, wiring=cyclegan reports cycle_error, cycle_error_a, cycle_error_b alone; "
            "name one of these",
        ),
        (
            ["--dataset=stacked:digits", "--recipe=dcgan"],
            "kid",
            "metrics=stacked, dataset=stacked:digits, wiring=gan reports frechet, num_modes, kl alone; name one of "
            "these",
        ),
        (["--recipe=mine:own", "--metrics=none"], "kid", "metrics=none reports nothing; choose its --metrics"),
    ],
)
def test_a_metric_that_no_trial_reports_is_refused(args, metric, told):
    content = study(*args, parameters=[SEED], metric=metric)
    assert refusal(content) == f"{METRIC} {metric!r}, and a trial with {told}, or correct {TRIAL} --seed=1."


@pytest.mark.parametrize(
    ("args", "metric"),
    [
        (["--recipe=wgan_gp", "--dataset=gs://b/photos", "--metrics=digits"], "frechet"),
        (["--recipe=cyclegan"], "cycle_error"),
        (["--recipe=infogan"], "code_accuracy"),
        (["--recipe=acgan"], "conditional_accuracy"),
        (["--recipe=dcgan", "--dataset=stacked:digits"], "kl"),
        (["--recipe=mine:own"], "cycle_error"),
        (["--recipe=mine:own", "--metrics=digits"], "code_accuracy"),
    ],
)
def test_a_metric_that_trials_report_is_right(args, metric):
    check_job(jobspec.parse(study(*args, parameters=[SEED], metric=metric)))


def test_the_parameters_decide_what_is_reported():
    either = parameter("dataset", "categorical", values=["digits", "gs://b/photos"])
    told = "and a trial with metrics=none, dataset=gs://b/photos, wiring=conditional reports nothing; choose its"
    assert refusal(study(parameters=[SEED, either])).startswith(f"{METRIC} 'frechet', {told}")
    always = parameter("dataset", "categorical", values=["digits", "mnist"])
    check_job(jobspec.parse(study("--dataset=gs://b/photos", parameters=[SEED, always])))


@pytest.mark.parametrize("name", ["discriminator_repeats", "steps"])
def test_a_double_is_no_value_of_a_setting_of_whole_numbers(name):
    args = ["--update_order=alternating"]
    assert refusal(study(*args, parameters=[parameter(name, "double", minValue=1, maxValue=5)])) == (
        f"studySpec.parameters, {name} takes whole numbers, and a double is hardly ever one; write integerValueSpec."
    )
    for right in (
        parameter(name, "integer", minValue=1, maxValue=5),
        parameter(name, "discrete", values=[1, 5]),
        parameter("penalty_weight", "double", minValue=1, maxValue=5),
    ):
        check_job(jobspec.parse(study(*args, parameters=[right])))


EPOCHS = parameter("epochs", "integer", minValue=1, maxValue=2)
GIVEN_TWICE = "steps=9 and epochs=1 both say how long to train; give one."
SHARES = "must divide by 2 replicas; try"


@pytest.mark.parametrize(
    ("args", "parameters", "machine", "told"),
    [
        (["--steps=9"], [EPOCHS], {}, f"--epochs=1: {GIVEN_TWICE}"),
        ([], [parameter("steps", "discrete", values=[9]), EPOCHS], {}, f"--epochs=1 --steps=9: {GIVEN_TWICE}"),
        (
            [],
            [parameter("loss", "categorical", values=["hinge", "wassertein"])],
            {},
            "--loss=wassertein: 'wassertein' is an unknown loss; did you mean wasserstein? Known are ",
        ),
        (
            [],
            [parameter("discriminator_repeats", "integer", minValue=1, maxValue=5)],
            {},
            "--discriminator_repeats=2: discriminator_repeats=2 and discriminator_updates=together need update_order=",
        ),
        (
            [],
            [parameter("global_batch_size", "discrete", values=[64, 65])],
            GPUS,
            f"--global_batch_size=65: global_batch_size=65 {SHARES} 64 or 66.",
        ),
        (
            [],
            [parameter("global_batch_size", "integer", minValue=64, maxValue=128)],
            GPUS,
            f"--global_batch_size=65: global_batch_size=65 {SHARES} 64 or 66.",
        ),
    ],
)
def test_a_parameter_that_the_args_of_a_trial_do_not_allow_is_refused(args, parameters, machine, told):
    content = study(*args, parameters=parameters, machine=machine or POOL["machineSpec"])
    assert refusal(content).startswith(f"{TRIAL} {told}")


def test_what_some_trials_alone_have_is_held_against_theirs():
    inner = child("parentCategoricalValues", ["hinge"], EPOCHS)
    loss = parameter("loss", "categorical", values=["wasserstein", "hinge"]) | {"conditionalParameterSpecs": [inner]}
    assert refusal(study("--steps=9", parameters=[SEED, loss])) == (
        f"{TRIAL} --seed=1 --loss=hinge --epochs=1: {GIVEN_TWICE}"
    )


def test_a_batch_that_every_trial_is_given_is_the_one_that_counts():
    size = parameter("global_batch_size", "discrete", values=[64, 128])
    check_job(jobspec.parse(study("--global_batch_size=65", parameters=[SEED, size], machine=GPUS)))


def test_trials_show_each_end_of_each_parameter():
    inner = child("parentIntValues", [5], parameter("beta_1", "double", minValue=0.1, maxValue=0.9))
    seed = SEED | {"conditionalParameterSpecs": [inner]}
    found = [*examples.trials(jobspec.parse(study(parameters=[seed, EPOCHS])).study.parameters)]
    assert found == [
        {"epochs": 1, "seed": 1},
        {"epochs": 1, "seed": 2},
        {"epochs": 1, "seed": 9},
        {"epochs": 1, "seed": 5, "beta_1": 0.1},
        {"epochs": 1, "seed": 5, "beta_1": 0.9},
        {"seed": 1, "epochs": 1},
        {"seed": 1, "epochs": 2},
    ]
