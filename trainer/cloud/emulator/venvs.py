"""Virtual environments with the Python packages of a job, as Vertex AI installs them in its own images."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.jobs import source_package
from trainer.errors import ConfigError, JobError
from trainer.storage import is_remote, local_path, locate, path_below, scratch_folder

_logger = logging.getLogger(__name__)

RunCommand = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
_RUN_MODULE = """\
import sys
sys.path[:] = [path for path in sys.path if path]
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs `MODULE ARGS...` as `python -m` does, but without the modules of the working directory, which would hide those
of the packages. Python 3.10 has no option for this."""


def run_command(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Runs a command and captures its output."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check_packages(replicas: Sequence[Replica]) -> None:
    """Checks that the packages of the replicas exist.

    Raises:
        ConfigError: If a package does not exist.
    """
    for uri in dict.fromkeys(uri for replica in replicas for uri in replica.package_uris):
        if uri != source_package.TO_BUILD and not locate(uri).exists():
            raise ConfigError(f"packageUris names {uri}, which does not exist; build it with python -m build.")


@contextlib.contextmanager
def install_packages(
    replicas: Sequence[Replica], run_command: RunCommand = run_command, project: Path = Path()
) -> Iterator[Callable[[Replica], Replica]]:
    """Creates a virtual environment for every list of packages. It exists as long as the context.

    Args:
        replicas: Replicas, with or without packages.
        run_command: Function that runs a command.
        project: Project folder of a package that is not built yet.

    Yields:
        Function that returns a replica that runs its module in its virtual environment. The module imports the
        installed packages, and none of the working directory, to which its relative paths refer. A replica without
        packages stays as it is.

    Raises:
        ConfigError: If a package cannot be built.
        JobError: If a package cannot be installed.
        StorageError: If a package cannot be read, or no folder for temporary files is writable.
    """
    with scratch_folder() as folder:
        pythons: dict[tuple[str, ...], Path] = {}
        for uris in dict.fromkeys(replica.package_uris for replica in replicas):
            if uris:
                pythons[uris] = _create_venv(uris, folder / f"packages-{len(pythons)}", run_command, project)

        def use_venv(replica: Replica) -> Replica:
            if not replica.package_uris:
                return replica
            python, (_, _, *module_and_args) = pythons[replica.package_uris], replica.command
            return replace(replica, command=(str(python), "-c", _RUN_MODULE, *module_and_args))

        yield use_venv


def _create_venv(uris: Sequence[str], folder: Path, run_command: RunCommand, project: Path) -> Path:
    """Creates a virtual environment with these packages and returns its interpreter."""
    python, files = folder / "venv/bin/python", [_fetch(uri, folder, project) for uri in uris]
    names = [file.name if uri == source_package.TO_BUILD else uri for uri, file in zip(uris, files, strict=True)]
    _logger.info(f"Installing {', '.join(names)} in a new virtual environment.")
    commands = [[sys.executable, "-m", "venv", str(folder / "venv")], *(_pip_command(python, file) for file in files)]
    for command in commands:
        result = run_command(command)
        if result.returncode:
            last_line = ((result.stdout or "").strip().splitlines() or ["no output"])[-1]
            raise JobError(f"{' '.join(command)} exited with {result.returncode}: {last_line}; correct the package.")
    return python


def _pip_command(python: Path, file: Path) -> list[str]:
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", str(file)]


def _fetch(uri: str, folder: Path, project: Path) -> Path:
    """Returns a package as a local file with its original name, from which pip derives its kind and version."""
    if uri == source_package.TO_BUILD:
        return source_package.build(project, folder)
    if not is_remote(uri):
        return local_path(uri).absolute()
    source = locate(uri)
    target = path_below(folder, source.name, uri)
    source.parent.download({source.name: target})
    return target
