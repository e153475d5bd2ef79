"""The keys and types of Vertex AI's `CustomJobSpec` and `HyperparameterTuningJob`, and of every message in them.

Source: the API's version v1, as google-cloud-aiplatform 2.7 has it; a test compares the two.
"""

from dataclasses import dataclass
from typing import Literal, Union

Scalar = Literal["text", "whole", "whole64", "number", "flag", "duration", "time", "labels"]
"""A kind of value: text, a whole number of 32 or of 64 bits, any number, true or false, seconds as in 3600s, a moment
as in 2026-01-31T12:00:00Z, and texts by name."""


@dataclass(frozen=True)
class Message:
    """An object with the keys of `MESSAGES[name]`."""

    name: str


@dataclass(frozen=True)
class Many:
    """A list."""

    of: "Kind"


Kind = Union[Scalar, tuple[str, ...], Message, Many]  # noqa: UP007  (3.10 cannot join the forward reference in Many)
"""What a key holds; a tuple is an enumeration of its legal words."""

_TASK_KEYS: dict[str, Kind] = {"args": Many("text"), "env": Many(Message("EnvVar"))}

MESSAGES: dict[str, dict[str, Kind]] = {
    "CustomJobSpec": {
        "persistentResourceId": "text",
        "workerPoolSpecs": Many(Message("WorkerPoolSpec")),
        "scheduling": Message("Scheduling"),
        "serviceAccount": "text",
        "network": "text",
        "reservedIpRanges": Many("text"),
        "pscInterfaceConfig": Message("PscInterfaceConfig"),
        "baseOutputDirectory": Message("GcsDestination"),
        "protectedArtifactLocationId": "text",
        "tensorboard": "text",
        "enableWebAccess": "flag",
        "enableDashboardAccess": "flag",
        "experiment": "text",
        "experimentRun": "text",
        "models": Many("text"),
    },
    "WorkerPoolSpec": {
        "containerSpec": Message("ContainerSpec"),
        "pythonPackageSpec": Message("PythonPackageSpec"),
        "machineSpec": Message("MachineSpec"),
        "replicaCount": "whole64",
        "nfsMounts": Many(Message("NfsMount")),
        "lustreMounts": Many(Message("LustreMount")),
        "diskSpec": Message("DiskSpec"),
    },
    "ContainerSpec": {"imageUri": "text", "command": Many("text"), **_TASK_KEYS},
    "PythonPackageSpec": {
        "executorImageUri": "text",
        "packageUris": Many("text"),
        "pythonModule": "text",
        **_TASK_KEYS,
    },
    "EnvVar": {"name": "text", "value": "text"},
    "MachineSpec": {
        "machineType": "text",
        "acceleratorType": (
            "ACCELERATOR_TYPE_UNSPECIFIED",
            "NVIDIA_TESLA_K80",
            "NVIDIA_TESLA_P100",
            "NVIDIA_TESLA_V100",
            "NVIDIA_TESLA_P4",
            "NVIDIA_TESLA_T4",
            "TPU_V2",
            "TPU_V3",
            "NVIDIA_TESLA_A100",
            "NVIDIA_A100_80GB",
            "TPU_V4_POD",
            "NVIDIA_L4",
            "TPU_V5_LITEPOD",
            "NVIDIA_H100_80GB",
            "NVIDIA_H100_MEGA_80GB",
            "NVIDIA_H200_141GB",
            "NVIDIA_B200",
            "NVIDIA_GB200",
            "NVIDIA_RTX_PRO_6000",
        ),
        "acceleratorCount": "whole",
        "gpuPartitionSize": "text",
        "tpuTopology": "text",
        "reservationAffinity": Message("ReservationAffinity"),
    },
    "ReservationAffinity": {
        "reservationAffinityType": ("TYPE_UNSPECIFIED", "NO_RESERVATION", "ANY_RESERVATION", "SPECIFIC_RESERVATION"),
        "key": "text",
        "values": Many("text"),
    },
    "NfsMount": {"server": "text", "path": "text", "mountPoint": "text"},
    "LustreMount": {"instanceIp": "text", "volumeHandle": "text", "filesystem": "text", "mountPoint": "text"},
    "DiskSpec": {"bootDiskType": "text", "bootDiskSizeGb": "whole"},
    "Scheduling": {
        "timeout": "duration",
        "restartJobOnWorkerRestart": "flag",
        "strategy": ("STRATEGY_UNSPECIFIED", "ON_DEMAND", "LOW_COST", "STANDARD", "SPOT", "FLEX_START"),
        "disableRetries": "flag",
        "maxWaitDuration": "duration",
    },
    "PscInterfaceConfig": {
        "networkAttachment": "text",
        "dnsPeeringConfigs": Many(Message("DnsPeeringConfig")),
    },
    "DnsPeeringConfig": {"domain": "text", "targetProject": "text", "targetNetwork": "text"},
    "GcsDestination": {"outputUriPrefix": "text"},
    "HyperparameterTuningJob": {
        "displayName": "text",
        "studySpec": Message("StudySpec"),
        "maxTrialCount": "whole",
        "parallelTrialCount": "whole",
        "maxFailedTrialCount": "whole",
        "trialJobSpec": Message("CustomJobSpec"),
        "labels": "labels",
        "encryptionSpec": Message("EncryptionSpec"),
    },
    "EncryptionSpec": {"kmsKeyName": "text"},
    "StudySpec": {
        "decayCurveStoppingSpec": Message("DecayCurveAutomatedStoppingSpec"),
        "medianAutomatedStoppingSpec": Message("MedianAutomatedStoppingSpec"),
        "convexAutomatedStoppingSpec": Message("ConvexAutomatedStoppingSpec"),
        "metrics": Many(Message("MetricSpec")),
        "parameters": Many(Message("ParameterSpec")),
        "algorithm": ("ALGORITHM_UNSPECIFIED", "GRID_SEARCH", "RANDOM_SEARCH"),
        "observationNoise": ("OBSERVATION_NOISE_UNSPECIFIED", "LOW", "HIGH"),
        "measurementSelectionType": (
            "MEASUREMENT_SELECTION_TYPE_UNSPECIFIED",
            "LAST_MEASUREMENT",
            "BEST_MEASUREMENT",
        ),
        "studyStoppingConfig": Message("StudyStoppingConfig"),
    },
    "DecayCurveAutomatedStoppingSpec": {"useElapsedDuration": "flag"},
    "MedianAutomatedStoppingSpec": {"useElapsedDuration": "flag"},
    "ConvexAutomatedStoppingSpec": {
        "maxStepCount": "whole64",
        "minStepCount": "whole64",
        "minMeasurementCount": "whole64",
        "learningRateParameterName": "text",
        "useElapsedDuration": "flag",
        "updateAllStoppedTrials": "flag",
    },
    "MetricSpec": {
        "metricId": "text",
        "goal": ("GOAL_TYPE_UNSPECIFIED", "MAXIMIZE", "MINIMIZE"),
        "safetyConfig": Message("SafetyMetricConfig"),
    },
    "SafetyMetricConfig": {"safetyThreshold": "number", "desiredMinSafeTrialsFraction": "number"},
    "ParameterSpec": {
        "doubleValueSpec": Message("DoubleValueSpec"),
        "integerValueSpec": Message("IntegerValueSpec"),
        "categoricalValueSpec": Message("CategoricalValueSpec"),
        "discreteValueSpec": Message("DiscreteValueSpec"),
        "parameterId": "text",
        "scaleType": ("SCALE_TYPE_UNSPECIFIED", "UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"),
        "conditionalParameterSpecs": Many(Message("ConditionalParameterSpec")),
    },
    "DoubleValueSpec": {"minValue": "number", "maxValue": "number", "defaultValue": "number"},
    "IntegerValueSpec": {"minValue": "whole64", "maxValue": "whole64", "defaultValue": "whole64"},
    "CategoricalValueSpec": {"values": Many("text"), "defaultValue": "text"},
    "DiscreteValueSpec": {"values": Many("number"), "defaultValue": "number"},
    "ConditionalParameterSpec": {
        "parentDiscreteValues": Message("DiscreteValueCondition"),
        "parentIntValues": Message("IntValueCondition"),
        "parentCategoricalValues": Message("CategoricalValueCondition"),
        "parameterSpec": Message("ParameterSpec"),
    },
    "DiscreteValueCondition": {"values": Many("number")},
    "IntValueCondition": {"values": Many("whole64")},
    "CategoricalValueCondition": {"values": Many("text")},
    "StudyStoppingConfig": {
        "shouldStopAsap": "flag",
        "minimumRuntimeConstraint": Message("StudyTimeConstraint"),
        "maximumRuntimeConstraint": Message("StudyTimeConstraint"),
        "minNumTrials": "whole",
        "maxNumTrials": "whole",
        "maxNumTrialsNoProgress": "whole",
        "maxDurationNoProgress": "duration",
    },
    "StudyTimeConstraint": {"maxDuration": "duration", "endTime": "time"},
}
"""The keys of each message and what they hold."""

