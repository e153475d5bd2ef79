"""The source distribution of a job with a pythonPackageSpec: built from a folder, put into a bucket by its content."""

import copy
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.cloud.jobs.request import programs
from trainer.cloud.jobs.worker_pools import PACKAGE
from trainer.errors import ConfigError
from trainer.storage import locate

_PLACEHOLDER = re.compile(r"gs://BUCKET/.*/gan_trainer-[^/]+\.tar\.gz")
"""What the job files of this package say where the package is to be built."""
_ENDING = ".tar.gz"
TO_BUILD = f"{PACKAGE}to-be-built{_ENDING}"
"""In a rehearsal, in place of the address of a package that is yet to be built."""
_BUILT = "built"
_OLDEST_SETUPTOOLS = 77  # that pyproject.toml asks for


@dataclass(frozen=True, kw_only=True)
class Package:
    """A source distribution that goes to a bucket."""

    uri: str
    """Where: named by its content, so that the same one is sent once."""
    content: bytes

    def upload(self) -> None:
        """Puts it there, unless it is there.

        Raises:
            StorageError: The bucket cannot be written.
        """
        locate(self.uri).write_bytes(self.content, only_new=True)


def with_provisional(content: Any, staging_bucket: str | None) -> tuple[Any, dict[str, str]]:
    """The content of a file with provisional addresses for packages that are yet to be built or sent.

    So the whole file can be checked before anything is built.

    Args:
        content: As YAML gives it.
        staging_bucket: gs:// where packages go. None: there is none.

    Returns:
        The content, and what each provisional address stands for: a local path, or `built`.

    Raises:
        ConfigError: A package needs a staging bucket, or a local one is not there.
    """
    if staging_bucket is not None and not re.fullmatch(r"gs://[^/]+(/.*)?", staging_bucket):
        raise ConfigError(f"staging_bucket={staging_bucket} is not in Cloud Storage; write gs://BUCKET.")
    sources: dict[str, str] = {}
    content = copy.deepcopy(content)
    _change_uris(content, lambda uri: _provisional(uri, staging_bucket, sources))
    return content, sources


def for_rehearsal(content: Any) -> Any:
    """The content of a file with `TO_BUILD` for packages that are yet to be built; nothing has to be sent."""
    content = copy.deepcopy(content)
    _change_uris(content, lambda uri: TO_BUILD if _is_to_build(uri) else uri)
    return content


def build(project: Path, folder: Path) -> Path:
    """Builds the source distribution of a project, and returns where in a folder it is.

    Raises:
        ConfigError: It cannot be built.
    """
    name, content = _built(project)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def packages(sources: Mapping[str, str], staging_bucket: str | None, project: Path) -> dict[str, Package]:
    """Reads or builds what provisional addresses stand for.

    Args:
        sources: As `with_provisional` returned it.
        staging_bucket: As it was given to it.
        project: The folder of the package that is built.

    Raises:
        ConfigError: It cannot be built.
    """
    folder = (staging_bucket or "").rstrip("/")
    found = {}
    for provisional, source in sources.items():
        name, content = _built(project) if source == _BUILT else _read(Path(source))
        digest = hashlib.sha256(content).hexdigest()
        uri = f"{folder}/packages/{name.removesuffix(_ENDING)}-{digest}{_ENDING}"
        found[provisional] = Package(uri=uri, content=content)
    return found


def with_addresses(value: Any, found: Mapping[str, Package]) -> Any:
    """A JSON value with the addresses of packages where the provisional ones were."""
    if isinstance(value, Mapping):
        return {key: with_addresses(member, found) for key, member in value.items()}
    if isinstance(value, list):
        return [with_addresses(member, found) for member in value]
    return found[value].uri if isinstance(value, str) and value in found else value


def _change_uris(content: Any, change: Callable[[str], str]) -> None:
    """Changes every address of a package in the content of a file; a missing one is the empty text."""
    for program in programs(content):
        if "executorImageUri" not in program and "pythonModule" not in program:
            continue
        uris = program.get("packageUris") or [""]
        if isinstance(uris, list) and all(isinstance(uri, str) for uri in uris):  # else `jobspec.parse` refuses them
            program["packageUris"] = [change(uri) for uri in uris]


def _is_to_build(uri: str) -> bool:
    return not uri or _PLACEHOLDER.fullmatch(uri) is not None


def _provisional(uri: str, staging_bucket: str | None, sources: dict[str, str]) -> str:
    is_built = _is_to_build(uri)
    if uri.startswith("gs://") and not is_built:
        return uri
    source = _BUILT if is_built else uri
    if not is_built and (not uri.endswith(_ENDING) or not Path(uri).is_file()):
        raise ConfigError(
            f"packageUris has {uri!r}, which is no source distribution here; give a {_ENDING} file that exists, or "
            "leave packageUris out to have this folder's package built."
        )
    if staging_bucket is None:
        raise ConfigError(
            f"packageUris {f'has {uri!r}' if uri else 'is missing'}, and the package needs a bucket to go to; give "
            "--staging_bucket=gs://BUCKET."
        )
    provisional = next((address for address, kept in sources.items() if kept == source), None)
    if provisional is None:
        provisional = f"gs://provisional/{len(sources)}/{PACKAGE if is_built else Path(uri).name}"
        sources[provisional] = source
    return provisional


def _read(path: Path) -> tuple[str, bytes]:
    return path.name, locate(path).read_bytes()


def _built(project: Path) -> tuple[str, bytes]:
    """Name and content of the source distribution of a folder; the same files give the same content."""
    if not (project / "pyproject.toml").is_file() and not (project / "setup.py").is_file():
        raise ConfigError(f"package={project} holds no pyproject.toml or setup.py; give --package=FOLDER that does.")
    if importlib.util.find_spec("build") is None:
        raise ConfigError("a source distribution needs the package build; run pip install 'gan-trainer[vertex]'.")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--sdist", f"--outdir={folder}", *_isolation(), str(project)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        made = sorted(Path(folder).glob(f"*{_ENDING}"))
        if done.returncode or len(made) != 1:
            last = (done.stdout.strip().splitlines() or ["it says nothing"])[-1]
            raise ConfigError(f"package={project} cannot be built ({last}); mend it, or try python -m build --sdist.")
        return made[0].name, _reproducible(made[0].read_bytes())


def _isolation() -> list[str]:
    """Builds with the setuptools that is here where it is new enough, which needs no network."""
    try:
        major = int(importlib.metadata.version("setuptools").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return []
    return ["--no-isolation"] if major >= _OLDEST_SETUPTOOLS else []


def _reproducible(archive: bytes) -> bytes:
    """A .tar.gz without times, owners and order, which differ from build to build."""
    packed, bare = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=bare, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            content = old.extractfile(member)
            member.mtime = member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, content)
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        file.write(bare.getvalue())
    return packed.getvalue()
