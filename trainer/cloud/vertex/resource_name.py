"""Names of resources of Vertex AI, such as `projects/p/locations/us-central1/customJobs/123`."""

import re
from typing import NamedTuple

_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)/([^/]+)/([\w-]+)")


class ResourceName(NamedTuple):
    """The parts of the name of a resource."""

    project: str
    """ID or number of the project."""
    region: str
    collection: str
    """Kind of the resource, such as `customJobs`."""
    number: str

    @classmethod
    def parse(cls, name: str) -> "ResourceName | None":
        """Parses the full name of a resource. None: it is not one, such as a number alone."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(*match.groups())


def number_of(name: str) -> str:
    """Returns the number of a resource, which is the last part of its name."""
    return name.rpartition("/")[2]
