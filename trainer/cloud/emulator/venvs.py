"""Python packages of a job, installed for its replicas as Vertex AI installs them in its own images."""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.jobs import source_package
from trainer.errors import ConfigError, JobError
from trainer.storage import locate, path_below

_logger = logging.getLogger(__name__)

Call = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def call(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Runs a command, and returns what it wrote."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check(replicas: Sequence[Replica]) -> None:
    """Raises ConfigError for a package that is not there."""
    for uri in dict.fromkeys(uri for one in replicas for uri in one.package_uris):
        if uri != source_package.TO_BUILD and not locate(uri).exists():
            raise ConfigError(f"packageUris names {uri}, which does not exist; build it with python -m build.")


@contextlib.contextmanager
def installed(
    replicas: Sequence[Replica], call: Call = call, project: Path = Path()
) -> Iterator[Callable[[Replica], Replica]]:
    """Gives every list of packages a virtual environment of its own, which lasts as long as the context.

    Args:
        replicas: Some of which may need packages.
        call: Runs a command.
        project: The folder of a package that is yet to be built.

    Yields:
        What changes a replica with such packages: it gets the interpreter that has them, in a folder that hides nothing
        of it. One that needs none stays as it is.

    Raises:
        ConfigError: A package cannot be built.
        JobError: A package cannot be installed.
        StorageError: It cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="gan-trainer-") as folder:
        pythons: dict[tuple[str, ...], Path] = {}
        for uris in dict.fromkeys(one.package_uris for one in replicas):
            if uris:
                pythons[uris] = _install(uris, Path(folder) / f"packages-{len(pythons)}", call, project)

        def ready(one: Replica) -> Replica:
            if not one.package_uris:
                return one
            python = pythons[one.package_uris]
            return replace(one, command=(str(python), *one.command[1:]), folder=str(python.parent))

        yield ready


def _install(uris: Sequence[str], folder: Path, call: Call, project: Path) -> Path:
    """Makes a virtual environment that has these packages; returns its interpreter."""
    python, files = folder / "venv/bin/python", [_fetch(uri, folder, project) for uri in uris]
    told = [file.name if uri == source_package.TO_BUILD else uri for uri, file in zip(uris, files, strict=True)]
    _logger.info(f"installing {', '.join(told)} in a new virtual environment.")
    for command in ([sys.executable, "-m", "venv", str(folder / "venv")], *(_pip(python, file) for file in files)):
        done = call(command)
        if done.returncode:
            said = (done.stdout or "").strip().splitlines() or ["it said nothing"]
            raise JobError(f"{' '.join(command)} exited with {done.returncode}: {said[-1]}; correct the package.")
    return python


def _pip(python: Path, file: Path) -> list[str]:
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", str(file)]


def _fetch(uri: str, folder: Path, project: Path) -> Path:
    """A package as a local file of its own name, which pip reads its kind and version from."""
    if uri == source_package.TO_BUILD:
        return source_package.build(project, folder)
    if not uri.startswith("gs://"):
        return Path(uri).absolute()
    place = locate(uri)
    target = path_below(folder, place.name, uri)
    place.parent.download({place.name: target})
    return target
