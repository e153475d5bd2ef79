"""Schema of Vertex AI's job messages: the descriptors of Google's SDK and the rules that they do not state."""

import functools
import importlib
from collections.abc import Mapping
from typing import Literal

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from trainer.errors import ConfigError

Kind = Literal[
    "text", "int32", "int64", "double", "bool", "duration", "timestamp", "labels", "enum", "message", "other"
]
"""Type of a field's value, or of each value if the field is repeated. The SDK checks `other` before it sends a job."""

_TYPES_PACKAGE = "google.cloud.aiplatform_v1.types"
_MODULES = {
    "CustomJob": "custom_job",
    "CustomJobSpec": "custom_job",
    "HyperparameterTuningJob": "hyperparameter_tuning_job",
}
_MESSAGE_PREFIX = "google.cloud.aiplatform."
_KINDS: Mapping[int, Kind] = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
}
_WELL_KNOWN_KINDS: Mapping[str, Kind] = {
    "google.protobuf.Duration": "duration",
    "google.protobuf.Timestamp": "timestamp",
    "google.protobuf.BoolValue": "bool",
    "google.protobuf.Int32Value": "int32",
}

_WRITTEN_FOR_EVERY_JOB = frozenset(
    {"name", "state", "error", "satisfiesPzs", "satisfiesPzi", "createTime", "startTime", "endTime", "updateTime"}
)
OUTPUT_ONLY: Mapping[str, frozenset[str]] = {
    "CustomJob": _WRITTEN_FOR_EVERY_JOB | {"webAccessUris"},
    "HyperparameterTuningJob": _WRITTEN_FOR_EVERY_JOB | {"trials"},
}
"""Keys that only Vertex AI writes."""

VIZIER_ONLY = frozenset(
    f"{spec}.defaultValue"
    for spec in ("DoubleValueSpec", "IntegerValueSpec", "CategoricalValueSpec", "DiscreteValueSpec")
) | {"StudySpec.observationNoise"}
"""Keys for studies of Vertex AI Vizier, which tuning jobs do not support."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "CustomJob": ("jobSpec",),
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
"""Keys that must be present and not empty. `goal` is included because Vertex AI maximizes if it is missing."""

EXACTLY_ONE = frozenset(
    {
        "WorkerPoolSpec.task",
        "ParameterSpec.parameter_value_spec",
        "ConditionalParameterSpec.parent_value_condition",
        "StudyTimeConstraint.constraint",
    }
)
"""Groups of keys (`oneof`) in which one key is required. In other groups, all keys may be missing."""

MAY_BE_EMPTY = frozenset({"WorkerPoolSpec", "EnvVar.value"})
"""Messages that may be `{}` despite their required keys (a pool without machines), and required keys that may be ""."""


@functools.cache
def root_message(name: str) -> Descriptor:
    """Returns the descriptor of `CustomJob`, `CustomJobSpec` or `HyperparameterTuningJob`.

    Raises:
        ConfigError: If Google's SDK is not installed.
    """
    try:
        module = importlib.import_module(f"{_TYPES_PACKAGE}.{_MODULES[name]}")
    except ImportError as error:
        raise ConfigError(
            "checking a job file needs google-cloud-aiplatform; run pip install 'gan-trainer[vertex]'."
        ) from error
    return getattr(module, name).pb().DESCRIPTOR


@functools.cache
def fields(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Returns the fields of a message that a job file may have, by their keys in camelCase."""
    hidden = OUTPUT_ONLY.get(message.name, frozenset())
    return {field.json_name: field for field in message.fields if field.json_name not in hidden}


def exclusive_keys(message: Descriptor) -> Mapping[str, tuple[str, ...]]:
    """Returns the keys that exclude each other, by the name of their group, such as `WorkerPoolSpec.task`."""
    return {
        f"{message.name}.{group.name}": tuple(field.json_name for field in group.fields)
        for group in message.oneofs
        if not group.name.startswith("_")  # protobuf's form of an optional field
    }


def kind_of(field: FieldDescriptor) -> Kind:
    """Returns the type of a field's value, or of each value if the field is repeated."""
    message = field.message_type
    if message is None:
        return _KINDS.get(field.type, "other")
    if message.GetOptions().map_entry:
        is_text = all(_KINDS.get(part.type) == "text" for part in message.fields)
        return "labels" if is_text else "other"
    if message.full_name.startswith(_MESSAGE_PREFIX):
        return "message"
    return _WELL_KNOWN_KINDS.get(message.full_name, "other")


def is_list(field: FieldDescriptor) -> bool:
    """Returns whether a field holds a list. Protobuf also marks maps as repeated."""
    return field.is_repeated and not (field.message_type and field.message_type.GetOptions().map_entry)


def enum_names(field: FieldDescriptor) -> tuple[str, ...]:
    """Returns the allowed names of an enumeration."""
    return tuple(value.name for value in field.enum_type.values)
