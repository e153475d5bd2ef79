"""Flags that `deploy` and `batch` have in common."""

import logging
import re
from typing import Any

from absl import flags as absl_flags

from trainer.cli import endpoint_flags
from trainer.cloud.jobs import machines, variables
from trainer.cloud.jobs.service_rules import check_resource
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import ConfigError, quote

_logger = logging.getLogger(__name__)


def define_service(values: absl_flags.FlagValues) -> None:
    """Defines the flags of the service and of the machines that run the server."""
    endpoint_flags.define(values)
    strings = {
        "machine_type": "Machine type.",
        "accelerator_type": "Accelerator of each machine, such as NVIDIA_L4. None: none.",
        "service_account": "Email address of the account that the server runs as. None: Vertex AI's own.",
        "kms_key": "Key projects/P/locations/R/keyRings/K/cryptoKeys/N that encrypts what the command creates.",
    }
    for name, text in strings.items():
        default = "n2-standard-4" if name == "machine_type" else None
        absl_flags.DEFINE_string(name, default, text, flag_values=values)
    absl_flags.DEFINE_integer(
        "accelerator_count", 1, "Accelerators of each machine.", lower_bound=1, flag_values=values
    )
    absl_flags.DEFINE_bool("dry_run", False, "Print the requests as JSON, and send nothing.", flag_values=values)


def endpoint_of(values: absl_flags.FlagValues) -> Endpoint:
    """Returns the project and region of the flags.

    Raises:
        ConfigError: If one is missing without `--dry_run`, or malformed.
    """
    project, region = variables.project_and_region(values.project, values.region)
    return endpoint_flags.resolve(
        values, project, region, is_printed=values.dry_run, alternative="print the requests with --dry_run"
    )


def check_service(values: absl_flags.FlagValues, endpoint: Endpoint) -> None:
    """Rejects machines and names of resources that Vertex AI would reject, and warns of unknown machines.

    The tables of machines are those of training, which differ little from those of prediction.

    Args:
        values: Values of the flags.
        endpoint: Project and region, from `endpoint_of`.

    Raises:
        ConfigError: If there is a violation.
    """
    machine, accelerator = values.machine_type, values.accelerator_type
    if accelerator is None and values["accelerator_count"].present:
        raise ConfigError(
            f"--accelerator_count={values.accelerator_count} has no effect without --accelerator_type; pass both."
        )
    if not re.fullmatch("[a-z0-9-]+", machine):
        raise ConfigError(f"--machine_type={quote(machine)} is not a machine type; give one such as n2-standard-4.")
    if accelerator is not None and not re.fullmatch("[A-Z][A-Z0-9_]+", accelerator):
        raise ConfigError(f"--accelerator_type={quote(accelerator)} is not an accelerator; give one such as NVIDIA_L4.")
    for name, value in (("machine_type", machine), ("accelerator_type", accelerator or "")):
        if machines.is_tpu(value):
            raise ConfigError(f"--{name}={value} is a TPU, which the server cannot use; give an NVIDIA GPU, or none.")
    problem = machines.check_machine(machine, accelerator, values.accelerator_count if accelerator else 0)
    if problem is not None and problem.is_certain:
        raise ConfigError(f"--machine_type {problem.text}")
    if problem is not None:
        _logger.warning(f"--machine_type {problem.text}")
    for key, name in (("serviceAccount", "service_account"), ("encryptionSpec.kmsKeyName", "kms_key")):
        resource = values[name].value
        if resource is not None:
            check_resource(key, resource, f"--{name}", endpoint.known_region)


def machine_of(values: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns the machineSpec of the flags."""
    machine = {"machineType": values.machine_type}
    if values.accelerator_type is None:
        return machine
    return machine | {"acceleratorType": values.accelerator_type, "acceleratorCount": values.accelerator_count}


def encryption_of(values: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns the field encryptionSpec of a resource, or nothing."""
    return {"encryptionSpec": {"kmsKeyName": values.kms_key}} if values.kms_key else {}
