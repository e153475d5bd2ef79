"""Rules of Vertex AI that its messages do not state: machines, provisioning, disks, and names of resources.

The service would report a violation only after the job was sent, in some cases when its machines start. A rule of
Google's documentation is an error, and so is a name in a wrong form or a timeout of 0s. What the documentation does not
promise, but does not exclude either, is a warning.

The rules were compared on 2026-11-29 with the sources in `machines.py`; with copies of Google's pages "Use reservations
with training", "Consume reservations" and "Use Vertex AI TensorBoard with custom training"; with a tutorial that
repeats Google's rules for bucket names; with the docstrings of google-cloud-aiplatform 2.7; and with the check of
labels in gcloud 528. Labels may have 64 characters in the docstrings and 63 in gcloud; the larger number applies here.
"""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainer.cloud.jobs import machines
from trainer.cloud.jobs.job_spec import JOB_ID, JobSpec
from trainer.cloud.jobs.scalars import seconds
from trainer.cloud.jobs.schema_validation import enum_or_none, fail
from trainer.cloud.jobs.worker_pools import parse_uri
from trainer.errors import count_of, quote
from trainer.storage import without_mount

_logger = logging.getLogger(__name__)

_PROJECT = r"(?:[a-z][a-z0-9-]{4,28}[a-z0-9]|[a-z0-9.-]+:[a-z0-9-]+|\d+|PROJECT)"
_REGION = r"([a-z]+-[a-z]+\d+)"
_IMAGE_PART = r"(?:[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*|PROJECT|REPOSITORY)"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d+)?/)?({_IMAGE_PART}(?:/{_IMAGE_PART})*)"
    r"(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128})?"
)
_MAX_IMAGE_LENGTH = 255
"""Longest name of an image without its registry, tag, and digest, as in Docker's reference grammar."""
_RESERVED = "gs://goog"
_LABEL = re.compile(r"[^\W\dA-Z_][\w-]{0,63}")
_LABEL_VALUE = re.compile(r"[\w-]{0,64}")
_MAX_LABELS = 64
_RESOURCES = {
    "serviceAccount": (
        re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?@[A-Za-z0-9.:-]+\.gserviceaccount\.com"),
        "NAME@PROJECT.iam.gserviceaccount.com",
    ),
    "network": (
        re.compile(r"projects/(?:\d+|PROJECT)/global/networks/[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"),
        "projects/PROJECT_NUMBER/global/networks/NAME with the number of the project, not its ID",
    ),
    "tensorboard": (
        re.compile(rf"projects/{_PROJECT}/locations/{_REGION}/tensorboards/[\w-]+"),
        "projects/PROJECT/locations/REGION/tensorboards/ID",
    ),
    "persistentResourceId": (re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"), "its ID: small letters, digits, and -"),
    "encryptionSpec.kmsKeyName": (
        re.compile(rf"projects/{_PROJECT}/locations/{_REGION}/keyRings/[\w-]{{1,63}}/cryptoKeys/[\w-]{{1,63}}"),
        "projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY",
    ),
}
"""Form of the names of resources, and the form for messages."""


def check_service_rules(job: JobSpec, envelope: Mapping[str, Any], region: str | None = None) -> None:
    """Rejects a job that Vertex AI would reject or could not start, and warns of what is uncertain.

    Args:
        job: Job, or job of the trials of a study.
        envelope: Keys beside the job: those of the CustomJob or the HyperparameterTuningJob.
        region: Region of the job. None: not known.

    Raises:
        ConfigError: If there is a violation; the message describes the first one.
    """
    raw, path = job.raw, job.path
    for index, pool in enumerate(raw["workerPoolSpecs"]):
        if pool:
            _check_pool(pool, f"{path}workerPoolSpecs[{index}]")
    _check_scheduling(job)
    for name in ("serviceAccount", "network", "tensorboard", "persistentResourceId"):
        if name in raw:
            check_resource(name, raw[name], f"{path}{name}", region)
    if "encryptionSpec" in envelope:
        key = "encryptionSpec.kmsKeyName"
        check_resource(key, envelope["encryptionSpec"]["kmsKeyName"], key, region)
    if "tensorboard" in raw and not raw.get("serviceAccount"):
        fail(f"{path}tensorboard", "needs serviceAccount, as which the job writes to it; give it.")
    check_labels(envelope.get("labels", {}), "labels")


def check_output_folder(uri: str, path: str) -> None:
    """Rejects a folder with a placeholder that is not replaced, or in a bucket of a name that no bucket can have.

    Args:
        uri: URI in the file, or a local path.
        path: Path to the URI in the file, or its flag.

    Raises:
        ConfigError: If the URI is invalid.
    """
    uri = without_mount(uri)
    placeholder = re.search(r"\{[^{}/]*\}?|\}", uri)
    if placeholder is not None:
        fail(
            path,
            f"is {quote(uri)}, in which {quote(placeholder[0])} is not replaced; only {JOB_ID} in baseOutputDirectory "
            "and in --base_output_dir becomes a new ID, so remove other braces.",
        )
    parse_uri(uri, path, is_local=True)
    if uri.startswith(_RESERVED):
        fail(path, f"is {quote(uri)}, whose bucket begins with goog, as only Google's own buckets do; correct it.")


def is_image(name: str) -> bool:
    """Returns whether a container image can have this name."""
    match = _IMAGE.fullmatch(name)
    return match is not None and len(match[1]) <= _MAX_IMAGE_LENGTH


def _check_pool(pool: Mapping[str, Any], path: str) -> None:
    machine = pool["machineSpec"]
    accelerator = enum_or_none(machine.get("acceleratorType"))
    problem = machines.check_machine(machine["machineType"], accelerator, machine.get("acceleratorCount", 0))
    # A partition of a GPU has acceleratorCount 1 on any machine.
    if problem is not None and problem.is_certain and not machine.get("gpuPartitionSize"):
        fail(f"{path}.machineSpec", problem.text)
    if problem is not None:
        _logger.warning(f"{path}.machineSpec {problem.text}")
    affinity = machine.get("reservationAffinity", {})
    _check_reservation(affinity, f"{path}.machineSpec.reservationAffinity")
    kind = enum_or_none(affinity.get("reservationAffinityType"))
    if machine["machineType"] in machines.RESERVED_MACHINES and kind in (None, "NO_RESERVATION"):
        _logger.warning(
            f"{path}.machineSpec has {machine['machineType']}, which is documented with a reservation only, but no "
            "reservationAffinity. The job fails if Vertex AI does not start it without one."
        )
    disk = pool.get("diskSpec", {})
    size, disk_type = disk.get("bootDiskSizeGb", machines.MIN_DISK_GB), disk.get("bootDiskType", "pd-ssd")
    if not machines.MIN_DISK_GB <= size <= machines.MAX_DISK_GB:
        allowed = f"{machines.MIN_DISK_GB} to {machines.MAX_DISK_GB}"
        fail(f"{path}.diskSpec.bootDiskSizeGb", f"is {size}; write a number from {allowed}.")
    if disk_type not in machines.DISK_TYPES:
        allowed = " or ".join(machines.DISK_TYPES)
        fail(f"{path}.diskSpec.bootDiskType", f"is {quote(disk_type)}; write {allowed}.")
    for program, key in (("containerSpec", "imageUri"), ("pythonPackageSpec", "executorImageUri")):
        image = pool.get(program, {}).get(key)
        if image is not None and not is_image(image):
            fail(
                f"{path}.{program}.{key}",
                f"is {quote(image)}, which is not the name of an image; write REGION-docker.pkg.dev/PROJECT/REPOSITORY/"
                "NAME:TAG.",
            )


def _check_reservation(affinity: Mapping[str, Any], path: str) -> None:
    kind = enum_or_none(affinity.get("reservationAffinityType"))
    names = affinity.get("values", [])
    if kind == "SPECIFIC_RESERVATION":
        if not names or affinity.get("key") != "compute.googleapis.com/reservation-name":
            fail(
                path,
                "has the type SPECIFIC_RESERVATION, which needs key: compute.googleapis.com/reservation-name and the "
                "names of reservations in values; give both.",
            )
        for index, name in enumerate(names):
            if not re.fullmatch(rf"projects/{_PROJECT}/zones/[a-z0-9-]+/reservations/[a-z0-9-]+", name):
                form = "projects/PROJECT/zones/ZONE/reservations/NAME"
                fail(f"{path}.values[{index}]", f"is {quote(name)}; write {form}.")
    elif names or "key" in affinity:
        fail(path, "has key or values, which are for the type SPECIFIC_RESERVATION; correct one of them.")


def _check_scheduling(job: JobSpec) -> None:
    raw, path = job.raw.get("scheduling", {}), f"{job.path}scheduling"
    strategy = enum_or_none(raw.get("strategy"))
    timeout = job.scheduling.timeout_secs
    if timeout is not None and timeout <= 0:
        fail(f"{path}.timeout", f"is {raw['timeout']}; write more than 0s, or leave it out for 7 days.")
    machine_specs = [pool["machineSpec"] for pool in job.raw["workerPoolSpecs"] if pool]
    affinities = {
        enum_or_none(machine.get("reservationAffinity", {}).get("reservationAffinityType")) for machine in machine_specs
    }
    if strategy in ("SPOT", "LOW_COST", "FLEX_START"):
        _check_no_reservation(affinities, f"{path}.strategy", strategy)
    if job.raw.get("persistentResourceId"):
        _check_no_reservation(affinities, f"{job.path}persistentResourceId", job.raw["persistentResourceId"])
    if strategy == "FLEX_START":
        _check_flex_start(machine_specs, f"{path}.strategy")
        if timeout is not None and timeout > machines.MAX_FLEX_START_SECS:
            limit = f"{machines.MAX_FLEX_START_SECS}s (7 days)"
            fail(f"{path}.timeout", f"is {raw['timeout']}, but FLEX_START allows at most {limit}; shorten it.")
    elif seconds(raw.get("maxWaitDuration", "0s")) > 0:
        _logger.warning(
            f"{path}.maxWaitDuration is {raw['maxWaitDuration']}, which is documented for FLEX_START only, and the "
            f"strategy is {strategy or 'STANDARD'}. The job may wait for a shorter or longer time."
        )


def _check_no_reservation(affinities: Collection[str | None], path: str, value: str) -> None:
    """Checks a value that excludes reservations. Machines of ANY_RESERVATION can also start without one."""
    text = f"is {quote(value)}, which cannot use reservations, but the machines have"
    if "SPECIFIC_RESERVATION" in affinities:
        fail(path, f"{text} SPECIFIC_RESERVATION; remove one of them.")
    if "ANY_RESERVATION" in affinities:
        _logger.warning(f"{path} {text} ANY_RESERVATION. The job fails if Vertex AI does not start it without one.")


def _check_flex_start(machine_specs: Sequence[Mapping[str, Any]], path: str) -> None:
    machine_types = {machine["machineType"] for machine in machine_specs}
    accelerators = {enum_or_none(machine.get("acceleratorType")) for machine in machine_specs}
    counts = {machine.get("acceleratorCount", 0) for machine in machine_specs}
    if None in accelerators:
        fail(path, "is FLEX_START, which is for machines with GPUs only; write STANDARD or SPOT.")
    if max(map(len, (machine_types, accelerators, counts))) > 1:
        fail(
            path,
            "is FLEX_START, which needs the same machine in all pools; give all pools the same machineSpec, or write "
            "STANDARD or SPOT.",
        )
    accelerator = accelerators.pop()
    if accelerator not in machines.FLEX_START_ACCELERATORS:
        _logger.warning(
            f"{path} is FLEX_START, which is documented for {', '.join(machines.FLEX_START_ACCELERATORS)}, and the "
            f"machines have {accelerator}. The job fails if Vertex AI does not offer this."
        )


def check_resource(name: str, value: str, path: str, region: str | None) -> None:
    """Rejects the name of a resource in a wrong form, or of another region.

    Args:
        name: Key of the resource in a request: `serviceAccount`, `network`, `tensorboard`, `persistentResourceId`, or
            `encryptionSpec.kmsKeyName`.
        value: Name of the resource.
        path: Path to the name in the file, or its flag.
        region: Region of the request. None: not known.

    Raises:
        ConfigError: If the name is invalid.
    """
    pattern, form = _RESOURCES[name]
    match = pattern.fullmatch(value)
    if match is None:
        fail(path, f"is {quote(value)}; write {form}.")
    own_region = match[1] if pattern.groups else None
    if region is not None and own_region is not None and own_region != region:
        fail(path, f"is in {own_region}, but the region is {region}; choose one in the same region.")


def check_labels(labels: Mapping[str, str], path: str) -> None:
    """Rejects labels that no resource can have.

    Args:
        labels: Values by name.
        path: Path to the labels in the file, or their flag.

    Raises:
        ConfigError: If there are too many, or a name or a value is invalid.
    """
    if len(labels) > _MAX_LABELS:
        fail(path, f"has {count_of(len(labels), 'label')}; at most {_MAX_LABELS} are allowed, so remove some.")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or name != name.lower():
            fail(
                path,
                f"has the name {quote(name)}; write a small letter, followed by at most 63 small letters, digits, - "
                "or _.",
            )
        if not _LABEL_VALUE.fullmatch(value) or value != value.lower():
            fail(
                f"{path}.{name}", f"is {quote(value)}; write at most 64 small letters, digits, - or _, as in team: gan."
            )