WRITTEN_BY_VERTEX: dict[str, frozenset[str]] = {
    "HyperparameterTuningJob": frozenset(
        {"name", "trials", "state", "error", "satisfiesPzs", "satisfiesPzi"}
        | {"createTime", "startTime", "endTime", "updateTime"}
    ),
}
"""Keys that Vertex AI answers with and takes from nobody."""

VIZIER_ONLY = frozenset(
    f"{spec}.defaultValue"
    for spec in ("DoubleValueSpec", "IntegerValueSpec", "CategoricalValueSpec", "DiscreteValueSpec")
) | {"StudySpec.observationNoise"}
"""Keys that studies of Vertex AI Vizier have, and that tuning jobs do not support."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "CustomJobSpec": ("workerPoolSpecs",),
    "WorkerPoolSpec": ("machineSpec", "replicaCount"),
    "MachineSpec": ("machineType",),
    "ReservationAffinity": ("reservationAffinityType",),
    "ContainerSpec": ("imageUri",),
    "PythonPackageSpec": ("executorImageUri", "packageUris", "pythonModule"),
    "EnvVar": ("name", "value"),
    "NfsMount": ("server", "path", "mountPoint"),
    "LustreMount": ("instanceIp", "volumeHandle", "filesystem", "mountPoint"),
    "DnsPeeringConfig": ("domain", "targetProject", "targetNetwork"),
    "GcsDestination": ("outputUriPrefix",),
    "HyperparameterTuningJob": ("studySpec", "maxTrialCount", "parallelTrialCount", "trialJobSpec"),
    "EncryptionSpec": ("kmsKeyName",),
    "StudySpec": ("metrics", "parameters"),
    "MetricSpec": ("metricId", "goal"),
    "ParameterSpec": ("parameterId",),
    "DoubleValueSpec": ("minValue", "maxValue"),
    "IntegerValueSpec": ("minValue", "maxValue"),
    "CategoricalValueSpec": ("values",),
    "DiscreteValueSpec": ("values",),
    "ConditionalParameterSpec": ("parameterSpec",),
    "DiscreteValueCondition": ("values",),
    "IntValueCondition": ("values",),
    "CategoricalValueCondition": ("values",),
}
"""Keys that must be there, and not be empty. A goal is among them: where it is missing, Vertex AI maximizes."""

EXACTLY_ONE: dict[str, tuple[str, ...]] = {
    "WorkerPoolSpec": ("containerSpec", "pythonPackageSpec"),
    "ParameterSpec": ("doubleValueSpec", "integerValueSpec", "categoricalValueSpec", "discreteValueSpec"),
    "ConditionalParameterSpec": ("parentDiscreteValues", "parentIntValues", "parentCategoricalValues"),
    "StudyTimeConstraint": ("maxDuration", "endTime"),
}
AT_MOST_ONE: dict[str, tuple[str, ...]] = {
    "StudySpec": ("decayCurveStoppingSpec", "medianAutomatedStoppingSpec", "convexAutomatedStoppingSpec"),
}
"""Keys that exclude each other."""

MAY_BE_EMPTY = frozenset({"WorkerPoolSpec", "EnvVar.value"})
"""A message that may be `{}` whatever it requires, which is a pool without machines; a required key that may be ""."""
