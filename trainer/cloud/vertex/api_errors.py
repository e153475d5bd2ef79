"""Errors of Google's client libraries as `JobError`s of one sentence, without tokens and without URLs of requests."""

import contextlib
import importlib
import re
from collections.abc import Iterator
from http import HTTPStatus

from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import MISSING_CREDENTIALS, JobError

TRY_AGAIN = "try again."
_MAX_REASON_CHARACTERS = 600
_UNAUTHORIZED = f"Vertex AI rejected the request (401): {MISSING_CREDENTIALS}"


@contextlib.contextmanager
def translate_errors(endpoint: Endpoint, *, job_name: str | None = None, advice: str = TRY_AGAIN) -> Iterator[None]:
    """Turns errors of Google's libraries into `JobError`.

    Args:
        endpoint: Server of the call.
        job_name: Name of the job that the call reads or changes. None: the call is not about one job.
        advice: What to do after an error that may pass. A call that must not be repeated may have succeeded although
            the answer was lost.
    """
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    parse_error = importlib.import_module("google.protobuf.json_format").ParseError
    try:
        try:
            yield
        except api.RetryError as error:
            raise (error.cause or error) from None
    except (api.GoogleAPICallError, api.RetryError) as error:
        raise JobError(_describe_error(error, endpoint, job_name, advice)) from error
    except auth.TransportError as error:
        raise JobError(_describe_unreachable(endpoint, advice)) from error
    except auth.InvalidOperation as error:  # anonymous credentials cannot be refreshed after a 401
        raise JobError(_UNAUTHORIZED) from error
    except auth.GoogleAuthError as error:
        raise JobError(f"{endpoint.url} cannot be called ({type(error).__name__}): {MISSING_CREDENTIALS}") from error
    except (parse_error, requests.exceptions.JSONDecodeError) as error:
        raise JobError(
            f"{endpoint.url} returned an answer that is not Vertex AI's; check for a proxy or a login page of the "
            f"network, and {advice}"
        ) from error
    except requests.exceptions.RequestException as error:
        raise JobError(_describe_unreachable(endpoint, advice)) from error


def is_transient(error: Exception) -> bool:
    """Returns whether the same call may succeed a moment after this error of Google's libraries."""
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    if isinstance(error, auth.GoogleAuthError):
        return isinstance(error, auth.TransportError) or error.retryable
    busy = (api.TooManyRequests, api.InternalServerError, api.BadGateway, api.ServiceUnavailable, api.GatewayTimeout)
    dropped = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, (*busy, *dropped))


def _describe_error(error: Exception, endpoint: Endpoint, job_name: str | None, advice: str) -> str:
    """Returns one sentence: what the service reported, and what to do."""
    code, reason = getattr(error, "code", None), _reason(error)
    where = f"project={endpoint.project} region={endpoint.region}"
    match code:
        case HTTPStatus.BAD_REQUEST:
            return f"Vertex AI rejected the request: {reason}; correct it."
        case HTTPStatus.UNAUTHORIZED:
            return _UNAUTHORIZED
        case HTTPStatus.FORBIDDEN:
            return (
                f"this account has no permission to use Vertex AI in {where} ({reason}); grant it "
                "roles/aiplatform.user there, or correct --project."
            )
        case HTTPStatus.NOT_FOUND if job_name is not None:
            return (
                f"job {job_name} does not exist in {where}; run python -m trainer jobs list to see the existing jobs."
            )
        case HTTPStatus.NOT_FOUND:
            return f"Vertex AI found no such resource in {where} ({reason}); correct --project or --region."
        case HTTPStatus.TOO_MANY_REQUESTS:
            return f"Vertex AI reports an exhausted quota in {where} ({reason}); wait, or request more quota."
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.GATEWAY_TIMEOUT:
            return f"Vertex AI is unavailable in {where} ({reason}); {advice}"
        case _:
            return f"Vertex AI failed in {where} ({type(error).__name__}: {reason}); {advice}"


def _describe_unreachable(endpoint: Endpoint, advice: str) -> str:
    return f"{endpoint.url} cannot be reached; check --region and the network, and {advice}"


def _reason(error: Exception) -> str:
    """Returns the service's explanation on one line, without the URL that the SDK puts before it."""
    text = str(getattr(error, "message", None) or error or "no reason given")
    text = re.sub(r"^[A-Z]+ https?://\S+: ", "", " ".join(text.split()))
    return text[:_MAX_REASON_CHARACTERS].rstrip(" .;") or "no reason given"
