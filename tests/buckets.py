"""Fixtures for a Cloud Storage server on this machine, and for a proxy that injects faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.storage import Location, gcs, locate, mirror
from trainer.testing.bucket_server import bucket_server, new_bucket
from trainer.testing.fault_proxy import FaultProxy, fault_proxy


@pytest.fixture(scope="session")
def cloud_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Cloud Storage server."""
    with bucket_server(tmp_path_factory.mktemp("cloud")) as address:
        yield address


@pytest.fixture
def bucket(cloud_storage: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket, `gs://NAME`. Objects may be rewritten without the pause that Cloud Storage requires."""
    monkeypatch.setattr(mirror, "_MIN_REWRITE_SECS", 0.0)
    return new_bucket()


@pytest.fixture(params=["local", "bucket"])
def storage_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty folder, once on this machine and once in a bucket."""
    return locate(tmp_path if request.param == "local" else request.getfixturevalue("bucket"))


@pytest.fixture
def proxy(cloud_storage: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy between google-cloud-storage and the server. Retries have short delays."""
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_delay(initial=0.01, maximum=0.05).with_timeout(10.0))
    with fault_proxy(cloud_storage) as running:
        yield running
