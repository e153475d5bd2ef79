"""Every mistake in a hyperparameter tuning job is one sentence, before anything is started or billed."""

import pytest
from specs import POOL, RATE, STUDY, TUNING, changed, child

from trainer.cloud import jobspec
from trainer.errors import ConfigError

P0, P3 = "studySpec.parameters[0]", "studySpec.parameters[3]"
MISTAKES = [
    (changed(TUNING, maxTrialCount=...), "maxTrialCount is missing; give a whole number."),
    (changed(TUNING, parallelTrialCount=0), "parallelTrialCount is 0; the least is 1."),
    (
        changed(TUNING, maxTrialCount=1),
        "maxTrialCount is 1, fewer than parallelTrialCount=2; raise it or lower the other.",
    ),
    (
        changed(TUNING, maxFailedTrialCount=-1),
        "maxFailedTrialCount is -1; the least is 0, which leaves the choice to Vertex AI.",
    ),
    ({"max_trial_count": 3}, "max_trial_count is not in camelCase; write maxTrialCount."),
    (changed(TUNING, state="JOB_STATE_FAILED"), "state is written by Vertex AI; remove it."),
    (changed(TUNING, study_spec=STUDY), "study_spec is not in camelCase; write studySpec."),
    (changed(TUNING, workerPoolSpecs=[POOL]), "workerPoolSpecs is unknown there; it belongs in trialJobSpec."),
    (
        changed(TUNING, labels={"a": 1}),
        "labels is an object; it must be an object whose names and values are text; put them in quotes.",
    ),
    (
        changed(TUNING, trialJobSpec__workerPoolSpecs__0__replicaCount=2),
        "trialJobSpec.workerPoolSpecs[0].replicaCount is 2; the first pool is the one chief, so write 1 and put the "
        "others into trialJobSpec.workerPoolSpecs[1].",
    ),
    (changed(TUNING, studySpec__metrics=[]), "studySpec.metrics is empty; list at least one."),
    (
        changed(TUNING, studySpec__metrics__0__goal=...),
        "studySpec.metrics[0].goal is missing; give one of MAXIMIZE, MINIMIZE.",
    ),
    (
        changed(TUNING, studySpec__metrics__0__goal="GOAL_TYPE_UNSPECIFIED"),
        "studySpec.metrics[0].goal is GOAL_TYPE_UNSPECIFIED, which maximises; write MINIMIZE or MAXIMIZE.",
    ),
    (
        changed(TUNING, studySpec__metrics__0__goal="minimise"),
        "studySpec.metrics[0].goal is 'minimise', which is unknown; did you mean MINIMIZE?",
    ),
    (
        changed(TUNING, studySpec__metrics__1=STUDY["metrics"][0]),
        "studySpec.metrics has metricId frechet twice; keep one.",
    ),
    (
        changed(TUNING, studySpec__observationNoise="LOW"),
        "studySpec.observationNoise is for studies of Vertex AI Vizier, and tuning jobs do not support it; remove it.",
    ),
    (
        changed(TUNING, studySpec__medianAutomatedStoppingSpec={}, studySpec__decayCurveStoppingSpec={}),
        "studySpec has decayCurveStoppingSpec and medianAutomatedStoppingSpec; keep one of them.",
    ),
    (
        changed(TUNING, studySpec__studyStoppingConfig={"minimumRuntimeConstraint": {}}),
        "studySpec.studyStoppingConfig.minimumRuntimeConstraint has none of maxDuration, endTime; give one of them.",
    ),
    (
        changed(TUNING, studySpec__studyStoppingConfig={"minimumRuntimeConstraint": {"endTime": "tomorrow"}}),
        "studySpec.studyStoppingConfig.minimumRuntimeConstraint.endTime is 'tomorrow'; it must be a moment with its "
        "time zone, as in 2026-01-31T12:00:00Z.",
    ),
    *(
        (
            changed(TUNING, studySpec__studyStoppingConfig={"maximumRuntimeConstraint": {"endTime": moment}}),
            f"studySpec.studyStoppingConfig.maximumRuntimeConstraint.endTime is {moment!r}; it must be a moment with "
            "its time zone, as in 2026-01-31T12:00:00Z.",
        )
        for moment in (
            "2026-02-30T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00.1234567891Z",
            "0001-01-01T00:00:00+01:00",
            "2026-01-31T12:00:00+24:00",
        )
    ),
    (
        changed(TUNING, studySpec__parameters__0__doubleValueSpec__maxValue=10**400),
        f"{P0}.doubleValueSpec.maxValue is 1{'0' * 59}; the greatest is 1.7976931348623157e+308.",
    ),
    (
        changed(TUNING, studySpec__algorithm="GRID_SEARCH"),
        "studySpec.algorithm is GRID_SEARCH, and rate is a double; give it discrete values.",
    ),
    (changed(TUNING, studySpec__parameters__0__parameterId=...), f"{P0}.parameterId is missing; give text."),
    (
        changed(TUNING, studySpec__parameters__0__doubleValueSpec=...),
        f"{P0} has none of doubleValueSpec, integerValueSpec, categoricalValueSpec, discreteValueSpec; "
        "give one of them.",
    ),
    (
        changed(TUNING, studySpec__parameters__0__integerValueSpec={"minValue": 1, "maxValue": 2}),
        f"{P0} has doubleValueSpec and integerValueSpec; keep one of them.",
    ),
    (
        changed(TUNING, studySpec__parameters__0__doubleValueSpec__defaultValue=1),
        f"{P0}.doubleValueSpec.defaultValue is for studies of Vertex AI Vizier, and tuning jobs do not support it; "
        "remove it.",
    ),
    (
        changed(TUNING, studySpec__parameters__0__doubleValueSpec__maxValue=float("inf")),
        f"{P0}.doubleValueSpec.maxValue is inf; it must be a finite number.",
    ),
    (
        changed(TUNING, studySpec__parameters__0__doubleValueSpec__maxValue=0.5),
        f"{P0}.doubleValueSpec has minValue 1 above maxValue 0.5; exchange them.",
    ),
    (
        changed(
            TUNING,
            studySpec__parameters__0__scaleType="UNIT_LOG_SCALE",
            studySpec__parameters__0__doubleValueSpec__minValue=0,
        ),
        f"{P0}.doubleValueSpec begins at 0, and a logarithmic scale needs values above 0; raise it, or scale linearly.",
    ),
    (
        changed(
            TUNING,
            studySpec__parameters__2__scaleType="UNIT_REVERSE_LOG_SCALE",
            studySpec__parameters__2__discreteValueSpec__values=[-1, 1],
        ),
        "studySpec.parameters[2].discreteValueSpec begins at -1, and a logarithmic scale needs values above 0; raise "
        "it, or scale linearly.",
    ),
    (
        changed(TUNING, studySpec__parameters__2__discreteValueSpec__values=[1, 0.5]),
        "studySpec.parameters[2].discreteValueSpec.values are 1, 0.5; write them in ascending order, each once.",
    ),
    (
        changed(TUNING, studySpec__parameters__3__categoricalValueSpec__values=[]),
        f"{P3}.categoricalValueSpec.values is empty; list at least one.",
    ),
    (
        changed(TUNING, studySpec__parameters__3__categoricalValueSpec__values=["a", "a"]),
        f"{P3}.categoricalValueSpec.values are a, a; write each once.",
    ),
    (
        changed(TUNING, studySpec__parameters__3__categoricalValueSpec__values=[True, False]),
        f"{P3}.categoricalValueSpec.values[0] is true; it must be text; put it in quotes.",
    ),
    (
        changed(TUNING, studySpec__parameters__3__scaleType="UNIT_LINEAR_SCALE"),
        f"{P3}.scaleType is for numbers, and this parameter is categorical; remove it.",
    ),
    (
        changed(TUNING, studySpec__parameters__4=RATE),
        "studySpec.parameters have parameterId rate twice in one trial; rename one.",
    ),
]


