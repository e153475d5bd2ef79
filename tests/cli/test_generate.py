"""Files that `generate` writes."""

import io
import types

import numpy as np
import pytest
from PIL import Image
from refusals import check_command_refusal

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


@pytest.mark.parametrize(
    ("label", "is_code", "expected"),
    [
        ("boot", False, None),
        ("ankle boot", False, 9),
        ("3", False, 3),
        ("03", True, 3),
        ("coat", True, None),
        ("10", False, None),
    ],
)
def test_a_label_is_the_name_or_the_number_of_a_class(monkeypatch, tmp_path, capsys, label, is_code, expected):
    received = []

    def sample(count, labels, seed):
        received.append(labels)
        return np.zeros((count, 6, 6, 1), np.uint8), np.full(count, labels)

    gan = types.SimpleNamespace(num_classes=10, labels_are_codes=is_code, classes=range(10), sample=sample)
    restored = types.SimpleNamespace(dataset="fashion_mnist"), gan, types.SimpleNamespace(step=7)
    monkeypatch.setattr("trainer.training.restore.restore", lambda *arguments: restored)
    flags = ["generate", "--job_dir=run", "--num_images=4", f"--label={label}", f"--out={tmp_path}/x.png"]
    if expected is None:
        check_command_refusal(commands.main, ["trainer", *flags], capsys, 2, f"label='{label}'")
    else:
        assert commands.main(["trainer", *flags]) == 0 and received == [expected]
