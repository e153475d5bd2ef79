"""A model counts as complete only if its files are those that were written, and only finite weights are exported."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from bucket_runs import train
from conftest import tiny_model
from hostile import tree
from refusals import check_refusal

from trainer.errors import DivergenceError, StorageError
from trainer.serving import saved_model
from trainer.serving.served_model import ServedModel
from trainer.storage import locate
from trainer.storage.local import LocalLocation

METADATA = "assets.extra/run.json"
DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    saved_model.save(tiny_model("gan"), folder, 7)
    return folder


@pytest.fixture
def model(original, tmp_path):
    """The folder of a complete model that a test may change."""
    return shutil.copytree(original, tmp_path / "model")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


@pytest.mark.parametrize("harm", [cut, flip, empty, delete])
@pytest.mark.parametrize("name", ["saved_model.pb", DATA, "variables/variables.index", "fingerprint.pb"])
def test_a_damaged_model_is_not_complete(model, name, harm):
    assert saved_model.read_metadata(locate(model)) == {"step": 7}
    harm(model / name)
    assert saved_model.read_metadata(locate(model)) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b"[" * 10_000,
        b"\xff",
        b"{}",
        b'{"step": 7}',
        b'{"sha256": 7}',
        b'{"sha256": {}}',
    ]
    + [json.dumps({"step": 7, "sha256": {name: "0" * 64}}).encode() for name in ("saved_model.pb", "../model", "/x")],
)
def test_damaged_metadata_is_no_metadata(model, content):
    """The metadata of version 0.1.0 has no hashes; its model is exported again."""
    (model / METADATA).write_bytes(content)
    assert saved_model.read_metadata(locate(model)) == {}


def test_files_that_were_added_do_not_matter(model):
    (model / "README.md").write_text("notes")
    assert saved_model.read_metadata(locate(model)) == {"step": 7}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "settings"), [("gan", {}), ("gan", {"ema_half_life_images": 10}), ("cyclegan", {})])
def test_weights_that_are_not_finite_are_not_exported(name, settings, value, tmp_path):
    gan = tiny_model(name, **settings)
    network = gan.ema_network("generator_ab") if name == "cyclegan" else gan.ema_generator
    weight = network.trainable_variables[-1]
    values = weight.numpy()
    values.flat[0] = value
    weight.assign(values)
    check_refusal(lambda: saved_model.save(gan, tmp_path / "model", 1), DivergenceError, "finite")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.slow
def test_a_finished_run_replaces_a_damaged_model(tmp_path):
    flags = ("--steps=2", "--export_model")
    assert train("digits", tmp_path / "run", *flags) == 0
    model = tmp_path / "run/model"
    before = tree(model)
    assert train("digits", tmp_path / "run", *flags) == 0 and tree(model) == before
    cut(model / "saved_model.pb")
    assert train("digits", tmp_path / "run", *flags) == 0
    assert tf.saved_model.load(str(model)).signatures
    assert saved_model.read_metadata(locate(model))["step"] == 2


def test_the_directory_of_a_run_is_refused_with_the_path_of_its_model(model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_refusal(
        lambda: ServedModel.load(LocalLocation(tmp_path)), StorageError, str(tmp_path), str(tmp_path / "model")
    )


@pytest.mark.parametrize("name", ["generator.keras", "generator.onnx", "generator.tflite"])
def test_a_model_in_another_format_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"content")
    check_refusal(lambda: ServedModel.load(LocalLocation(tmp_path)), StorageError, str(tmp_path), name, "savedmodel")
