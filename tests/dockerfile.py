"""Runs the steps of a Dockerfile without Docker, in a folder that replaces the root of the image.

The Python of FROM is a new virtual environment in `usr/local`, made by an interpreter of the same version. COPY sees
the part of the context that `.dockerignore` sends. `RUN pip …` runs in a shell with the pip of that environment.
"""

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def steps(text: str) -> list[tuple[str, str]]:
    """Returns (instruction, arguments) of each step, without comments and with continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    words = [line.split(maxsplit=1) for line in re.sub(r"\s*\\\n\s*", " ", lines).splitlines()]
    return [(instruction, arguments) for instruction, arguments in words]


def python_version(text: str) -> str:
    """Returns the Python version of FROM, such as 3.11.

    Raises:
        ValueError: If the first step is not FROM an official slim image of Python.
    """
    instruction, rest = steps(text)[0]
    match = re.fullmatch(r"python:(3\.\d+)(?:\.\d+)?-slim(?:-\w+)?(?:@sha256:[0-9a-f]{64})?", rest)
    if instruction != "FROM" or not match:
        raise ValueError(f"{instruction} {rest} is not supported; start with FROM python:3.N-slim")
    return match[1]


def find_python(version: str) -> Path | None:
    """Returns an interpreter of this version that can create environments, or None."""
    folders = [f"{sys.base_prefix}/bin", *os.get_exec_path()]
    program = f"import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in (Path(folder) / f"python{version}" for folder in folders):
        if candidate.exists():
            done = subprocess.run([candidate, "-c", program], cwd="/", capture_output=True, check=False)
            if done.returncode == 0:
                return candidate
    return None


def pip_environment() -> dict[str, str]:
    """Returns the environment variables of this process, except those that configure its Python."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


class Image:
    """An image that a Dockerfile builds.

    Args:
        root: Empty folder that replaces `/`.
        context: Folder that is sent to the builder.
        interpreter: Interpreter of the version in FROM.
        **build_arguments: Values as for `--build-arg`.

    Attributes:
        root: Folder that replaces `/`.
        copied: Files that COPY created, relative to `root`.
        folder: Current WORKDIR.
    """

    def __init__(self, root: Path, context: Path, interpreter: Path, **build_arguments: str) -> None:
        self.root, self.context, self.interpreter = root, context, interpreter
        self.copied: set[str] = set()
        self._build_arguments = build_arguments
        self._arguments: dict[str, str] = {}
        self._variables: dict[str, str] = {}
        self.folder = root
        self._entrypoint: list[str] = []

    def build(self, text: str) -> None:
        """Runs the steps of a Dockerfile.

        Raises:
            ValueError: If an instruction or its form is not supported.
            FileNotFoundError: If COPY names a file that is not sent to the builder.
            RuntimeError: If a command fails; the message contains its output.
        """
        for instruction, rest in steps(text):
            method = getattr(self, f"_{instruction.lower()}_step", None)
            if method is None:
                raise ValueError(f"the instruction {instruction} is not supported")
            method(rest)
        if unknown := self._build_arguments.keys() - self._arguments.keys():
            raise ValueError(f"the Dockerfile has no ARG {', '.join(sorted(unknown))}")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs ENTRYPOINT with these arguments in WORKDIR, with only the environment variables of the image."""
        return subprocess.run(
            [*self._entrypoint, *arguments],
            cwd=self.folder,
            env={"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self.folder), **self._variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    @property
    def site_packages(self) -> Path:
        """The folder into which pip installs."""
        (folder,) = self.root.glob("usr/local/lib/python3.*/site-packages")
        return folder

    @property
    def _bin(self) -> Path:
        return self.root / "usr/local/bin"

    def _expanded(self, text: str) -> str:
        return string.Template(text).substitute(self._arguments | self._variables)

    def _path(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith("/") else self.folder / path

    def _from_step(self, rest: str) -> None:
        python_version(f"FROM {rest}")
        subprocess.run([self.interpreter, "-m", "venv", self._bin.parent], check=True)

    def _arg_step(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        self._arguments[name] = self._build_arguments.get(name, default)

    def _env_step(self, rest: str) -> None:
        self._variables |= dict(word.split("=", 1) for word in shlex.split(self._expanded(rest)))

    def _workdir_step(self, rest: str) -> None:
        self.folder = self._path(self._expanded(rest))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _copy_step(self, rest: str) -> None:
        *sources, target = shlex.split(self._expanded(rest))
        if rest.startswith(("-", "[")) or (len(sources) > 1 and not target.endswith("/")):
            raise ValueError(f"this form of COPY is not supported: COPY {rest}")
        for source in sources:
            path = self.context / source
            for file in self._sent_files(path):
                below = file.relative_to(path) if path.is_dir() else file.name if target.endswith("/") else ""
                copy = self._path(target) / below
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                self.copied.add(copy.relative_to(self.root).as_posix())

    def _sent_files(self, path: Path) -> Iterator[Path]:
        """Yields the files of a source of COPY that `.dockerignore` does not exclude."""
        rules = (self.context / ".dockerignore").read_text().split()
        name = path.relative_to(self.context).as_posix()
        if rules[0] != "*" or f"!{name}" not in rules or not path.exists():
            raise FileNotFoundError(f"COPY {name}: the file is missing, or .dockerignore does not send it")
        excluded = {rule.removeprefix("**/") for rule in rules if rule.startswith("**/")}
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not excluded & set(file.relative_to(self.context).parts):
                yield file

    def _run_step(self, rest: str) -> None:
        words = shlex.split(rest)
        if words[0] != "pip":
            raise ValueError(f"only RUN pip is supported: RUN {rest}")
        if not (self._bin / "pip").exists():
            raise FileNotFoundError("the environment has no pip")
        environment = pip_environment() | self._arguments | self._variables
        environment["PATH"] = f"{self._bin}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", rest], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"RUN {rest}\n{done.stdout}{done.stderr}")

    def _entrypoint_step(self, rest: str) -> None:
        self._entrypoint = json.loads(rest)
