"""Installed packages train: the source distribution in an environment, and the image of the Dockerfile.

Two gigabytes of packages are installed once, by the Dockerfile's own command, from the lock and with its hashes. The
source distribution is installed into another environment that sees these packages. If the Python version of the image
is not installed, the test of the image is skipped, because the lock is made for that version only, and pip resolves the
dependencies of the source distribution.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dockerfile import Image, find_python, pip_environment, python_version, steps
from packaging.utils import canonicalize_name
from refusals import check_refusal

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RUN_FILES = {
    "checkpoints/step-00000020/MANIFEST.json",
    "checkpoints/step-00000020/state.index",
    "config.json",
    "events.jsonl",
    "metrics.jsonl",
    "model/saved_model.pb",
    "report.html",
    "samples/progression.gif",
    "samples/step-00000000.png",
    "samples/step-00000020.png",
}
"""Files that a run of 20 steps leaves, among others."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def remove() -> Iterator[Callable[[Path], None]]:
    """A function that deletes a folder in the background, because tens of thousands of files take a while."""
    removals = []
    with ThreadPoolExecutor(1) as pool:
        yield lambda folder: removals.append(pool.submit(shutil.rmtree, folder))
        for removal in removals:
            removal.result()


@pytest.fixture(scope="module")
def image(remove) -> Iterator[Image]:
    """The image that the Dockerfile builds with `--build-arg=REQUIREMENTS=requirements.lock`."""
    version = python_version(DOCKERFILE)
    interpreter = find_python(version)
    if interpreter is None:
        pytest.skip(f"the image needs Python {version}, which is not installed")
    image = Image(
        Path(tempfile.mkdtemp(prefix="gan-trainer-installation-")), ROOT, interpreter, REQUIREMENTS="requirements.lock"
    )
    try:
        image.build(DOCKERFILE)
        yield image
    finally:
        remove(image.root)


def run(command: list[str | Path], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command with only these environment variables; `stdout` has both streams."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, cwd=folder, env=variables, check=False, **streams)


def assert_trained(done: subprocess.CompletedProcess[str], job_dir: Path) -> None:
    """Asserts that a run of 20 steps of the default recipe succeeded and left its files."""
    assert done.returncode == 0, done.stdout
    assert {file.relative_to(job_dir).as_posix() for file in job_dir.rglob("*")} >= RUN_FILES
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "metric/frechet_digits_5k" in line] == [0, 20]


def test_the_dockerfile_builds_an_image_whose_entrypoint_trains(image):
    trainer, benchmarks = (
        {
            path.relative_to(ROOT)
            for path in (ROOT / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for name in ("trainer", "benchmarks")
    )
    other_files = {
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "requirements.lock",
    }
    copied = {f"src/{name}" for name in other_files | set(map(str, trainer))}
    assert image.copied == copied | {f"home/trainer/{name}" for name in benchmarks}
    assert (image.root / "src/requirements.lock").read_bytes() == (ROOT / "requirements.lock").read_bytes()
    done = image.run("--steps=20", "--job_dir=runs/image")
    assert_trained(done, image.folder / "runs/image")


def test_the_image_runs_as_root_to_write_metrics_on_vertex_ai():
    assert "USER" not in dict(steps(DOCKERFILE))


def test_an_installed_source_distribution_trains_elsewhere(distributions, tmp_path, remove, request):
    """Pip builds it in isolation and resolves its dependencies to exactly the packages of the lock."""
    shared_image = find_python(python_version(DOCKERFILE)) and request.getfixturevalue("image")
    environment = tmp_path / "environment"
    request.addfinalizer(lambda: remove(environment))
    subprocess.run(
        [shared_image.interpreter if shared_image else sys.executable, "-m", "venv", environment], check=True
    )
    (site_packages,) = environment.glob("lib/python3.*/site-packages")
    if shared_image:
        (site_packages / "image.pth").write_text(f"{shared_image.site_packages}\n")
    before = set(os.listdir(site_packages))
    (archive,) = distributions.glob("*.tar.gz")
    done = run([environment / "bin/pip", "install", "--no-cache-dir", archive], tmp_path, pip_environment())
    assert done.returncode == 0, done.stdout
    if shared_image:
        assert {name.split("-")[0] for name in set(os.listdir(site_packages)) - before} == {"gan_trainer", "trainer"}
        satisfied = re.findall(r"^Requirement already satisfied: ([\w.-]+)", done.stdout, re.MULTILINE)
        locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
        assert {canonicalize_name(name) for name in satisfied} == set(locked)
    (tmp_path / "folder").mkdir()
    variables = {"PATH": f"{environment}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = ["python3", "-m", "trainer.task", "--steps=20", f"--job_dir={tmp_path}/runs/installed"]
    assert_trained(run(command, tmp_path / "folder", variables), tmp_path / "runs/installed")


def test_the_dockerfile_reader_refuses_other_instructions(tmp_path):
    image = Image(tmp_path, ROOT, Path(sys.executable))
    for text, mention in (("HEALTHCHECK NONE", "HEALTHCHECK"), ("RUN curl example.org", "curl")):
        check_refusal(functools.partial(image.build, text), ValueError, mention)


@pytest.mark.parametrize("name", ["missing.lock", "scripts", ".gitignore"])
def test_copying_a_file_that_is_not_sent_to_the_builder_fails(tmp_path, name):
    image = Image(tmp_path, ROOT, Path(sys.executable))
    check_refusal(lambda: image.build(f"WORKDIR /src\nCOPY {name} ./"), FileNotFoundError, name, ".dockerignore")


def test_steps_are_read_without_comments_and_with_all_lines():
    assert steps("# A comment\nFROM a\n\nRUN b \\\n    c\n") == [("FROM", "a"), ("RUN", "b c")]
