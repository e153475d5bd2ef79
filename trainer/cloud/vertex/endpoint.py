"""Project, region and address of Vertex AI's job service."""

import os
import re
from dataclasses import dataclass

from trainer.errors import ConfigError, quote

ENDPOINT_VARIABLE = "GAN_TRAINER_VERTEX_ENDPOINT"
"""Environment variable with the address of another server for Vertex AI's API."""
ANONYMOUS_VARIABLE = "GAN_TRAINER_VERTEX_ANONYMOUS"
"""Environment variable that is `true` if that server is called without credentials."""
API_ENDPOINT_HELP = (
    "https://HOST of another address of Vertex AI, or http://HOST:PORT of a test server. None: "
    f"${ENDPOINT_VARIABLE}, else the region's own address."
)
"""Help text of the flag --api_endpoint."""
ANONYMOUS_HELP = f"Call --api_endpoint, a test server, without credentials. None: ${ANONYMOUS_VARIABLE}, else false."
"""Help text of the flag --anonymous."""
_LOOPBACK = re.compile(r"http://(localhost|127(\.\d{1,3}){3})(:\d+)?")
_BOOLEANS = {"": False, "0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The project and region that run jobs, and the server that accepts them.

    The placeholders `PROJECT` and `REGION` are valid, for a request that is only printed.

    Raises:
        ConfigError: If the project, the region or the address is malformed.
    """

    project: str
    region: str
    api_endpoint: str | None = None
    """Address of another server, without a path: `https://HOST`, or `http://HOST:PORT`. None: the region's own."""
    is_anonymous: bool = False
    """True if `api_endpoint` is a test server, which is called without credentials and also serves the logs."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.:-]*|PROJECT", self.project):
            raise ConfigError(f"project={self.project} is not a project ID; give one, as in --project=my-project.")
        if not re.fullmatch(r"[a-z]+-[a-z]+\d+|REGION", self.region):
            raise ConfigError(f"region={self.region} is not a region; give one, as in --region=us-central1.")
        if self.api_endpoint is not None and not re.fullmatch(r"https?://[^/\s:]+(:\d+)?", self.api_endpoint):
            raise ConfigError(
                f"api_endpoint={self.api_endpoint} is not an address; write http://HOST:PORT, or leave it out (and "
                f"unset {ENDPOINT_VARIABLE}) to use Vertex AI."
            )
        if self.is_anonymous and self.api_endpoint is None:
            raise ConfigError(
                f"--anonymous is for a test server, but Vertex AI needs credentials; pass --api_endpoint, or remove "
                f"--anonymous (and unset {ANONYMOUS_VARIABLE})."
            )
        address = self.api_endpoint or self.url
        if not self.is_anonymous and not address.startswith("https://") and not _LOOPBACK.fullmatch(address):
            raise ConfigError(
                f"api_endpoint={address} would receive your credentials unencrypted; write https://HOST, or pass "
                "--anonymous if it is a test server."
            )

    @property
    def parent(self) -> str:
        """Resource name of the location that jobs belong to."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def known_region(self) -> str | None:
        """The region. None: it is a placeholder."""
        return None if self.region == "REGION" else self.region

    @property
    def url(self) -> str:
        """URL of the server, without a path."""
        return self.api_endpoint or f"https://{self.region}-aiplatform.googleapis.com"


def resolve_endpoint(
    project: str, region: str, api_endpoint: str | None = None, anonymous: bool | None = None
) -> Endpoint:
    """Returns the endpoint that the flags and the environment describe.

    Args:
        project: Project ID.
        region: Region, such as us-central1.
        api_endpoint: Address of another server. None: that of the environment variable, else the region's own.
        anonymous: Whether that server is called without credentials. None: as in the environment variable, else False.

    Raises:
        ConfigError: If a value is malformed, or credentials would be sent unencrypted.
    """
    address = api_endpoint or os.environ.get(ENDPOINT_VARIABLE) or None
    if anonymous is None:
        text = os.environ.get(ANONYMOUS_VARIABLE, "")
        if text.lower() not in _BOOLEANS:
            raise ConfigError(f"{ANONYMOUS_VARIABLE}={quote(text)} is not a truth value; write true or false.")
        anonymous = _BOOLEANS[text.lower()]
    return Endpoint(
        project=project, region=region, api_endpoint=address and address.rstrip("/"), is_anonymous=anonymous
    )
