"""Flags for the project, the region and the server of Vertex AI."""

from absl import flags as absl_flags

from trainer.cloud.jobs import variables
from trainer.cloud.vertex.endpoint import ANONYMOUS_HELP, API_ENDPOINT_HELP, Endpoint, resolve_endpoint
from trainer.errors import ConfigError


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    strings = {
        "project": "Project, which is billed. None: the variable PROJECT.",
        "region": "Region, such as us-central1. None: the variable REGION.",
        "api_endpoint": API_ENDPOINT_HELP,
    }
    for name, text in strings.items():
        absl_flags.DEFINE_string(name, None, text, flag_values=values)
    absl_flags.DEFINE_bool("anonymous", None, ANONYMOUS_HELP, flag_values=values)


def resolve(
    values: absl_flags.FlagValues,
    project: str | None,
    region: str | None,
    *,
    alternative: str = "",
    is_printed: bool = False,
) -> Endpoint:
    """Returns the endpoint of a project and a region at the server of the flags.

    Args:
        values: Values of the flags.
        project: Project. None: it is not known.
        region: Region. None: it is not known.
        alternative: What else a user can do about a missing one, for the message, such as `print the request`.
        is_printed: Whether requests are only printed, so that a placeholder may stand for a missing one.

    Raises:
        ConfigError: If the project or the region is missing or a placeholder, or a value is malformed.
    """
    for name, value in (("project", project), ("region", region)):
        if is_printed:
            continue
        if not value:
            raise ConfigError(f"{variables.describe_missing(name)}{alternative and ', or '}{alternative}.")
        if value == name.upper():
            raise ConfigError(f"--{name}={value} is a placeholder; give your own {name}.")
    return resolve_endpoint(project or "PROJECT", region or "REGION", values.api_endpoint, values.anonymous)
