"""Project, region and address of Vertex AI's job service."""

import os
import re
from dataclasses import dataclass

from trainer.errors import ConfigError

ENDPOINT_VARIABLE = "GAN_TRAINER_VERTEX_ENDPOINT"
"""Environment variable with the address of a local substitute for Vertex AI."""


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
    """Address of a local substitute, `http://HOST:PORT`, which is called without credentials. None: Vertex AI."""

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

    @property
    def parent(self) -> str:
        """Resource name of the location that jobs belong to."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def url(self) -> str:
        """URL of the server, without a path."""
        return self.api_endpoint or f"https://{self.region}-aiplatform.googleapis.com"


def resolve_endpoint(project: str, region: str, api_endpoint: str | None = None) -> Endpoint:
    """Returns the endpoint: `api_endpoint` if given, else that of the environment variable, else Vertex AI's own."""
    address = api_endpoint or os.environ.get(ENDPOINT_VARIABLE) or None
    return Endpoint(project=project, region=region, api_endpoint=address and address.rstrip("/"))
