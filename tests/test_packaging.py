"""What is shipped: the distributions carry their data, and the scripts can be run."""

import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = {
    "trainer/data/digits/dataset.json",
    "trainer/data/digits/digits-00000-of-00001.tfrecord",
    "trainer/metrics/digits_classifier.json",
    "trainer/metrics/digits_classifier.npz",
    "trainer/py.typed",
}
MODULES = {file.relative_to(ROOT).as_posix() for file in (ROOT / "trainer").rglob("*.py")}


def test_the_source_distribution_holds_modules_data_and_license(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*DATA, *MODULES, "setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names


def test_the_wheel_holds_modules_data_and_license(distributions):
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {name for name in names if ".dist-info/" not in name} >= DATA | MODULES
    assert any(name.endswith("/LICENSE") for name in names)
    assert "tests" not in {name.partition("/")[0] for name in names}
    version = re.search(r'__version__ = "(.+)"', (ROOT / "trainer/__init__.py").read_text())[1]
    assert f"\nVersion: {version}\n" in metadata


@pytest.mark.parametrize("script", ["scripts/train_local.sh", "scripts/test.sh", ".ci/run"])
def test_scripts_can_be_run(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_continuous_integration_runs_the_test_script_and_nothing_else():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert [line for line in lines if "/scripts/" in line] == ["./scripts/test.sh"]
