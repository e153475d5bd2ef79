"""A Dockerfile, read and carried out without Docker: its steps, in their order, on a folder that stands for the root.

What stands for what: the Python that FROM names is a fresh virtual environment of an interpreter of that version in
/usr/local, where the official images have theirs; COPY sees of the context what `.dockerignore` sends; `RUN pip …` is
run by the shell with that environment's pip.
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
    """The instructions, each with what follows its name; comments are left out and continued lines are joined."""
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    found = [line.split(maxsplit=1) for line in re.sub(r"\s*\\\n\s*", " ", lines).splitlines()]
    return [(instruction, rest) for instruction, rest in found]


def python_version(text: str) -> str:
    """The Python that FROM names, such as 3.11.

    Raises:
        ValueError: The first step is not FROM an official image of Python.
    """
    instruction, rest = steps(text)[0]
    named = re.fullmatch(r"python:(3\.\d+)-slim", rest)
    if instruction != "FROM" or not named:
        raise ValueError(f"{instruction} {rest} is not an image of Python that this reader knows")
    return named[1]


def find_python(version: str) -> Path | None:
    """An interpreter of this version that can make environments; None where none is."""
    folders = [f"{sys.base_prefix}/bin", *os.get_exec_path()]
    program = f"import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in (Path(folder) / f"python{version}" for folder in folders):
        if candidate.exists():
            done = subprocess.run([candidate, "-c", program], cwd="/", capture_output=True, check=False)
            if done.returncode == 0:
                return candidate
    return None


def pip_environment() -> dict[str, str]:
    """The variables of this process, and so the machine's settings of pip, without those that point at its Python."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


class Image:
    """What a Dockerfile has made.

    Attributes:
        root: The folder that stands for `/`.
        copied: The files that COPY made, relative to `root`.
        folder: WORKDIR.
    """

    def __init__(self, root: Path, context: Path, interpreter: Path, **build_arguments: str) -> None:
        """An image of nothing.

        Args:
            root: An empty folder.
            context: The folder that is sent to the builder.
            interpreter: Of the version that FROM names.
            **build_arguments: As by `--build-arg`.
        """
        self.root, self.context, self.interpreter = root, context, interpreter
        self.copied: set[str] = set()
        self._build_arguments = build_arguments
        self._arguments: dict[str, str] = {}
        self._variables: dict[str, str] = {}
        self.folder = root
        self._entrypoint: list[str] = []

    def build(self, text: str) -> None:
        """Carries out the steps of a Dockerfile.

        Raises:
            ValueError: An instruction or a form of one that is not known here.
            FileNotFoundError: COPY of what is not sent to the builder.
            RuntimeError: A command that failed, with its output.
        """
        for instruction, rest in steps(text):
            method = getattr(self, f"_{instruction.lower()}_step", None)
            if method is None:
                raise ValueError(f"{instruction} is not an instruction that this reader knows")
            method(rest)
        if unknown := self._build_arguments.keys() - self._arguments.keys():
            raise ValueError(f"the Dockerfile has no ARG {', '.join(sorted(unknown))}")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs ENTRYPOINT with these arguments: in WORKDIR, with the variables of the image and no others."""
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
        """Where pip has installed."""
        (folder,) = self.root.glob("usr/local/lib/python3.*/site-packages")
        return folder

    @property
    def _bin(self) -> Path:
        return self.root / "usr/local/bin"

    def _expanded(self, text: str) -> str:
        return string.Template(text).substitute(self._arguments | self._variables)

    def _place(self, path: str) -> Path:
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
        self.folder = self._place(self._expanded(rest))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _copy_step(self, rest: str) -> None:
        *sources, target = shlex.split(self._expanded(rest))
        if rest.startswith(("-", "[")) or (len(sources) > 1 and not target.endswith("/")):
            raise ValueError(f"COPY {rest} is not a form that this reader knows")
        for source in sources:
            path = self.context / source
            for file in self._sent(path):
                below = file.relative_to(path) if path.is_dir() else file.name if target.endswith("/") else ""
                place = self._place(target) / below
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
                self.copied.add(place.relative_to(self.root).as_posix())

    def _sent(self, path: Path) -> Iterator[Path]:
        """The files of a source of COPY, less those that `.dockerignore` holds back."""
        rules = (self.context / ".dockerignore").read_text().split()
        name = path.relative_to(self.context).as_posix()
        if rules[0] != "*" or f"!{name}" not in rules or not path.exists():
            raise FileNotFoundError(f"COPY {name}: it is not there, or .dockerignore does not send it")
        left_out = {rule.removeprefix("**/") for rule in rules if rule.startswith("**/")}
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not left_out & set(file.relative_to(self.context).parts):
                yield file

    def _run_step(self, rest: str) -> None:
        words = shlex.split(rest)
        if words[0] != "pip":
            raise ValueError(f"RUN {rest} is not a command that this reader knows")
        if not (self._bin / "pip").exists():
            raise FileNotFoundError("the environment has no pip, and another one must not be used")
        environment = pip_environment() | self._arguments | self._variables
        environment["PATH"] = f"{self._bin}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", rest], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"RUN {rest}\n{done.stdout}{done.stderr}")

    def _entrypoint_step(self, rest: str) -> None:
        self._entrypoint = json.loads(rest)
