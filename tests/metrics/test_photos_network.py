"""The feature network of the suite `photos`."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter
from refusals import Refusal, check_refusal

from trainer.errors import DataError
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.photos_network import WEIGHTS_PATH, PhotosNetwork

DESCRIPTION = json.loads(WEIGHTS_PATH.with_suffix(".json").read_text())
SCRIPT = Path(__file__).parents[2] / "scripts/train_photos_network.py"
SIZES = [(8, 8), (32, 32), (64, 64), (65, 63), (48, 96), (130, 70)]


@pytest.fixture(scope="module")
def network():
    return PhotosNetwork()


@pytest.fixture(scope="module")
def images():
    """Smooth colored patterns with edges, uint8 [60, 64, 64, 3]."""
    random = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) + 1 / 64
    spectrum = np.fft.fft2(random.normal(size=(60, 3, 64, 64))) / frequency
    patterns = np.moveaxis(np.fft.ifft2(spectrum).real, 1, -1)
    patterns = patterns / patterns.std() + 0.7 * (patterns[..., :1] > 0)
    return np.clip(np.rint(110 + 45 * patterns), 0, 255).astype(np.uint8)


def features(network, images):
    return network(np.stack(images))[0].numpy()


def test_the_description_states_what_ships(network):
    assert WEIGHTS_PATH.stat().st_size < 2 * 2**20
    assert network.sha256 == DESCRIPTION["sha256"] == hashlib.sha256(WEIGHTS_PATH.read_bytes()).hexdigest()
    assert network.feature_size == DESCRIPTION["feature_size"] <= 384
    assert len(DESCRIPTION["classes"]) == 10
    assert 0.75 < DESCRIPTION["held_out_accuracy"] < 1
    assert {"seed", "data", "data_sha256", "held_out_images"} <= set(DESCRIPTION)
    with np.load(WEIGHTS_PATH, allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float16)}
        assert all(np.isfinite(arrays[name]).all() for name in arrays.files)
        assert arrays["features_deviation"].min() > 0


def test_the_network_is_an_extractor(network):
    assert (network.name, network.frechet_name) == ("photos", "frechet")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_size_and_number_of_channels_gives_features(network, size, channels):
    images = np.random.default_rng(1).integers(0, 256, (2, *size, channels), np.uint8)
    values, logits = network(images)
    assert (values.shape, values.dtype) == ((2, network.feature_size), tf.float32)
    assert (logits.shape, logits.dtype) == ((2, 10), tf.float32)
    assert np.isfinite(values).all() and np.isfinite(logits).all()
    np.testing.assert_allclose(network(images.astype(np.float32))[0], values, atol=1e-4)


def test_gray_is_repeated_and_alpha_is_placed_on_white(network, images):
    images = images[:4]
    gray, opaque = images[..., :1], np.full_like(images[..., :1], 255)
    np.testing.assert_array_equal(features(network, gray), features(network, gray.repeat(3, axis=-1)))
    np.testing.assert_array_equal(features(network, np.concatenate([images, opaque], -1)), features(network, images))
    transparent = np.concatenate([images, np.zeros_like(opaque)], axis=-1)
    np.testing.assert_array_equal(features(network, transparent), features(network, np.full_like(images, 255)))


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (32, 32), (96, 160), (48, 100)])
def test_other_sizes_are_resized_with_antialiasing(network, images, size):
    image = np.tile(images[0], (4, 4, 1))[: size[0], : size[1]]
    channels = [Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3)]
    resized = np.stack([channel.resize((64, 64), Image.Resampling.BILINEAR) for channel in channels], axis=-1)
    np.testing.assert_allclose(features(network, [image]), features(network, [resized]), atol=5e-3)


@pytest.mark.parametrize(
    "shape", [(64, 64, 3), (2, 64, 64), (2, 64, 64, 2), (2, 64, 64, 5), (2, 3, 64, 64), (2, 64, 64, 0)]
)
def test_other_shapes_are_refused(network, shape):
    check_refusal(lambda: network(np.zeros(shape, np.uint8)), DataError, str(shape))


def test_features_are_standardized(network, images):
    """The synthetic images are not the training images, so the bounds are wide."""
    values = features(network, images)
    assert np.abs(values.mean(0)).mean() < 3
    assert 0.1 < np.median(values.std(0)) < 3


def test_the_same_images_give_the_same_bits_in_eager_mode_and_repeatedly_in_a_graph(network, images):
    function = tf.function(network)
    first = function(images[:50])[0].numpy()
    np.testing.assert_array_equal(function(images[:50])[0], first)
    np.testing.assert_array_equal(tf.function(PhotosNetwork())(images[:50])[0], first)
    np.testing.assert_allclose(features(network, images[:50]), first, atol=1e-4)


def test_a_function_with_unknown_sizes_gives_the_same_features(network, images):
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    function = tf.function(network, input_signature=signature)
    np.testing.assert_allclose(function(images[:4])[0], features(network, images[:4]), atol=1e-4)


def test_the_script_writes_the_network_that_it_trains(tmp_path):
    spec = importlib.util.spec_from_file_location("train_photos_network", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    training = script.Training(10, total_steps=10, state=tmp_path / "state.npz")
    for _ in range(2):
        training.train_batch(images, np.arange(8))
    training.save()
    resumed = script.Training(10, total_steps=10, state=tmp_path / "state.npz")
    assert resumed.step == 2
    size = PhotosNetwork.feature_size
    script.write(tmp_path, resumed.fold() | {"features_mean": np.zeros(size), "features_deviation": np.ones(size)}, {})
    for variable, average in zip(training.model.variables, training._averages, strict=True):
        variable.assign(average)
    expected = training.model(images / 127.5 - 1.0, training=False)
    np.testing.assert_allclose(PhotosNetwork(tmp_path / WEIGHTS_PATH.name)(images)[1], expected, rtol=0.02, atol=0.01)


def blurred(image, strength, _):
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(strength)))


def noisy(image, strength, random):
    return np.clip(np.rint(image + random.normal(0, 8 * strength, image.shape)), 0, 255).astype(np.uint8)


def shifted(image, strength, _):
    return np.clip(image + np.array([12, 0, -12]) * strength, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", [blurred, noisy, shifted])
def test_the_frechet_distance_grows_with_each_strength_of_a_defect(network, images, change):
    real, distances = features(network, images), [0.0]
    for strength in (0.5, 1, 2, 4):
        random = np.random.default_rng(2)
        fake = features(network, [change(image, strength, random) for image in images])
        distances.append(frechet_distance(real, fake))
    assert distances == sorted(set(distances))


def copied(folder: Path, weights: bytes | None = None, about: str | None = None) -> Path:
    """Copies the weights and their description, or writes other ones."""
    path = folder / WEIGHTS_PATH.name
    path.write_bytes(WEIGHTS_PATH.read_bytes() if weights is None else weights)
    path.with_suffix(".json").write_text(json.dumps(DESCRIPTION) if about is None else about)
    return path


def without_weights(folder: Path) -> Path:
    shutil.copy(WEIGHTS_PATH.with_suffix(".json"), folder)
    return folder / WEIGHTS_PATH.name


def without_description(folder: Path) -> Path:
    return Path(shutil.copy(WEIGHTS_PATH, folder))


def flipped(position: int) -> bytes:
    content = bytearray(WEIGHTS_PATH.read_bytes())
    content[position] ^= 1
    return bytes(content)


def refused(name, make, *mentions):
    return Refusal(name, lambda folder: PhotosNetwork(make(folder)), DataError, mentions)


REFUSALS = [
    refused("changed first byte", lambda folder: copied(folder, flipped(0)), WEIGHTS_PATH.name, "SHA-256"),
    refused("changed middle", lambda folder: copied(folder, flipped(50_000)), WEIGHTS_PATH.name, "SHA-256"),
    refused("cut file", lambda folder: copied(folder, WEIGHTS_PATH.read_bytes()[:-1]), WEIGHTS_PATH.name, "SHA-256"),
    refused("empty file", lambda folder: copied(folder, b""), WEIGHTS_PATH.name, "SHA-256"),
    refused("other file", lambda folder: copied(folder, b"weights"), WEIGHTS_PATH.name, "SHA-256"),
    refused("missing weights", without_weights, WEIGHTS_PATH.name),
    refused("missing description", without_description, WEIGHTS_PATH.name),
    refused("missing folder", lambda folder: folder / "none" / "weights.npz", "weights.npz"),
    refused("description without hash", lambda folder: copied(folder, about="{}"), "sha256"),
    refused("description cut", lambda folder: copied(folder, about='{"sha256": "'), ".json"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_damaged_and_missing_weights_are_refused(tmp_path, refusal):
    check_refusal(lambda: refusal.act(tmp_path), refusal.error, *refusal.mentions)
