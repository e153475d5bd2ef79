"""The table of messages says what Google's SDK says: the same keys, kinds, words and exclusions, all the way down."""

import pytest
from specs import JOB, TUNING

from trainer.cloud.jobs import job_spec
from trainer.cloud.jobs.api_schema import (
    AT_MOST_ONE,
    EXACTLY_ONE,
    MAY_BE_EMPTY,
    MESSAGES,
    REQUIRED,
    VIZIER_ONLY,
    WRITTEN_BY_VERTEX,
    Many,
    Message,
)

ROOTS = ("CustomJobSpec", "HyperparameterTuningJob")
WELL_KNOWN = {
    "Duration": "duration",
    "Timestamp": "time",
    "BoolValue": "flag",
    "Int32Value": "whole",
}


@pytest.fixture(scope="module")
def descriptors():
    """The descriptor of each message that is reached from the roots and not from Vertex AI's answers alone."""
    types = pytest.importorskip("google.cloud.aiplatform_v1", minversion="2.7").types
    found, waiting = {}, [getattr(types, root).pb().DESCRIPTOR for root in ROOTS]
    while waiting:
        message = waiting.pop()
        found[message.name] = message
        for field in inputs(message):
            inner = field.message_type
            is_ours = inner and inner.name not in WELL_KNOWN and not inner.GetOptions().map_entry
            if is_ours and inner.name not in found:
                waiting.append(inner)
    return found


def inputs(message):
    return [field for field in message.fields if field.json_name not in WRITTEN_BY_VERTEX.get(message.name, ())]


def kind_of(field):
    """A field of a descriptor in the words of the table."""
    if field.message_type is not None:
        name = field.message_type.name
        if field.message_type.GetOptions().map_entry:
            return "labels"
        one = WELL_KNOWN.get(name) or Message(name)
    elif field.enum_type is not None:
        one = tuple(value.name for value in field.enum_type.values)
    else:
        one = {
            field.TYPE_STRING: "text",
            field.TYPE_BOOL: "flag",
            field.TYPE_DOUBLE: "number",
            field.TYPE_INT32: "whole",
            field.TYPE_INT64: "whole64",
        }[field.type]
    return Many(one) if field.is_repeated else one


def test_the_table_has_the_messages_of_the_sdk(descriptors):
    assert MESSAGES.keys() == descriptors.keys()


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_has_the_keys_of_the_sdk(descriptors, message):
    assert MESSAGES[message] == {field.json_name: kind_of(field) for field in inputs(descriptors[message])}


@pytest.mark.parametrize("message", MESSAGES)
def test_keys_exclude_each_other_as_in_the_sdk(descriptors, message):
    groups = [
        tuple(field.json_name for field in group.fields)
        for group in descriptors[message].oneofs
        if not group.name.startswith("_")  # how the SDK writes a key whose absence it knows from its zero
    ]
    assert groups == [table[message] for table in (EXACTLY_ONE, AT_MOST_ONE) if message in table]


def test_keys_that_vertex_ai_writes_are_in_the_sdk(descriptors):
    for message, keys in WRITTEN_BY_VERTEX.items():
        assert keys <= {field.json_name for field in descriptors[message].fields}


def test_required_and_optional_keys_are_in_the_table():
    for message, keys in REQUIRED.items():
        assert set(keys) <= MESSAGES[message].keys()
    for name in VIZIER_ONLY | MAY_BE_EMPTY:
        message, _, key = name.partition(".")
        assert not key or key in MESSAGES[message]


@pytest.mark.parametrize("content", [JOB, TUNING], ids=ROOTS)
def test_the_sdk_takes_what_is_sent(content):
    types = pytest.importorskip("google.cloud.aiplatform_v1", minversion="2.7").types
    json_format = pytest.importorskip("google.protobuf.json_format")
    message = types.CustomJobSpec if content is JOB else types.HyperparameterTuningJob
    json_format.ParseDict(job_spec.parse(content).raw, message.pb(message()))
