"""Sends a job to the first of several regions that has quota and machines for it."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from trainer import signals
from trainer.cloud.vertex.client import Job, JobClient, JobKind, console_url
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.follow import check_success, follow
from trainer.cloud.vertex.prices import PriceTable
from trainer.errors import ConfigError, JobError, quote, status_of
from trainer.logging import log_fields

_logger = logging.getLogger(__name__)

_RESOURCE_EXHAUSTED = 8
"""Code of google.rpc.Status for an exhausted quota or missing machines."""
_STOCKOUT = "Resources are insufficient in region"
"""Text of the service's error if a region has no machines."""
_LOCATION = re.compile(r"(projects/[^/\"]+/(?:locations|regions|zones)/([a-z]+-[a-z]+\d+)[^\"]*)")


def parse_regions(region: str | None, regions: Sequence[str]) -> list[str]:
    """Returns the regions to try in order, from the flags --region and --regions. Empty: there are none.

    Raises:
        ConfigError: If both flags are given, or a region occurs twice.
    """
    if region and regions:
        raise ConfigError(f"--region={region} and --regions={','.join(regions)} exclude each other; remove one.")
    if len(set(regions)) < len(regions):
        raise ConfigError(f"--regions={','.join(regions)} has a region twice; write each once.")
    return list(regions) or ([region] if region else [])


def check_regions(body: Mapping[str, Any], endpoints: Sequence[Endpoint]) -> None:
    """Checks that a job can run in every region that is tried. A single region is left to the service.

    Args:
        body: The CustomJob or HyperparameterTuningJob as JSON.
        endpoints: Endpoints of the regions.

    Raises:
        ConfigError: If the job names a resource of one region, such as a TensorBoard, or the endpoints share the
            address of another server, which belongs to one region.
    """
    if len(endpoints) == 1:
        return
    address = endpoints[0].api_endpoint
    if address and not endpoints[0].is_anonymous:
        raise ConfigError(f"--regions has several regions, but api_endpoint={address} is that of one; remove one flag.")
    spec = body.get("trialJobSpec") or body.get("jobSpec") or {}
    if resource := spec.get("persistentResourceId"):
        raise ConfigError(
            f"--regions has several regions, but persistentResourceId={quote(resource)} is in one region; remove it "
            "from the job, or submit to that region only."
        )
    for name, location in _LOCATION.findall(json.dumps(body)):
        others = [endpoint.region for endpoint in endpoints if endpoint.region != location]
        raise ConfigError(
            f"--regions has {', '.join(others)}, but {quote(name)} is in {location}, where alone a job can use it; "
            "remove it from the job, or submit to that region only."
        )


def send(
    clients: Sequence[JobClient], kind: JobKind, body: Mapping[str, Any], *, waits: bool, prices: PriceTable | None
) -> None:
    """Creates a job in the first region that accepts it, and optionally follows it.

    The next region is tried if the service rejects the job because of an exhausted quota (HTTP status 429), which
    creates no job. If the command waits, it is also tried after a job that failed without ever running because of an
    exhausted quota or missing machines (code 8, RESOURCE_EXHAUSTED). After any other error, a job may exist.

    Args:
        clients: Clients of the regions in the order in which they are tried.
        kind: Kind of the job.
        body: The CustomJob or HyperparameterTuningJob as JSON.
        waits: Whether to follow the job until it ends.
        prices: Prices for the estimate of the cost per hour. None: no estimate is logged.

    Raises:
        JobError: If the last region rejects the job, another error occurs, or the job does not succeed.
        Interrupted: If a signal ends the command.
    """
    for number, client in enumerate(clients, 1):
        is_last, region = number == len(clients), client.endpoint.region
        if prices is not None:
            _logger.info(prices.describe_cost(body, region))
        try:
            job = _create(client, kind, body, retries=is_last)
        except JobError as error:
            if is_last or status_of(error) != HTTPStatus.TOO_MANY_REQUESTS:
                raise
            reason = str(error)
        else:
            _logger.info(f"Created {job.name}.", extra=log_fields({"job": job.name}))
            _logger.info(f"See {console_url(job.name)}")
            if not waits:
                _logger.info(f"To see its state: python -m trainer jobs describe {job.name}")
                return
            job = follow(client, job)
            if is_last or not _lacked_machines(job):
                check_success(job)
                return
            reason = f"{job.name} never ran: {' '.join(job.error.split())}"
        _logger.warning(f"Trying {clients[number].endpoint.region} instead of {region}. {reason}")


def _lacked_machines(job: Job) -> bool:
    """Returns whether a job failed because its region had no quota or machines, before any of its replicas ran."""
    never_ran = job.state == "FAILED" and "startTime" not in job.raw
    return never_ran and (job.raw.get("error", {}).get("code") == _RESOURCE_EXHAUSTED or _STOCKOUT in job.error)


def _create(client: JobClient, kind: JobKind, body: Mapping[str, Any], retries: bool) -> Job:
    try:
        return client.create(kind, body, retries=retries)
    except (KeyboardInterrupt, signals.Terminated) as error:
        consequence = "the job may have been created; run python -m trainer jobs list to see it."
        raise signals.explained(error, consequence) from None
