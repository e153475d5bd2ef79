"""What Vertex AI answers where it refuses, as one sentence each; never a token, and no address that may hold one."""

import contextlib
import importlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.errors import JobError

if TYPE_CHECKING:
    from trainer.cloud.vertex.client import Endpoint

_LONGEST = 600
_NOT_TAKEN = (
    "Vertex AI does not take the credentials (401); run gcloud auth application-default login with an account that has "
    "roles/aiplatform.user."
)


@contextlib.contextmanager
def explained(place: "Endpoint", *, name: str | None = None, creating: bool = False) -> Iterator[None]:
    """Turns the errors of Google's libraries into `JobError`.

    Args:
        place: Where the call goes.
        name: The job that it is about.
        creating: Whether it makes a job, of which a lost answer leaves open whether it did.
    """
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    unreadable = importlib.import_module("google.protobuf.json_format").ParseError
    try:
        try:
            yield
        except api.RetryError as error:
            raise (error.cause or error) from None
    except (api.GoogleAPICallError, api.RetryError) as error:
        raise JobError(_sentence(error, place, name, creating)) from error
    except auth.TransportError as error:
        raise JobError(_unreachable(place, creating)) from error
    except auth.InvalidOperation as error:  # a stand-in, which is asked without credentials, wants some
        raise JobError(_NOT_TAKEN) from error
    except auth.DefaultCredentialsError as error:
        raise JobError(
            "no credentials for Google Cloud were found; run gcloud auth application-default login, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file."
        ) from error
    except auth.GoogleAuthError as error:
        raise JobError(
            f"the credentials for Google Cloud are not taken ({type(error).__name__}); run gcloud auth "
            "application-default login."
        ) from error
    except (unreadable, requests.exceptions.JSONDecodeError) as error:
        raise JobError(
            f"{place.address} gives an answer that is not Vertex AI's; check whether something on the network answers "
            f"in its place, and {_again(creating)}"
        ) from error
    except requests.exceptions.RequestException as error:
        raise JobError(_unreachable(place, creating)) from error


def passes(error: Exception) -> bool:
    """Whether the same call may succeed a moment after this error of Google's libraries."""
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    if isinstance(error, auth.GoogleAuthError):
        return isinstance(error, auth.TransportError) or error.retryable
    busy = (api.TooManyRequests, api.InternalServerError, api.BadGateway, api.ServiceUnavailable, api.GatewayTimeout)
    dropped = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, (*busy, *dropped))


def _sentence(error: Exception | None, place: "Endpoint", name: str | None, creating: bool) -> str:
    code, said = getattr(error, "code", None), _message(error)
    where = f"project={place.project} region={place.region}"
    match code:
        case 400:
            return f"Vertex AI does not take the request: {said}; correct it."
        case 401:
            return _NOT_TAKEN
        case 403:
            return (
                f"this account may not use Vertex AI with {where} ({said}); give it roles/aiplatform.user there, or "
                "correct --project."
            )
        case 404 if name is not None:
            return f"there is no job {name} with {where}; python -m trainer jobs list shows those that there are."
        case 404:
            return f"Vertex AI finds nothing with {where} ({said}); correct --project or --region."
        case 429:
            return f"Vertex AI refuses more of {where} for now ({said}); wait, or ask for more quota."
        case 503 | 504:
            return f"Vertex AI is not available with {where} ({said}); {_again(creating)}"
        case _:
            return f"Vertex AI failed with {where} ({type(error).__name__}: {said}); {_again(creating)}"


def _unreachable(place: "Endpoint", creating: bool) -> str:
    return f"{place.address} cannot be reached; check --region and the network, and {_again(creating)}"


def _again(creating: bool) -> str:
    looking = "look with python -m trainer jobs list whether the job is there before you send it again."
    return looking if creating else "try again."


def _message(error: Exception | None) -> str:
    """What the service says, on one line, without the address that the SDK puts before it."""
    text = str(getattr(error, "message", None) or error or "no reason given")
    text = re.sub(r"^[A-Z]+ https?://\S+: ", "", " ".join(text.split()))
    return text[:_LONGEST].rstrip(" .;") or "no reason given"
