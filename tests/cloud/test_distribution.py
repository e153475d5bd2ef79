"""Source distributions are built from a folder, and equal files give equal bytes."""

import copy
import io
import os
import subprocess
import tarfile

import pytest
from refusals import check_refusal

from trainer.cloud.jobs import source_package
from trainer.errors import ConfigError

pytest.importorskip("build")
SOURCES = {"gs://provisional/0/gan_trainer-": "built"}


@pytest.fixture
def project(tmp_path):
    """A small package."""
    (tmp_path / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='mine', version='1', py_modules=['a'])\n"
    )
    (tmp_path / "a.py").write_text("")
    return tmp_path


def test_a_package_is_built_to_the_same_bytes_each_time(project):
    (one,) = source_package.collect_packages(SOURCES, "gs://bkt/", project).values()
    os.utime(project / "a.py", (1, 1))
    (other,) = source_package.collect_packages(SOURCES, "gs://bkt", project).values()
    assert one == other and one.uri.startswith("gs://bkt/packages/mine-1-") and one.uri.endswith(".tar.gz")
    with tarfile.open(fileobj=io.BytesIO(one.content)) as archive:
        assert {"mine-1/a.py", "mine-1/setup.py", "mine-1/PKG-INFO"} <= set(archive.getnames())


def test_a_folder_without_a_package_is_refused(tmp_path):
    check_refusal(
        lambda: source_package.collect_packages(SOURCES, "gs://bkt", tmp_path),
        ConfigError,
        f"package={tmp_path}",
        "setup.py",
    )


def test_a_package_that_cannot_be_built_is_refused(project):
    (project / "setup.py").write_text("raise SystemExit('no')")
    check_refusal(
        lambda: source_package.collect_packages(SOURCES, "gs://bkt", project), ConfigError, f"package={project}", "no"
    )


@pytest.mark.parametrize(
    ("pyproject", "is_isolated"),
    [
        (None, False),
        ("[project]\nname = 'mine'\n", False),
        ("[build-system]\nrequires = ['setuptools>=9999']\nbuild-backend = 'setuptools.build_meta'\n", True),
        ("[build-system]\nrequires = ['not-installed>=1']\nbuild-backend = 'not_installed.build'\n", True),
        ("[build-system", True),
    ],
)
def test_a_build_is_isolated_unless_its_requirements_are_installed(project, monkeypatch, pyproject, is_isolated):
    commands = []

    def fail(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "stop here")

    if pyproject is not None:
        (project / "pyproject.toml").write_text(pyproject)
    monkeypatch.setattr(subprocess, "run", fail)
    check_refusal(lambda: source_package.build(project, project / "out"), ConfigError, "stop here")
    assert ("--no-isolation" not in commands[0]) == is_isolated


def test_the_package_of_several_pools_is_built_once():
    pool = {"pythonPackageSpec": {"executorImageUri": "image", "pythonModule": "trainer.task"}}
    content, sources = source_package.with_provisional_uris(
        {"workerPoolSpecs": [pool, {}, copy.deepcopy(pool)]}, "gs://bkt"
    )
    assert sources == SOURCES
    uris = [one["pythonPackageSpec"]["packageUris"] for one in content["workerPoolSpecs"] if one]
    assert uris == [list(SOURCES)] * 2 and "packageUris" not in pool["pythonPackageSpec"]
