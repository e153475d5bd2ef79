"""Progress of the other machines that prepare a dataset, as the chief sees it in the folder of the dataset."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from trainer.errors import ConfigError, count_of, list_some
from trainer.storage import Location
from trainer.storage.lease import describe_owner

MAX_IDLE_MINUTES = 30
"""Time without a new shard after which the chief no longer waits for a machine of which no process is known to run."""
_MAX_MISMATCH_SECS = 120.0
"""The same time for a machine whose shards in the folder are those of another conversion. They may be old ones."""
_SECS_BETWEEN_LOOKS = 60.0
_MAX_LISTED = 10

_logger = logging.getLogger(__name__)


class ReplicaWatch:
    """Ends the waiting for machines that make other shards, or none.

    Args:
        out: Folder of the dataset.
        num_replicas: Number of machines.
    """

    def __init__(self, out: Location, num_replicas: int):
        self._out, self._num_replicas = out, num_replicas
        self._last_progress: dict[int, float] = {}
        self._old_fingerprints: frozenset[str] | None = None
        self._next_look = time.monotonic()

    def check(self, missing: Sequence[int], new_shards: Iterable[int], other_fingerprints: Mapping[int, str]) -> None:
        """Checks that the machines with missing shards can still finish them, and logs them once a minute.

        Args:
            missing: Indices of the shards that are not finished, at least one.
            new_shards: Indices of the shards that were finished since the last call.
            other_fingerprints: By the index of a machine, the fingerprint of its shards that are in the folder, if they
                are not those of this conversion.

        Raises:
            ConfigError: If a machine makes other shards, or none for a long time.
            StorageError: If the folder cannot be read.
        """
        if self._old_fingerprints is None:
            self._old_fingerprints = frozenset(other_fingerprints.values())
        for replica, fingerprint in other_fingerprints.items():
            if fingerprint not in self._old_fingerprints:  # it was made while this machine was waiting
                raise self._mismatch(replica)
        now = time.monotonic()
        self._last_progress |= {index % self._num_replicas: now for index in new_shards}
        if now < self._next_look:
            return
        self._next_look = now + _SECS_BETWEEN_LOOKS
        replicas = sorted({index % self._num_replicas for index in missing})
        for replica in replicas:
            if replica not in self._last_progress or describe_owner(replica_folder(self._out, replica)):
                self._last_progress[replica] = now
            idle_secs = now - self._last_progress[replica]
            if replica in other_fingerprints and idle_secs >= _MAX_MISMATCH_SECS:
                raise self._mismatch(replica)
            if idle_secs >= 60 * MAX_IDLE_MINUTES:
                raise ConfigError(
                    f"replica={replica} of num_replicas={self._num_replicas} has finished no shard for "
                    f"{MAX_IDLE_MINUTES} minutes, and is not known to run; start it, and run this command again: "
                    "finished shards stay."
                )
        message = f"Waiting for {count_of(len(missing), 'shard')} of {_list_replicas(replicas)}."
        if other_fingerprints:
            message += f" There are shards of other images or options of {_list_replicas(sorted(other_fingerprints))}."
        _logger.info(message)

    def _mismatch(self, replica: int) -> ConfigError:
        return ConfigError(
            f"replica={replica} has made its shards in {self._out} from another list of images, or with other options "
            "or another version of Pillow, than replica=0; run the same command on all machines, with the same source."
        )


def _list_replicas(replicas: Sequence[int]) -> str:
    return f"{count_of(len(replicas), 'replica')}: {list_some(replicas, _MAX_LISTED)}"


def replica_folder(out: Location, index: int) -> Location:
    """Returns the folder whose lease a machine other than the chief holds."""
    return out / f".replica-{index:05d}"
