"""Source distribution for a job with a pythonPackageSpec: built from a folder, uploaded under a hash of its content."""

import copy
import gzip
import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.cloud.jobs.job_spec import programs
from trainer.cloud.jobs.worker_pools import PACKAGE
from trainer.errors import ConfigError, quote
from trainer.storage import has_bucket, is_remote, local_path, locate, scratch_folder

_PLACEHOLDER_URI = re.compile(r"gs://BUCKET/.*/gan_trainer-[^/]+\.tar\.gz")
"""URI in the job files of this repository that stands for a package to build."""
_SUFFIX = ".tar.gz"
PROVISIONAL = "gs://provisional/"
"""Beginning of the URIs of packages that are uploaded later."""
TO_BUILD = f"{PACKAGE}to-be-built{_SUFFIX}"
"""Stands for a package to build, in a job on this machine."""
FROM_PROJECT = "built"
"""Source of a package that is built from the project."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A source distribution to upload."""

    uri: str
    """Target, which contains a hash of the content, so that equal packages are uploaded once."""
    content: bytes

    def upload(self) -> None:
        """Uploads the package unless it already exists.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        locate(self.uri).write_bytes(self.content, only_new=True)


def with_provisional_uris(content: Any, staging_bucket: str | None) -> tuple[Any, dict[str, str]]:
    """Returns the content of a file with provisional URIs for packages to build or upload.

    The whole file can then be checked before anything is built.

    Args:
        content: Parsed YAML.
        staging_bucket: `gs://` URI to upload packages to, if any.

    Returns:
        The content, and the source of each provisional URI: a local path, or `built`.

    Raises:
        ConfigError: If a package needs a staging bucket, or a local package does not exist.
    """
    if staging_bucket is not None and not has_bucket(staging_bucket):
        raise ConfigError(
            f"--staging_bucket={staging_bucket} is not in Cloud Storage; write --staging_bucket=gs://BUCKET."
        )
    sources: dict[str, str] = {}
    content = copy.deepcopy(content)
    _change_uris(content, lambda uri: _provisional_uri(uri, staging_bucket, sources))
    return content, sources


def for_local_job(content: Any) -> Any:
    """Returns the content of a file with `TO_BUILD` for packages to build; a local job uploads nothing."""
    content = copy.deepcopy(content)
    _change_uris(content, lambda uri: TO_BUILD if _is_to_build(uri) else uri)
    return content


def build(project: Path, folder: Path) -> Path:
    """Builds the source distribution of a project in a folder and returns its path.

    Raises:
        ConfigError: If the package cannot be built.
    """
    name, content = _build(project)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def collect_packages(sources: Mapping[str, str], staging_bucket: str | None, project: Path) -> dict[str, Package]:
    """Reads or builds the packages of provisional URIs.

    Args:
        sources: Sources by provisional URI, from `with_provisional_uris`.
        staging_bucket: `gs://` URI to upload packages to, if any.
        project: Folder of the package to build.

    Raises:
        ConfigError: If a package cannot be built.
    """
    folder = (staging_bucket or "").rstrip("/")
    packages = {}
    for provisional, source in sources.items():
        name, content = _build(project) if source == FROM_PROJECT else _read(local_path(source))
        digest = hashlib.sha256(content).hexdigest()
        uri = f"{folder}/packages/{name.removesuffix(_SUFFIX)}-{digest}{_SUFFIX}"
        packages[provisional] = Package(uri=uri, content=content)
    return packages


def with_final_uris(value: Any, packages: Mapping[str, Package]) -> Any:
    """Returns a JSON value in which every provisional URI is replaced by the URI of its package."""
    if isinstance(value, Mapping):
        return {key: with_final_uris(member, packages) for key, member in value.items()}
    if isinstance(value, list):
        return [with_final_uris(member, packages) for member in value]
    return packages[value].uri if isinstance(value, str) and value in packages else value


def _change_uris(content: Any, change: Callable[[str], str]) -> None:
    """Changes every package URI in the content of a file, in place. A missing one is passed as an empty string."""
    for program in programs(content):
        if "executorImageUri" not in program and "pythonModule" not in program:
            continue
        uris = program.get("packageUris") or [""]
        if isinstance(uris, list) and all(isinstance(uri, str) for uri in uris):  # else `job_spec.parse` rejects them
            program["packageUris"] = [change(uri) for uri in uris]


def _is_to_build(uri: str) -> bool:
    return not uri or _PLACEHOLDER_URI.fullmatch(uri) is not None


def _provisional_uri(uri: str, staging_bucket: str | None, sources: dict[str, str]) -> str:
    is_built = _is_to_build(uri)
    if is_remote(uri) and not is_built:
        return uri
    source = FROM_PROJECT if is_built else uri
    if not is_built and (not uri.endswith(_SUFFIX) or not local_path(uri).is_file()):
        raise ConfigError(
            f"packageUris has {quote(uri)}, which is not a source distribution on this machine; give an existing "
            f"{_SUFFIX} file, or remove packageUris to build the package of this folder."
        )
    if staging_bucket is None:
        raise ConfigError(
            f"packageUris {f'has {quote(uri)}' if uri else 'is missing'}, so the package must be uploaded; give "
            "--staging_bucket=gs://BUCKET."
        )
    provisional = next((uri for uri, other_source in sources.items() if other_source == source), None)
    if provisional is None:
        provisional = f"{PROVISIONAL}{len(sources)}/{PACKAGE if is_built else Path(uri).name}"
        sources[provisional] = source
    return provisional


def _read(path: Path) -> tuple[str, bytes]:
    return path.name, locate(path).read_bytes()


def _build(project: Path) -> tuple[str, bytes]:
    """Returns the name and the content of a project's source distribution. Equal files give equal content."""
    if not (project / "pyproject.toml").is_file() and not (project / "setup.py").is_file():
        raise ConfigError(f"--package={project} has no pyproject.toml or setup.py; give the folder of a package.")
    if importlib.util.find_spec("build") is None:
        raise ConfigError(
            "building a source distribution needs the package build; run pip install 'gan-trainer[vertex]'."
        )
    with scratch_folder() as folder:
        flags = ["--sdist", f"--outdir={folder}", *_isolation_flags(project)]
        command = [sys.executable, "-m", "build", *flags, str(project)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        archives = sorted(folder.glob(f"*{_SUFFIX}"))
        if result.returncode or len(archives) != 1:
            last = (result.stdout.strip().splitlines() or ["no output"])[-1]
            raise ConfigError(
                f"--package={project} cannot be built ({last}); run python -m build --sdist there to see why."
            )
        return archives[0].name, _reproducible(archives[0].read_bytes())


def _isolation_flags(project: Path) -> list[str]:
    """Returns --no-isolation if all requirements of a project's build are installed, so that it needs no network."""
    from build import BuildException, ProjectBuilder, check_dependency

    try:
        requirements = ProjectBuilder(project).build_system_requires
    except BuildException:  # the build reports it
        return []
    is_installed = not any(missing for requirement in requirements for missing in check_dependency(requirement))
    return ["--no-isolation"] if is_installed else []


def _reproducible(archive: bytes) -> bytes:
    """Returns a .tar.gz without times, owners and file order, which differ between builds."""
    compressed, plain = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=plain, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            content = old.extractfile(member)
            member.mtime = member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, content)
    with gzip.GzipFile(filename="", fileobj=compressed, mode="wb", mtime=0) as file:
        file.write(plain.getvalue())
    return compressed.getvalue()
