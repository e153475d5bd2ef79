"""Checks that the pools of a job fit each other: equal settings, and a batch that their devices divide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.cloud.jobs.arguments import ParsedArgs
from trainer.cloud.jobs.schema_validation import fail
from trainer.cloud.jobs.worker_pools import Pool
from trainer.config import check_divisible
from trainer.config.compatibility import check_strategy
from trainer.errors import ConfigError

_EQUAL_SETTINGS = ("steps", "epochs", "job_dir")
"""Settings that do not identify a run, but that must be equal on all machines of a synchronous job."""


@dataclass(frozen=True, kw_only=True)
class TrainerPool:
    """A pool that runs the trainer."""

    pool: Pool
    args: ParsedArgs
    path: str
    """Path to the args in the file, and the parameters of the trial, for error messages."""

    @property
    def num_devices(self) -> int:
        """Number of devices per machine."""
        return self.pool.accelerator_count or self.args.config.num_virtual_devices


def check_consistency(pools: Sequence[TrainerPool]) -> None:
    """Checks what the trainer would otherwise refuse on machines that are already billed.

    Args:
        pools: Pool of the chief, then the pool of the workers if there is one.

    Raises:
        ConfigError: If the settings differ, one of several machines waits for a lease, the strategy does not fit the
            number of machines, or the devices do not divide the batch.
    """
    for other in pools[1:]:
        _check_equal_settings(pools[0], other)
    num_machines = sum(pool.pool.replica_count for pool in pools)
    for pool in pools:
        if num_machines > 1 and pool.args.waits_for_lease:
            problem = "have --wait_for_lease, which is for a job of one machine, because the others do not wait"
            fail(pool.path, f"{problem}; remove it.")
        try:
            check_strategy(pool.args.config.strategy, num_machines)
            for count in _divisors(pool, pools):
                check_divisible(pool.args.config.global_batch_size, count)
        except ConfigError as error:
            raise ConfigError(f"{pool.path}: {error}") from error


def _check_equal_settings(chief: TrainerPool, other: TrainerPool) -> None:
    expected, actual = _shared_settings(chief.args), _shared_settings(other.args)
    for name in expected:
        if name in actual and actual[name] != expected[name]:
            fail(
                other.path,
                f"set {name}={actual[name]}, but the chief has {name}={expected[name]}; give all machines the same "
                "flags.",
            )


def _shared_settings(args: ParsedArgs) -> dict[str, Any]:
    """Returns the settings that must be equal on all machines, as far as they are known."""
    config = args.config.without_mounts()
    settings = config.identity | {name: getattr(config, name) for name in _EQUAL_SETTINGS}
    known: Mapping[str, Any] = args.flags if args.has_custom_recipe else settings
    return {name: settings[name] for name in settings if name in known}


def _divisors(pool: TrainerPool, pools: Sequence[TrainerPool]) -> list[int]:
    """Returns the numbers that must divide the batch: replicas on virtual devices and on the pools' accelerators."""
    config, num_machines = pool.args.config, sum(other.pool.replica_count for other in pools)
    if not pool.args.knows_batch:
        return []
    num_replicas = {
        "one_device": 1,
        "mirrored": pool.num_devices,
    }.get(config.strategy, sum(other.pool.replica_count * other.num_devices for other in pools))
    return [config.num_virtual_replicas * num_machines, num_replicas]
