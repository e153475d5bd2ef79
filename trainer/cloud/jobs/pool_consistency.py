"""What the machines of a job must have in common: settings that agree, and a batch that they can share out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.arguments import ParsedArgs
from trainer.cloud.jobs.schema_validation import fail
from trainer.cloud.jobs.worker_pools import Pool
from trainer.config import check_shares
from trainer.config.compatibility import check_strategy
from trainer.errors import ConfigError
from trainer.storage import without_mount

_SHARED = ("steps", "epochs", "job_dir")
"""Not part of a run's identity, yet machines that train in step take the same number of steps, and resume together."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Those of a pool that runs the trainer."""

    pool: Pool
    asked: ParsedArgs
    where: str
    """What asks it of them, for the sentence."""

    @property
    def num_devices(self) -> int:
        """Of each machine."""
        return self.pool.accelerator_count or self.asked.config.num_virtual_devices


def check_together(parts: Sequence[Machines]) -> None:
    """Refuses what the trainer refuses on machines that are already billed.

    Args:
        parts: The chief, and the workers where there are some.

    Raises:
        ConfigError: Their settings differ, the strategy does not fit their number, or the batch does not divide by
            their devices.
    """
    for other in parts[1:]:
        _check_same(parts[0], other)
    num_machines = sum(part.pool.replica_count for part in parts)
    for one in parts:
        try:
            check_strategy(one.asked.config.strategy, num_machines)
            for count in _replica_counts(one, parts):
                check_shares(one.asked.config.global_batch_size, count)
        except ConfigError as error:
            raise ConfigError(f"{one.where}: {error}") from error


def _check_same(chief: Machines, other: Machines) -> None:
    wanted, there = _decisive(chief.asked), _decisive(other.asked)
    for name in wanted:
        if name in there and there[name] != wanted[name]:
            fail(
                other.where,
                f"ask for {name}={there[name]} where the chief has {name}={wanted[name]}; give all machines the same "
                "flags.",
            )


def _decisive(asked: ParsedArgs) -> dict[str, Any]:
    """The settings that must be equal on all machines, as far as they are known."""
    config = asked.config
    values = config.identity | {name: getattr(config, name) for name in _SHARED}
    values |= {name: values[name] and without_mount(values[name]) for name in ("dataset", "dataset_b", "job_dir")}
    known: Mapping[str, Any] = asked.given if asked.has_own_recipe else values
    return {name: values[name] for name in values if name in known}


def _replica_counts(one: Machines, parts: Sequence[Machines]) -> list[int]:
    """The numbers that the batch must divide by: before the devices are looked at, and with them."""
    config, num_machines = one.asked.config, sum(part.pool.replica_count for part in parts)
    if one.asked.has_own_recipe and "global_batch_size" not in one.asked.given:
        return []
    num_replicas = {
        "one_device": 1,
        "mirrored": one.num_devices,
    }.get(config.strategy, sum(part.pool.replica_count * part.num_devices for part in parts))
    return [config.num_virtual_devices * num_machines, num_replicas]
