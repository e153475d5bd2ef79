"""Clients and messages of Google's SDK for Vertex AI, which the extra `vertex` installs."""

import importlib
import json
from collections.abc import Mapping
from typing import Any

from trainer.cloud.vertex.api_errors import is_transient, translate_errors
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import ConfigError

FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")
"""States that a job does not leave, without their prefix."""
TIMEOUT_SECS = 60.0
"""Time limit of one request."""
_STATE_PREFIX = "JOB_STATE_"
_RETRY_SECS = 60.0
_FIRST_PAUSE_SECS = 1.0
_MAX_PAUSE_SECS = 10.0


def load() -> Any:
    """Returns the module of the SDK's clients and messages.

    Raises:
        ConfigError: If the SDK is not installed.
    """
    try:
        return importlib.import_module("google.cloud.aiplatform_v1")
    except ImportError as error:
        raise ConfigError(
            "Vertex AI needs google-cloud-aiplatform, which is not installed; run pip install 'gan-trainer[vertex]'."
        ) from error


def connect(endpoint: Endpoint, client_class: str) -> Any:
    """Returns a client of a service, such as `JobServiceClient`.

    Raises:
        ConfigError: If the SDK is not installed.
        JobError: If there are no credentials.
    """
    sdk = load()
    with translate_errors(endpoint):
        return getattr(sdk, client_class)(
            transport="rest",
            credentials=_credentials(endpoint),
            client_options={"api_endpoint": endpoint.api_endpoint or endpoint.url.removeprefix("https://")},
        )


def connect_operations(endpoint: Endpoint) -> Any:
    """Returns a client of long-running operations. The errors are those of `connect`.

    The one in the clients of the SDK reads operations below /ui, an address of the console.
    """
    load()
    from google.api_core import operations_v1

    rules = {"google.longrunning.Operations.GetOperation": [{"method": "get", "uri": "/v1/{name=projects/**}"}]}
    with translate_errors(endpoint):
        transport = operations_v1.OperationsRestTransport(
            host=endpoint.url,
            credentials=_credentials(endpoint),
            scopes=["https://www.googleapis.com/auth/cloud-platform"],
            http_options=rules,
            path_prefix="v1",
        )
        return operations_v1.AbstractOperationsClient(transport=transport)


def to_message(message_class: str, body: Mapping[str, Any], source: str) -> Any:
    """Returns a message of the SDK.

    Args:
        message_class: Class of the message, such as `CustomJob`.
        body: The message as JSON.
        source: Origin of the body, for the message of an error, such as `job file`.

    Raises:
        ConfigError: If the SDK rejects the body, or is not installed.
    """
    message_type = getattr(load(), message_class)
    parse_error = importlib.import_module("google.protobuf.json_format").ParseError
    try:
        return message_type.from_json(json.dumps(body))
    except parse_error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"Google's SDK rejects the {message_class} ({reason}); correct the {source}.") from error


def to_json(message: Any) -> dict[str, Any]:
    """Returns a message of the SDK as JSON with the names of the API."""
    text = type(message).to_json(
        message, use_integers_for_enums=False, always_print_fields_with_no_presence=False, indent=None
    )
    return json.loads(text)


def state_of(job: Mapping[str, Any]) -> str:
    """Returns the state of a job from its JSON, without the prefix: `PENDING`, `RUNNING`, `SUCCEEDED` and so on."""
    return job.get("state", f"{_STATE_PREFIX}UNSPECIFIED").removeprefix(_STATE_PREFIX)


def retry(*, is_repeatable: bool) -> Any:
    """Returns the SDK's description of the errors after which a call is tried again for a while.

    Args:
        is_repeatable: Whether the call may be done twice. If not, it is tried again only if it was refused because of
            an exhausted quota: after a failure of the service, a job may exist, and a second one would be billed too.
    """
    from google.api_core import exceptions as api
    from google.api_core.retry import Retry, if_exception_type

    is_retryable = is_transient if is_repeatable else if_exception_type(api.TooManyRequests)
    return Retry(is_retryable, initial=_FIRST_PAUSE_SECS, maximum=_MAX_PAUSE_SECS, timeout=_RETRY_SECS)


def _credentials(endpoint: Endpoint) -> Any:
    """Returns anonymous credentials, or None for those of the environment."""
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials() if endpoint.is_anonymous else None
