"""The range of the images, which weights keep in files and in checkpoints."""

import h5py
import keras
import numpy as np
import pytest
from refusals import check_refusal

from trainer import GAN
from trainer.callbacks import Checkpoint, checkpoint
from trainer.errors import DataError

FILES = ["weights", "checkpoint"]


def compiled(**settings):
    """Returns a compiled GAN whose generator can reach every range."""
    networks = {
        "generator": lambda: keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))]
        ),
        "discriminator": lambda: keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
        ),
    }
    gan = GAN(4, networks=networks, **settings)
    gan.compile(optimizer="adam")
    return gan


@pytest.fixture
def x():
    """Images that fill 0..1."""
    return np.random.default_rng(0).random((16, 8, 8, 1), np.float32)


@pytest.fixture
def trained(x, tmp_path):
    """A GAN that was trained on x, whose weights are in both kinds of files."""
    gan = compiled()
    gan.fit(x, batch_size=8, verbose=0, callbacks=Checkpoint(tmp_path / "checkpoints"))
    gan.save_weights(tmp_path / "gan.weights.h5")
    return gan


def restored(kind, folder, **settings):
    """Returns another GAN with the weights in a file."""
    gan = compiled(**settings)
    if kind == "weights":
        gan.load_weights(folder / "gan.weights.h5")
    else:
        Checkpoint(folder / "checkpoints").restore(gan)
    return gan


@pytest.mark.parametrize("kind", FILES)
def test_restored_weights_have_the_range_of_their_images(x, trained, tmp_path, kind):
    gan = restored(kind, tmp_path)
    np.testing.assert_array_equal(gan.sample(8)[0], trained.sample(8)[0])
    check_refusal(lambda: gan.fit(2 * x - 1, batch_size=8, epochs=2, verbose=0), DataError, "-1..1", "0..1")
    gan.fit(x, batch_size=8, epochs=2, verbose=0)
    assert gan.step == 4 and gan.image_range == (0.0, 1.0)


@pytest.mark.parametrize("kind", FILES)
def test_data_sets_the_range_of_weights_of_earlier_versions(x, tmp_path, kind, monkeypatch, request):
    monkeypatch.setattr(checkpoint, "_range_settings", lambda model: {})
    request.getfixturevalue("trained")
    with h5py.File(tmp_path / "gan.weights.h5", "r+") as content:
        del content["vars"]["image_range"]
    gan = restored(kind, tmp_path)
    gan.fit(x, batch_size=8, epochs=2, verbose=0)
    assert gan.step == 4 and gan.image_range == (0.0, 1.0)
    check_refusal(lambda: gan.fit(2 * x - 1, batch_size=8, epochs=3, verbose=0), DataError, "-1..1", "0..1")


def test_data_of_another_range_than_the_checkpoint_that_fit_restores_is_refused(x, trained, tmp_path):
    gan = compiled()
    callback = Checkpoint(tmp_path / "checkpoints")
    check_refusal(
        lambda: gan.fit(2 * x - 1, batch_size=8, epochs=2, verbose=0, callbacks=callback), DataError, "-1..1", "0..1"
    )


@pytest.mark.parametrize("kind", FILES)
def test_a_range_that_the_user_has_set_stays_with_a_warning(trained, tmp_path, kind, trainer_log):
    assert restored(kind, tmp_path, image_range="0..1").image_range == (0.0, 1.0)
    assert not [record for record in trainer_log.records if record.levelname == "WARNING"]
    assert restored(kind, tmp_path, image_range="-1..1").image_range == (-1.0, 1.0)
    assert "0..1" in trainer_log.text and "-1..1" in trainer_log.text
