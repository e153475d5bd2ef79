"""Files that `generate` writes."""

import io
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
    """Replaces `restore` by a run at step 7 whose generator makes black images."""

    def restore(job_dir, checkpoint, recipe):
        gan = types.SimpleNamespace(
            num_classes=0, sample=lambda count, **how: (np.zeros((count, 6, 6, 1), np.uint8), None)
        )
        return None, gan, types.SimpleNamespace(step=7)

    monkeypatch.setattr("trainer.training.restore.restore", restore)


def test_images_are_written_to_a_disk_or_a_bucket(run, bucket, tmp_path, capsys):
    for place in (tmp_path, bucket):
        for name in ("grid.png", "samples.npz"):
            assert generate(f"{place}/{name}") == 0
            printed = capsys.readouterr().out
            assert all(fact in printed for fact in ("4", "7", f"{place}/{name}"))
        with Image.open(io.BytesIO((locate(place) / "grid.png").read_bytes())) as grid:
            assert grid.size == (18, 18)
        with np.load(io.BytesIO((locate(place) / "samples.npz").read_bytes())) as arrays:
            assert arrays["x"].shape == (4, 6, 6, 1)
