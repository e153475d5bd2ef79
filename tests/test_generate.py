"""What `generate` writes, where, and what it refuses before it restores anything."""

import errno
import io
import os
import types

import numpy as np
import pytest
from PIL import Image

from trainer import __main__ as commands
from trainer.storage import locate


def generate(out):
    return commands.main(["trainer", "generate", "--job_dir=run", "--num_images=4", f"--out={out}"])


@pytest.fixture
def run(monkeypatch):
    """A run whose generator gives black images; notes in a list that it was restored."""
    restored = []

    def restore(job_dir, checkpoint, recipe):
        restored.append(job_dir)
        gan = types.SimpleNamespace(
            num_classes=0, sample=lambda count, **how: (np.zeros((count, 6, 6, 1), np.uint8), None)
        )
        return None, gan, types.SimpleNamespace(step=7)

    monkeypatch.setattr("trainer.trained.restore", restore)
    return restored


def test_images_are_written_to_a_disk_or_a_bucket(run, bucket, tmp_path, capsys):
    for place in (tmp_path, bucket):
        for name in ("grid.png", "samples.npz"):
            assert generate(f"{place}/{name}") == 0
            assert f"Wrote 4 images of the generator at step 7 to {place}/{name}." in capsys.readouterr().out
        with Image.open(io.BytesIO((locate(place) / "grid.png").read_bytes())) as grid:
            assert grid.size == (18, 18)
        with np.load(io.BytesIO((locate(place) / "samples.npz").read_bytes())) as arrays:
            assert arrays["x"].shape == (4, 6, 6, 1)


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("grid.jpg", "has an unknown ending; write a .png grid or a .npz of arrays."),
        ("gs://bucket/grid", "has an unknown ending; write a .png grid or a .npz of arrays."),
        ("nowhere/grid.png", "lies in a folder that does not exist; make nowhere first."),
        ("folder.npz", "is a folder; give the name of a file."),
        ("locked/grid.png", "lies in a folder that you may not write to; give another one."),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch, capsys, out, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda folder, mode: os.path.basename(folder) != "locked")
    for name in ("folder.npz", "locked"):
        (tmp_path / name).mkdir()
    assert generate(out) == 2
    assert f"error: out={out} {sentence}" in capsys.readouterr().err and not run


def test_what_cannot_be_written_after_all_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.storage.locations.write_atomically", full)
    for name in ("grid.png", "samples.npz"):
        assert generate(tmp_path / name) == 1
        assert f"error: {tmp_path}/{name} cannot be written (No space left" in capsys.readouterr().err
