"""The schema of job files: every field of the SDK has a known type, and the rules name fields of the SDK."""

import sys

import pytest
from refusals import check_refusal
from specs import JOB, TUNING

from trainer.cloud.jobs import api_schema, job_spec
from trainer.errors import ConfigError

ROOTS = ("CustomJobSpec", "HyperparameterTuningJob", "CustomJob")


@pytest.fixture(scope="module")
def messages():
    """Returns the descriptor of every message that a job file may have, by name."""
    found, waiting = {}, [api_schema.root_message(root) for root in ROOTS]
    while waiting:
        message = waiting.pop()
        found[message.name] = message
        for field in api_schema.fields(message).values():
            if api_schema.kind_of(field) == "message" and field.message_type.name not in found:
                waiting.append(field.message_type)
    return found


def test_every_field_of_the_sdk_has_a_known_type(messages):
    kinds = {
        f"{message.name}.{key}": api_schema.kind_of(field)
        for message in messages.values()
        for key, field in api_schema.fields(message).items()
    }
    assert [name for name, kind in kinds.items() if kind == "other"] == []
    assert kinds["WorkerPoolSpec.replicaCount"] == "int64" and kinds["MachineSpec.acceleratorCount"] == "int32"
    assert kinds["Scheduling.timeout"] == "duration" and kinds["StudyTimeConstraint.endTime"] == "timestamp"
    assert kinds["HyperparameterTuningJob.labels"] == "labels" and kinds["MetricSpec.goal"] == "enum"


def test_the_rules_name_messages_and_keys_of_the_sdk(messages):
    keys = {name: {field.json_name for field in message.fields} for name, message in messages.items()}
    for message, names in [*api_schema.REQUIRED.items(), *api_schema.OUTPUT_ONLY.items()]:
        assert set(names) <= keys[message]
    for name in api_schema.VIZIER_ONLY | api_schema.MAY_BE_EMPTY:
        message, _, key = name.partition(".")
        assert message in keys and (not key or key in keys[message])
    assert {
        group for message in messages.values() for group in api_schema.exclusive_keys(message)
    } >= api_schema.EXACTLY_ONE


@pytest.mark.parametrize("content", [JOB, TUNING], ids=ROOTS[:2])
def test_the_sdk_accepts_what_is_sent(content):
    types = pytest.importorskip("google.cloud.aiplatform_v1", minversion="2.7").types
    json_format = pytest.importorskip("google.protobuf.json_format")
    message = types.CustomJobSpec if content is JOB else types.HyperparameterTuningJob
    json_format.ParseDict(job_spec.parse(content).raw, message.pb(message()))


def test_without_the_sdk_the_extra_is_named(monkeypatch):
    api_schema.root_message.cache_clear()
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1.types.custom_job", None)
    extra = "pip install 'gan-trainer[vertex]'"
    check_refusal(lambda: job_spec.parse(JOB), ConfigError, "google-cloud-aiplatform", extra)