def conditional(parameter, *children):
    return changed(TUNING, **{f"studySpec__parameters__{parameter}__conditionalParameterSpecs": list(children)})


LEAF = {"parameterId": "leaf", "integerValueSpec": {"minValue": 1, "maxValue": 2}}
ON_HINGE = child("parentCategoricalValues", ["hinge"], LEAF)
CHILD_MISTAKES = [
    (
        conditional(3, child("parentCategoricalValues", ["hing"], LEAF)),
        f"{P3}.conditionalParameterSpecs[0].parentCategoricalValues has hing, which loss never is; it is one of hinge, "
        "wasserstein.",
    ),
    (
        conditional(1, child("parentIntValues", [1, 10], LEAF)),
        "studySpec.parameters[1].conditionalParameterSpecs[0].parentIntValues has 10, which units never is; it is from "
        "1 to 9.",
    ),
    (
        conditional(2, child("parentIntValues", [1], LEAF)),
        "studySpec.parameters[2].conditionalParameterSpecs[0].parentIntValues does not fit width, which is discrete; "
        "write parentDiscreteValues.",
    ),
    (
        conditional(0, child("parentDiscreteValues", [1], LEAF)),
        f"{P0}.conditionalParameterSpecs[0] depends on rate, which is a double; give that discrete values.",
    ),
    (
        conditional(3, {"parameterSpec": LEAF}),
        f"{P3}.conditionalParameterSpecs[0] has none of parentDiscreteValues, parentIntValues, "
        "parentCategoricalValues; give one of them.",
    ),
    (
        conditional(3, {"parentCategoricalValues": {"values": ["hinge"]}}),
        f"{P3}.conditionalParameterSpecs[0].parameterSpec is missing; give it parameterId.",
    ),
    (
        conditional(3, changed(ON_HINGE, parameterSpec__integerValueSpec__maxValue=0)),
        f"{P3}.conditionalParameterSpecs[0].parameterSpec.integerValueSpec has minValue 1 above maxValue 0; exchange "
        "them.",
    ),
    (
        conditional(3, ON_HINGE, ON_HINGE),
        "studySpec.parameters have parameterId leaf twice in one trial; rename one.",
    ),
    (
        conditional(3, changed(ON_HINGE, parameterSpec__parameterId="loss")),
        "studySpec.parameters have parameterId loss twice in one trial; rename one.",
    ),
    (
        conditional(3, changed(ON_HINGE, parameterSpec__parameterId="units")),
        "studySpec.parameters have parameterId units twice in one trial; rename one.",
    ),
]


@pytest.mark.parametrize(
    ("content", "sentence"), MISTAKES + CHILD_MISTAKES, ids=[sentence[:70] for _, sentence in MISTAKES + CHILD_MISTAKES]
)
def test_a_mistake_in_a_tuning_job_is_one_sentence(content, sentence):
    with pytest.raises(ConfigError) as caught:
        jobspec.parse(content)
    assert str(caught.value) == sentence
