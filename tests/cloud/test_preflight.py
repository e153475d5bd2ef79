"""What the trainer would refuse on machines that are billed is refused before: machines, batches, names."""

import pytest
from specs import JOB, POOL, changed

from trainer.cloud import jobspec
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


@pytest.mark.parametrize(
    ("chief", "worker", "told"),
    [
        (["--recipe=dcgan"], [], "recipe=digits where the chief has recipe=dcgan"),
        (["--loss=hinge"], [], "loss=non_saturating where the chief has loss=hinge"),
        (["--seed=1"], ["--seed=2"], "seed=2 where the chief has seed=1"),
        (["--steps=10"], ["--steps=20"], "steps=20 where the chief has steps=10"),
        (["--dataset=gs://b/x"], ["--dataset=gs://b/y"], "dataset=gs://b/y where the chief has dataset=gs://b/x"),
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
        (["--job_dir=gs://b/x", "--keep_checkpoints=9"], ["--cache_mib=1"]),
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


@pytest.mark.parametrize("flag", ["--loss=wassertein", "--architecture=dcgn", "--penalties=r3", "--augment=adda"])
def test_an_unknown_part_is_refused_unless_the_recipe_may_bring_it(flag):
    assert refusal(job(pool(flag))).startswith(f"{CHIEF}: {flag.partition('=')[2]!r} is an unknown ")
    check_job(jobspec.parse(job(pool("--recipe=mine:own", flag))))
