"""`inspect` describes a dataset, draws its images, and finds damage with --verify."""

import errno
import json

import numpy as np
import pytest
from PIL import Image
from refusals import check_command_refusal

from trainer import __main__ as commands
from trainer.data.tfrecord_writer import write_prepared
from trainer.storage import locate

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 6, 3), np.uint8)
LABELS = np.arange(30) % 3


@pytest.fixture
def folder(tmp_path):
    texts = {"name": "toy", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path / "set", IMAGES, LABELS, ["a", "b", "ü"], num_shards=3, **texts)
    return tmp_path / "set"


def inspect(*arguments):
    return commands.main(["trainer", "inspect", *arguments])


def test_a_dataset_is_described_and_drawn(folder, tmp_path, capsys):
    assert inspect(f"--dataset={folder}", "--verify", f"--contact_sheet={tmp_path}/sheet.png") == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["num_examples"], output["image_shape"], output["classes"]) == (
        30,
        [4, 6, 3],
        {"a": 10, "b": 10, "ü": 10},
    )
    assert output["pixels"]["images"] == 30 and output["pixels"]["range"] == [int(IMAGES.min()), int(IMAGES.max())]
    assert output["pixels"]["mean"] == pytest.approx(IMAGES.mean(axis=(0, 1, 2)), abs=0.01)
    assert output["pixels"]["standard_deviation"] == pytest.approx(IMAGES.std(axis=(0, 1, 2)), abs=0.01)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (3 * 6 + 2, 10 * 8 + 2, 3)
    assert (sheet[2 + 6 : 6 + 6, 2 + 8 : 8 + 8] == IMAGES[4]).all()  # second row, second column: class b's second one


@pytest.mark.parametrize(("num_classes", "num_rows"), [(1, 3), (2, 2 + 2), (6, 6)])
def test_a_contact_sheet_has_several_rows_of_few_classes(num_classes, num_rows, tmp_path):
    names = [f"class {number}" for number in range(num_classes)]
    texts = {"name": "toy", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path / "set", IMAGES, np.arange(30) % num_classes, names, **texts)
    assert inspect(f"--dataset={tmp_path}/set", f"--contact_sheet={tmp_path}/sheet.png") == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (num_rows * 6 + 2, 10 * 8 + 2, 3)
    tiles = sheet[2:, 2:].reshape(num_rows, 6, 10, 8, 3)[:, :4, :, :6].swapaxes(1, 2)
    shown = {tile.tobytes() for tile in tiles.reshape(-1, 4, 6, 3)}
    assert sum(image.tobytes() in shown for image in IMAGES) == 30


def test_damage_is_found_with_verify(folder, capsys):
    last = folder / "toy-00002-of-00003.tfrecord"
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    assert inspect(f"--dataset={folder}") == 0
    assert json.loads(capsys.readouterr().out)["pixels"]["images"] == 10
    arguments = ["trainer", "inspect", f"--dataset={folder}", "--verify"]
    check_command_refusal(commands.main, arguments, capsys, 1, "toy-00002-of-00003.tfrecord", "SHA-256")


def test_a_transformed_dataset_is_described(capsys):
    assert inspect("--dataset=inverted:digits") == 0
    assert json.loads(capsys.readouterr().out)["classes"]["7"] == 500


def test_a_contact_sheet_is_written_to_a_bucket(folder, bucket, tmp_path, capsys):
    for folder_name in (str(tmp_path), bucket):
        assert inspect(f"--dataset={folder}", f"--contact_sheet={folder_name}/sheet.png") == 0
    assert (locate(bucket) / "sheet.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_a_contact_sheet_on_a_full_disk_fails_with_one_line(folder, tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.storage.local.write_atomically", full)
    arguments = ["trainer", "inspect", f"--dataset={folder}", f"--contact_sheet={tmp_path}/sheet.png"]
    check_command_refusal(commands.main, arguments, capsys, 1, f"{tmp_path}/sheet.png", "No space left on device")
