"""The distributions contain their data, and the scripts are executable."""

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
    "trainer/metrics/photos_network.json",
    "trainer/metrics/photos_network.npz",
    "trainer/py.typed",
    "trainer/report/static/page.css",
    "trainer/report/static/page.html",
    "trainer/report/static/page.js",
    "trainer/report/static/uplot.LICENSE",
    "trainer/report/static/uplot.css",
    "trainer/report/static/uplot.js",
}
MODULES = {file.relative_to(ROOT).as_posix() for file in (ROOT / "trainer").rglob("*.py")}


def test_the_source_distribution_has_modules_data_and_license(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*DATA, *MODULES, "setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names


def test_the_wheel_has_modules_data_and_license(distributions):
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {name for name in names if ".dist-info/" not in name} >= DATA | MODULES
    assert any(name.endswith("/LICENSE") for name in names)
    assert not {"tests", "benchmarks"} & {name.partition("/")[0] for name in names}
    version = re.search(r'__version__ = "(.+)"', (ROOT / "trainer/__init__.py").read_text())[1]
    assert f"\nVersion: {version}\n" in metadata
    (scripts,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(path) as archive:
        assert "gan-trainer = trainer.__main__:script" in archive.read(scripts).decode()


@pytest.mark.parametrize("script", ["scripts/train_local.sh", "scripts/test.sh", ".ci/run"])
def test_scripts_can_be_run(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_continuous_integration_runs_the_fast_tests_and_then_the_slow_ones():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if "/scripts/" in line and not line.startswith("#")]
    assert commands == ["./scripts/test.sh", "./scripts/test.sh --slow"]


@pytest.mark.parametrize(
    ("arguments", "num_checks", "expected"),
    [
        ([], 4, ["-m", "not slow"]),
        (["tests/x.py", "-x"], 4, ["-m", "not slow", "tests/x.py", "-x"]),
        (["--all", "-k", "a b"], 4, ["-k", "a b"]),
        (["--slow"], 0, ["-m", "slow"]),
    ],
)
def test_the_test_script_selects_a_tier(tmp_path, arguments, num_checks, expected):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/test.sh").write_text((ROOT / "scripts/test.sh").read_text())
    (tmp_path / "scripts/venv.sh").write_text(f"ROOT={tmp_path}\nVENV={tmp_path}\nprepare_venv() {{ :; }}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{tmp_path}/calls\necho >>{tmp_path}/calls\n')
    (tmp_path / "bin/python").chmod(0o755)
    subprocess.run(["bash", tmp_path / "scripts/test.sh", *arguments], check=True)
    *checks, tests = (tmp_path / "calls").read_text().splitlines()
    assert len(checks) == num_checks
    assert tests.split("|")[:-1] == ["-m", "pytest", "--numprocesses=2", "--dist=worksteal", *expected]
