"""Tuning jobs and trials for tests of local studies."""

import json
import math

from specs import LOSS, TUNING, changed, child

from trainer.cloud.jobs import job_spec
from trainer.cloud.tuning import study_runner

LOG_RATE = {"parameterId": "rate", "scaleType": "UNIT_LOG_SCALE", "doubleValueSpec": {"minValue": 1e-5, "maxValue": 1}}
WEIGHT = {"parameterId": "penalty_weight", "doubleValueSpec": {"minValue": 1, "maxValue": 20}}
CONDITIONAL = {**LOSS, "conditionalParameterSpecs": [child("parentCategoricalValues", ["wasserstein"], WEIGHT)]}


def job(*parameters, count=8, parallel=1, **study):
    """A tuning job that minimizes `frechet`. Keys that end in `Count` are the job's; all others are the study's."""
    content = changed(TUNING, maxTrialCount=count, parallelTrialCount=parallel)
    content["studySpec"]["parameters"] = list(parameters) or [LOG_RATE]
    content |= {key: study.pop(key) for key in list(study) if key.endswith("Count")}
    content["studySpec"] |= study
    return job_spec.parse(content)


def report(trial, *values, metric="frechet"):
    """Writes a metric file as a trainer does, with the steps 10, 20 and so on."""
    lines = [{metric: str(value), "global_step": str(10 * n), "trial": trial.id} for n, value in enumerate(values, 1)]
    trial.metric_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def bowl(trial):
    """Best at a rate of 1e-2."""
    report(trial, (math.log10(trial.parameters["rate"]) + 2) ** 2)
    return 0


def run(spec, folder, run_trial=bowl):
    return study_runner.run_study(spec, folder, run_trial, poll_secs=0.005)


def written(folder):
    return json.loads((folder / "trials.json").read_text())


def parameters(folder):
    """Parameters of every recorded trial, by trial ID."""
    return {t["id"]: {p["parameterId"]: p["value"] for p in t["parameters"]} for t in written(folder)["trials"]}
