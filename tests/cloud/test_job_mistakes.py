"""Every mistake in a custom job is one sentence, before anything is started or billed."""

import pytest
from specs import JOB, PACKAGE, POOL, changed

from trainer.cloud import jobspec
from trainer.errors import ConfigError

GPU = {"machineType": "n1", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
MISTAKES = [
    (None, "the file holds no keys; it must be a CustomJobSpec or a HyperparameterTuningJob."),
    ([JOB], "the file holds no keys; it must be a CustomJobSpec or a HyperparameterTuningJob."),
    (
        {"displayName": "x", "jobSpec": JOB},
        "jobSpec is part of a CustomJob, and a file holds its CustomJobSpec alone; keep what is under that key.",
    ),
    ({"worker_pool_specs": [POOL]}, "worker_pool_specs is not in camelCase; write workerPoolSpecs."),
    ({"workerPoolSpec": [POOL]}, "workerPoolSpec is unknown; did you mean workerPoolSpecs?"),
    (changed(JOB, replicaCount=1), "replicaCount is unknown there; it belongs in workerPoolSpecs[…]."),
    (
        changed(JOB, workerPoolSpecs__0__machineType="n1"),
        "workerPoolSpecs[0].machineType is unknown there; it belongs in workerPoolSpecs[0].machineSpec.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec__acceleratorTyp="NVIDIA_L4"),
        "workerPoolSpecs[0].machineSpec.acceleratorTyp is unknown; did you mean acceleratorType?",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec__accelerator_type="NVIDIA_L4"),
        "workerPoolSpecs[0].machineSpec.accelerator_type is not in camelCase; write acceleratorType.",
    ),
    (
        changed(JOB, baseOutputDirectory={"x": 1}),
        "baseOutputDirectory.x is unknown; known are outputUriPrefix.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec=GPU | {"acceleratorType": "NVIDIA_TESLA_T5"}),
        "workerPoolSpecs[0].machineSpec.acceleratorType is 'NVIDIA_TESLA_T5', which is unknown; "
        "did you mean NVIDIA_TESLA_T4?",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec=GPU | {"acceleratorType": "nvidia-l4"}),
        "workerPoolSpecs[0].machineSpec.acceleratorType is 'nvidia-l4', which is unknown; did you mean NVIDIA_L4?",
    ),
    (
        changed(JOB, scheduling={"strategy": 5}),
        "scheduling.strategy is 5, which is unknown; known are STRATEGY_UNSPECIFIED, ON_DEMAND, LOW_COST, STANDARD, "
        "SPOT, FLEX_START.",
    ),
    (
        changed(JOB, scheduling=[]),
        "scheduling is a list; it must be an object with the keys timeout, "
        "restartJobOnWorkerRestart, strategy, disableRetries, maxWaitDuration.",
    ),
    (changed(JOB, workerPoolSpecs=3), "workerPoolSpecs is 3; it must be a list."),
    (changed(JOB, workerPoolSpecs=POOL), "workerPoolSpecs is an object; it must be a list."),
    (changed(JOB, serviceAccount=None), "serviceAccount has no value; give it one, or remove the line."),
    (changed(JOB, network=5), "network is 5; it must be text; put it in quotes."),
    (changed(JOB, enableWebAccess="yes"), "enableWebAccess is 'yes'; it must be true or false."),
    (
        changed(JOB, workerPoolSpecs__0__containerSpec__args__1=True),
        "workerPoolSpecs[0].containerSpec.args[1] is true; it must be text; put it in quotes.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount="two"),
        "workerPoolSpecs[0].replicaCount is 'two'; it must be a whole number.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount=1.5),
        "workerPoolSpecs[0].replicaCount is 1.5; it must be a whole number.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount=True),
        "workerPoolSpecs[0].replicaCount is true; it must be a whole number.",
    ),
    (
        changed(JOB, scheduling={"timeout": 3600}),
        "scheduling.timeout is 3600; it must be seconds followed by s, as in 3600s.",
    ),
    (
        changed(JOB, scheduling={"maxWaitDuration": "1h"}),
        "scheduling.maxWaitDuration is '1h'; it must be seconds followed by s, as in 3600s.",
    ),
    (
        changed(JOB, scheduling={"timeout": "99999999999999s"}),
        "scheduling.timeout is '99999999999999s'; the longest is 315576000000s.",
    ),
    (
        changed(JOB, workerPoolSpecs__1=POOL | {"replicaCount": 2**63}),
        "workerPoolSpecs[1].replicaCount is 9223372036854775808; the greatest is 9223372036854775807.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec=GPU | {"acceleratorCount": "2147483648"}),
        "workerPoolSpecs[0].machineSpec.acceleratorCount is 2147483648; the greatest is 2147483647.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount=-(10**400)),
        f"workerPoolSpecs[0].replicaCount is -1{'0' * 58}; the least is -9223372036854775807.",
    ),
    ({"network": "x"}, "workerPoolSpecs is missing; list at least one."),
    ({}, "workerPoolSpecs is missing; list at least one."),
    ({"workerPoolSpecs": []}, "workerPoolSpecs is empty; list at least one."),
    (
        {"workerPoolSpecs": [{}, POOL]},
        "workerPoolSpecs[0] is empty; the first pool holds the chief, so give it one machine.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec=...),
        "workerPoolSpecs[0].machineSpec is missing; give it machineType.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec={}),
        "workerPoolSpecs[0].machineSpec.machineType is missing; give text.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount=...),
        "workerPoolSpecs[0].replicaCount is missing; give a whole number.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__containerSpec__imageUri=""),
        "workerPoolSpecs[0].containerSpec.imageUri is empty; give text.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__containerSpec=...),
        "workerPoolSpecs[0] has none of containerSpec, pythonPackageSpec; give one of them.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__pythonPackageSpec=PACKAGE),
        "workerPoolSpecs[0] has containerSpec and pythonPackageSpec; keep one of them.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount=2),
        "workerPoolSpecs[0].replicaCount is 2; the first pool is the one chief, so write 1 and put the others into "
        "workerPoolSpecs[1].",
    ),
    (
        changed(JOB, workerPoolSpecs__1=POOL | {"replicaCount": 0}),
        "workerPoolSpecs[1].replicaCount is 0; give at least 1, or write {} for an empty pool.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__replicaCount=0),
        "workerPoolSpecs[0].replicaCount is 0; the first pool is the one chief, so write 1.",
    ),
    (
        {"workerPoolSpecs": [POOL, {}, POOL]},
        "workerPoolSpecs[2] asks for parameter or reduction servers, which this trainer cannot use; write {} in its "
        "place.",
    ),
    (
        {"workerPoolSpecs": [POOL, {}, {}, {}, {}]},
        "workerPoolSpecs has 5 pools; there are four: chief, workers, servers, evaluator.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec=changed(GPU, acceleratorCount=...)),
        "workerPoolSpecs[0].machineSpec has acceleratorType NVIDIA_L4 without acceleratorCount; say how many.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__machineSpec=changed(GPU, acceleratorType=...)),
        "workerPoolSpecs[0].machineSpec has acceleratorCount 1 without acceleratorType; say of which type.",
    ),
    (
        changed(JOB, baseOutputDirectory={"outputUriPrefix": "/runs"}),
        "baseOutputDirectory.outputUriPrefix is '/runs'; it must be gs://BUCKET/NAME.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__containerSpec__env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "workerPoolSpecs[0].containerSpec.env[1] sets A a second time; keep one.",
    ),
    (
        changed(JOB, workerPoolSpecs__0__containerSpec__env=[{"name": "A"}]),
        "workerPoolSpecs[0].containerSpec.env[0].value is missing; give text.",
    ),
    (
        {"workerPoolSpecs": [changed(POOL, containerSpec=..., pythonPackageSpec=PACKAGE | {"packageUris": ["x.whl"]})]},
        "workerPoolSpecs[0].pythonPackageSpec.packageUris[0] is 'x.whl'; copy the package to a bucket and give its "
        "gs:// name.",
    ),
    (
        changed(JOB, scheduling={"restartJobOnWorkerRestart": True, "disableRetries": True}),
        "scheduling has restartJobOnWorkerRestart and disableRetries, which switches it off; keep one of them.",
    ),
]


@pytest.mark.parametrize(("content", "sentence"), MISTAKES, ids=[sentence[:70] for _, sentence in MISTAKES])
def test_a_mistake_in_a_job_is_one_sentence(content, sentence):
    with pytest.raises(ConfigError) as caught:
        jobspec.parse(content)
    assert str(caught.value) == sentence
