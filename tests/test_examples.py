"""The scripts in examples/ run, are short, and write what their docstrings promise."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = {
    "labels": "runs/labels/threes.png",
    "own_loss_and_network": "runs/own_loss/samples/step-00000004.png",
    "resume_and_sample": "runs/resume/step-00000004.png",
    "subclass_gan": "runs/subclass_gan/samples/step-00000004.png",
    "train_on_a_folder": "runs/folder/samples.png",
}
"""A file that each script writes."""


def make_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{index}.jpg")


def test_every_script_is_listed_and_has_under_forty_lines():
    scripts = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert sorted(scripts) == sorted(FILES)
    assert {name: count for name, count in scripts.items() if count >= 40} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_script_runs(name, tmp_path):
    arguments = []
    if name == "train_on_a_folder":
        make_photos(tmp_path / "photos")
        arguments = ["photos"]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent), "STEPS": "4", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, EXAMPLES / f"{name}.py", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / FILES[name]).stat().st_size > 0
