"""Validates the content of a job file against Vertex AI's messages."""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from trainer.cloud.jobs import api_schema
from trainer.cloud.jobs.scalars import EXPECTED, describe, normalize
from trainer.errors import ConfigError
from trainer.registry import did_you_mean, nearest_name


def validate(value: Any, message: Descriptor, path: str = "") -> dict[str, Any]:
    """Checks keys, types, required keys, and keys that exclude each other.

    Args:
        value: Value in the file.
        message: Descriptor of the message that the value must be.
        path: Path to the value in the file; empty for the whole file.

    Returns:
        A copy with every scalar in its normal form.

    Raises:
        ConfigError: If there is a mistake; the message describes the first one.
    """
    fields = api_schema.fields(message)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{path or 'the file'} is {describe(value)}; it must be an object with the keys {', '.join(fields)}."
        )
    if not value and message.name in api_schema.MAY_BE_EMPTY:
        return {}
    checked = {key: _validate_field(value[key], _field(key, message, path), _join(path, key)) for key in value}
    for key in api_schema.REQUIRED.get(message.name, ()):
        if key not in checked:
            fail(_join(path, key), f"is missing; {_remedy(fields[key])}.")
        if checked[key] in ("", [], {}) and f"{message.name}.{key}" not in api_schema.MAY_BE_EMPTY:
            fail(_join(path, key), f"is empty; {_remedy(fields[key])}.")
    _check_exclusive_keys(checked, message, path or "the file")
    return checked


def fail(path: str, problem: str) -> NoReturn:
    """Raises ConfigError for the value at a path of the file."""
    raise ConfigError(f"{path} {problem}")


def enum_or_none(name: str | None) -> Any:
    """Returns the name of an enumeration's value, or None for its `..._UNSPECIFIED` value."""
    return None if name is None or name.endswith("_UNSPECIFIED") else name


def camel_case(key: str) -> str:
    """Returns a key in Vertex AI's form: `worker_pool_specs` becomes `workerPoolSpecs`."""
    return re.sub(r"[_-]+([a-z0-9])", lambda match: match[1].upper(), key)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _field(key: Any, message: Descriptor, parent_path: str) -> FieldDescriptor:
    """Returns the field of a key; the error for an unknown key names the key that was probably meant."""
    fields, path = api_schema.fields(message), _join(parent_path, key)
    if f"{message.name}.{key}" in api_schema.VIZIER_ONLY:
        fail(path, "is for studies of Vertex AI Vizier; tuning jobs do not support it, so remove it.")
    if key in fields:
        return fields[key]
    if key in api_schema.OUTPUT_ONLY.get(message.name, ()):
        fail(path, "is written by Vertex AI; remove it.")
    camel = camel_case(str(key))
    if camel in fields:
        fail(path, f"is not in camelCase; write {camel}.")
    for name, field in fields.items():
        if api_schema.kind_of(field) == "message" and camel in api_schema.fields(field.message_type):
            index = "[…]" if api_schema.is_list(field) else ""
            fail(path, f"is unknown at this level; move it to {_join(parent_path, name)}{index}.")
    known = f"known keys are {', '.join(fields)}."
    fail(path, f"is unknown; {did_you_mean(camel, fields) or known}")


def _validate_field(value: Any, field: FieldDescriptor, path: str) -> Any:
    """Returns the normal form of a field's value."""
    if value is None:
        fail(path, "has no value; give it one or remove the line.")
    if not api_schema.is_list(field):
        return _validate_value(value, field, path)
    if not isinstance(value, list):
        fail(path, f"is {describe(value)}; it must be a list.")
    return [_validate_value(member, field, f"{path}[{index}]") for index, member in enumerate(value)]


def _validate_value(value: Any, field: FieldDescriptor, path: str) -> Any:
    if value is None:
        fail(path, "has no value; give it one or remove the line.")
    kind = api_schema.kind_of(field)
    if kind == "message":
        return validate(value, field.message_type, path)
    if kind == "enum":
        _check_enum(value, api_schema.enum_names(field), path)
        return value
    return normalize(value, kind, path)


def _check_enum(value: Any, names: tuple[str, ...], path: str) -> None:
    if value in names:
        return
    nearest = nearest_name(str(value).upper(), names) if isinstance(value, str) else None
    advice = f"did you mean {nearest}?" if nearest else f"known values are {', '.join(names)}."
    fail(path, f"is {describe(value)}, which is unknown; {advice}")


def _check_exclusive_keys(checked: Mapping[str, Any], message: Descriptor, path: str) -> None:
    for group, keys in api_schema.exclusive_keys(message).items():
        present = [key for key in keys if key in checked]
        if len(present) > 1:
            fail(path, f"has {' and '.join(present)}; keep one of them.")
        if not present and group in api_schema.EXACTLY_ONE:
            fail(path, f"has none of {', '.join(keys)}; give one of them.")


def _remedy(field: FieldDescriptor) -> str:
    """Returns the advice for a required field that is missing or empty."""
    if api_schema.is_list(field):
        return "list at least one"
    match api_schema.kind_of(field):
        case "enum":
            return f"give one of {', '.join(filter(enum_or_none, api_schema.enum_names(field)))}"
        case "message":
            keys = api_schema.REQUIRED.get(field.message_type.name, api_schema.fields(field.message_type))
            return f"give it {', '.join(keys)}"
        case kind:
            return f"give {EXPECTED[kind].partition(';')[0]}"
