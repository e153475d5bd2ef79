"""Fixtures for a local substitute for Vertex AI."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trainer.testing.vertex_service import VertexService


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> "Iterator[VertexService]":
    """A local service that the commands of this test call. `submit` does not check output folders and packages."""
    with local_service(monkeypatch) as running:
        yield running


@contextlib.contextmanager
def local_service(monkeypatch: pytest.MonkeyPatch, *, checks_buckets: bool = False) -> "Iterator[VertexService]":
    """Yields a local service that the commands of this process call without pauses.

    Args:
        monkeypatch: Fixture of the test.
        checks_buckets: Whether `submit` checks output folders and packages, on the server of the fixture `bucket`.
    """
    from trainer.cloud.jobs import output_checks  # Google's SDK takes seconds to import
    from trainer.cloud.vertex import follow, sdk
    from trainer.testing.vertex_service import VertexService

    if not checks_buckets:
        monkeypatch.setattr(output_checks, "check_buckets", lambda *_: None)
    with VertexService() as service:
        use(service, monkeypatch)
        monkeypatch.setattr(sdk, "_FIRST_PAUSE_SECS", 0.01)
        monkeypatch.setattr(sdk, "_RETRY_SECS", 0.1)
        monkeypatch.setattr(follow, "_POLL_SECS", 0.01)
        monkeypatch.setattr(follow, "_LOG_DELAY_SECS", 0.02)
        yield service


def use(service: "VertexService", monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the commands of this test call a local service."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
