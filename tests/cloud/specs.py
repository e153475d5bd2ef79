"""Small job files, as the objects that YAML gives, and how to change them."""

import copy

CONTAINER = {"imageUri": "image", "args": ["--recipe=digits"]}
PACKAGE = {"executorImageUri": "image", "packageUris": ["gs://b/p.tar.gz"], "pythonModule": "trainer.task"}
POOL = {"replicaCount": 1, "machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": CONTAINER}
JOB = {"workerPoolSpecs": [POOL]}
RATE = {"parameterId": "rate", "doubleValueSpec": {"minValue": 1, "maxValue": 2}}
UNITS = {"parameterId": "units", "integerValueSpec": {"minValue": 1, "maxValue": 9}}
WIDTH = {"parameterId": "width", "discreteValueSpec": {"values": [0.5, 1]}}
LOSS = {"parameterId": "loss", "categoricalValueSpec": {"values": ["hinge", "wasserstein"]}}
STUDY = {"metrics": [{"metricId": "frechet", "goal": "MINIMIZE"}], "parameters": [RATE, UNITS, WIDTH, LOSS]}
TUNING = {"studySpec": STUDY, "maxTrialCount": 4, "parallelTrialCount": 2, "trialJobSpec": JOB}


def changed(content, **changes):
    """A copy with other values at paths such as workerPoolSpecs__0__replicaCount; the value ... removes a key."""
    content = copy.deepcopy(content)
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("__"))
        place = content
        for part in parents:
            place = place[part]
        if value is ...:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return content


def child(key, values, spec=RATE):
    return {key: {"values": values}, "parameterSpec": spec}
