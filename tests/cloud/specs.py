"""Small job files as parsed YAML, and a function that changes them."""

import copy

CONTAINER = {"imageUri": "image", "args": ["--recipe=digits"]}
PACKAGE = {"executorImageUri": "image", "packageUris": ["gs://bkt/p.tar.gz"], "pythonModule": "trainer.task"}
POOL = {"replicaCount": 1, "machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": CONTAINER}
JOB = {"workerPoolSpecs": [POOL]}
RATE = {"parameterId": "rate", "doubleValueSpec": {"minValue": 1, "maxValue": 2}}
UNITS = {"parameterId": "units", "integerValueSpec": {"minValue": 1, "maxValue": 9}}
WIDTH = {"parameterId": "width", "discreteValueSpec": {"values": [0.5, 1]}}
LOSS = {"parameterId": "loss", "categoricalValueSpec": {"values": ["hinge", "wasserstein"]}}
STUDY = {"metrics": [{"metricId": "frechet", "goal": "MINIMIZE"}], "parameters": [RATE, UNITS, WIDTH, LOSS]}
TUNING = {"studySpec": STUDY, "maxTrialCount": 4, "parallelTrialCount": 2, "trialJobSpec": JOB}


def changed(content, **changes):
    """Returns a copy of a job file with other values.

    Args:
        content: Parsed job file.
        **changes: Values by path, such as `workerPoolSpecs__0__replicaCount`. The value `...` removes a key, and an
            index one past the end of a list appends.
    """
    content = copy.deepcopy(content)
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("__"))
        parent = content
        for part in parents:
            parent = parent[part]
        if value is ...:
            del parent[last]
        elif isinstance(parent, list) and last == len(parent):
            parent.append(value)
        else:
            parent[last] = value
    return content


def pool(*args, count=1, machine=POOL["machineSpec"]):
    """Returns a worker pool whose containers have these args."""
    return changed(POOL, replicaCount=count, machineSpec=machine, containerSpec__args=list(args))


def parameter(name, kind, **spec):
    """Returns a parameter of a study."""
    return {"parameterId": name, f"{kind}ValueSpec": spec}


SEED = parameter("seed", "integer", minValue=1, maxValue=9)


def child(key, values, spec=RATE):
    """Returns a conditional parameter of a study."""
    return {key: {"values": values}, "parameterSpec": spec}
