"""Commands for the user of `batch`: to write the images of a job, and to generate those that it lacks."""

import shlex
from collections.abc import Sequence
from typing import Any

from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.models import Resource
from trainer.cloud.vertex.resource_name import number_of
from trainer.storage import Location

_MAX_CHARACTERS = 1000
"""Longest command, so that the message that contains it is not shortened."""


def collect(endpoint: Endpoint, job: Resource, out: Location) -> str:
    """Returns the command that writes the images of a job to a folder."""
    return _command(endpoint, f"--job={number_of(job.name)}", f"--out={out}")


def repeat(endpoint: Endpoint, job: Resource, out: Location, instances: Sequence[dict[str, Any]]) -> str:
    """Returns the command that generates images again, without the flags for machines and accounts.

    Args:
        endpoint: Project and region of the job.
        job: Job that has not generated the images.
        out: Folder of the images.
        instances: Instances of the images; the command has only the first of them if there are too many.
    """
    (uri,) = job.raw["inputConfig"]["gcsSource"]["uris"]
    staging = uri.rsplit("/", 2)[0]
    flags = [f"--model={job.raw['model']}", f"--seeds={_ranges([int(instance['seed']) for instance in instances])}"]
    if "label" in instances[0]:
        labels = _without_repetition([int(instance["label"]) for instance in instances])
        flags.append(f"--labels={','.join(map(str, labels))}")
    if "truncation" in instances[0]:
        flags.append(f"--truncation={instances[0]['truncation']}")
    flags += [f"--out={out}", *([] if staging == f"{out}/.batch" else [f"--staging={staging}"])]
    command = _command(endpoint, *flags)
    if len(command) > _MAX_CHARACTERS and len(instances) > 1:
        return repeat(endpoint, job, out, instances[: len(instances) // 2])
    return command


def _command(endpoint: Endpoint, *flags: str) -> str:
    place = f"--project={endpoint.project}", f"--region={endpoint.region}"
    return shlex.join(["python", "-m", "trainer", "batch", *flags, *place])


def _ranges(seeds: Sequence[int]) -> str:
    """Returns seeds as a value of `--seeds`, such as `0-99,120`."""
    ranges: list[list[int]] = []
    for seed in seeds:
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1][1:] = [seed]
        else:
            ranges.append([seed])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def _without_repetition(labels: Sequence[int]) -> Sequence[int]:
    """Returns the shortest beginning of labels that gives all of them in turn."""
    for period in range(1, len(labels)):
        if all(label == labels[index % period] for index, label in enumerate(labels)):
            return labels[:period]
    return labels
