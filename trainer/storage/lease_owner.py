"""The owner of a lease: which process it is, and whether that process has ended."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DocumentError, escape
from trainer.storage import documents

_MAX_HOST_CHARACTERS = 80
_SCHEMA = documents.record(
    {name: documents.text() for name in ("token", "host", "machine", "replica")}
    | {"pid": documents.whole(1, 2**31 - 1), "start_time": documents.whole(), "renewed_at": documents.number}
)

_own_tokens: set[str] = set()
"""Tokens of the leases that this process holds."""


@dataclass(frozen=True, kw_only=True)
class LeaseOwner:
    """A process that holds a lease.

    Attributes:
        token: Random text that identifies the lease.
        host: Name of the machine.
        pid: Number of the process.
        machine: Identity of the running system and its process numbers. Empty: the system reports none, as macOS.
        start_time: Time in the units of the system at which the process started.
        replica: Digest of job, trial and machine on Vertex AI, which a restarted machine keeps. Empty: no such job.
    """

    token: str
    host: str
    pid: int
    machine: str
    start_time: int
    replica: str

    @classmethod
    @contextlib.contextmanager
    def current(cls, replica: str = "") -> Iterator["LeaseOwner"]:
        """Makes this process the owner of a new lease while the context is active.

        Args:
            replica: Job, trial and machine on Vertex AI; empty outside of a job.
        """
        pid = os.getpid()
        owner = cls(
            token=secrets.token_hex(16),
            host=_host(),
            pid=pid,
            machine=_machine(),
            start_time=_start_time(pid) or 0,
            replica=replica and hashlib.sha256(os.fsencode(replica)).hexdigest(),
        )
        _own_tokens.add(owner.token)
        try:
            yield owner
        finally:
            _own_tokens.discard(owner.token)

    def __str__(self) -> str:
        return f"process {self.pid} on {escape(self.host[:_MAX_HOST_CHARACTERS])}"

    def has_ended(self, successor: "LeaseOwner") -> bool:
        """Returns whether this process is known to have ended.

        Args:
            successor: This process, which would be the next owner.
        """
        if self.machine and (self.machine, self.host) == (successor.machine, successor.host):
            is_forgotten = self.pid == successor.pid and self.token not in _own_tokens
            return is_forgotten or not _is_running(self.pid, self.start_time)
        return bool(self.replica) and self.replica == successor.replica

    def is_running(self) -> bool:
        """Returns whether this is a process of this machine that has not ended."""
        is_local = self.machine and (self.machine, self.host) == (_machine(), _host())
        return bool(is_local) and _is_running(self.pid, self.start_time)

    def to_bytes(self) -> bytes:
        """Returns the content of a lease that is renewed now."""
        return json.dumps(dataclasses.asdict(self) | {"renewed_at": time.time()}, indent=2).encode()


def parse_owner(content: bytes, origin: object) -> tuple[LeaseOwner | None, float]:
    """Returns the owner in the content of a lease, and the seconds since its last renewal by the clocks.

    Of a damaged lease, the owner is None and the time is infinite.
    """
    try:
        values = documents.parse_json(content, origin, _SCHEMA, remedy="delete it")
    except DocumentError:
        return None, math.inf
    renewed_at = values.pop("renewed_at")
    owner = LeaseOwner(**{field.name: values[field.name] for field in dataclasses.fields(LeaseOwner)})
    return owner, abs(time.time() - renewed_at)


def _host() -> str:
    return ascii(socket.gethostname())[1:-1][:_MAX_HOST_CHARACTERS]


def _machine() -> str:
    """Returns the identity of the running system and its process numbers; empty if the system reports none."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_running(pid: int, start_time: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # a process of another user
    return _start_time(pid) in (None, start_time)


def _start_time(pid: int) -> int | None:
    """Returns the time at which a process started; -1 if it has ended, and None if the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])
