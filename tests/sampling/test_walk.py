"""Walks through latent space: closed, even, and through the samples."""

import keras
import numpy as np
import pytest
from conftest import tiny_gan, tiny_model

from trainer.models import ConditionalGAN
from trainer.sampling.samples import Samples, images_of, labels_of
from trainer.sampling.walk import LatentPath, frame_positions, interpolate_labels, path_through, slerp


def differences(frames):
    """The mean absolute difference of each frame from the next one; the last one is at the seam."""
    frames = frames.astype(float)
    return np.abs(frames - np.roll(frames, -1, axis=0)).mean(axis=(1, 2, 3))


def frames_of(images_at, num_samples, num_frames):
    positions = frame_positions(images_at, num_samples, num_frames)
    assert positions[0] == 0 and (np.diff(positions) > 0).all() and positions[-1] < num_samples
    return np.concatenate(list(images_at(positions)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([3.0, 0.0], [0.0, 4.0]),
        ([1.0, 0.0], [1.0, 0.0]),
        ([1.0, 1e-9], [1.0, 0.0]),
        ([1.0, 0.0], [-1.0, 0.0]),
        ([0.0, 0.0], [1.0, 2.0]),
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_slerp_is_finite_and_begins_and_ends_at_its_vectors(first, second):
    vectors = np.array([first] * 3), np.array([second] * 3)
    result = slerp(*vectors, np.array([[0.0], [0.5], [1.0]]))
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[0], first, atol=1e-6)
    np.testing.assert_allclose(result[2], second, atol=1e-6)


def test_slerp_keeps_the_length_at_a_constant_angular_speed():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 64))
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    shares = np.linspace(0, 1, 11)[:, np.newaxis]
    points = slerp(np.tile(first, (11, 1)), np.tile(second, (11, 1)), shares)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0)
    steps = np.sum(points[1:] * points[:-1], axis=1)
    np.testing.assert_allclose(steps, steps[0])


def blob(positions, num_samples, speed):
    """Images of a blob that moves along a circle once, at a speed that depends on the position."""
    angles = 2 * np.pi * speed(positions / num_samples)
    grid = np.stack(np.meshgrid(np.arange(24), np.arange(24)), axis=-1)
    centers = 12 + 7 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    distances = ((grid - centers[:, np.newaxis, np.newaxis]) ** 2).sum(axis=-1)
    return (255 * np.exp(-distances / 18)).round().astype(np.uint8)[..., np.newaxis]


@pytest.mark.parametrize(
    "speed",
    [
        lambda share: share,
        lambda share: share**3,
        lambda share: 1 - (1 - share) ** 3,
        lambda share: share - 0.9 * np.sin(2 * np.pi * share) / (2 * np.pi),
        lambda share: np.clip(2 * share - 0.5, 0, 1),  # it stands still around the seam
    ],
    ids=["even", "slow at first", "slow at last", "slow at the seam", "still at the seam"],
)
@pytest.mark.parametrize(("num_samples", "num_frames"), [(2, 50), (4, 100), (10, 40)])
def test_a_walk_is_even_and_has_no_jump_at_the_seam(speed, num_samples, num_frames):
    frames = frames_of(lambda positions: iter([blob(positions, num_samples, speed)]), num_samples, num_frames)
    steps = differences(frames)
    assert len(frames) == num_frames
    assert steps[-1] <= 1.2 * np.median(steps) and steps.max() <= 1.3 * np.median(steps)


def test_a_walk_of_equal_images_has_even_positions():
    def black(positions):
        yield np.zeros((len(positions), 4, 4, 1), np.uint8)

    np.testing.assert_allclose(frame_positions(black, 4, 8), np.arange(8) / 2)


@pytest.mark.parametrize(
    ("gan", "labels"),
    [
        (lambda: tiny_gan(), None),
        (lambda: tiny_gan(latent_distribution="uniform"), None),
        (lambda: tiny_gan("dcgan", model="conditional"), None),
        (lambda: tiny_gan(model="acgan"), [3]),
        (lambda: tiny_model("infogan"), None),
    ],
    ids=["mlp", "uniform", "classes", "one class", "infogan"],
)
def test_a_walk_of_a_generator_visits_its_samples_and_closes(gan, labels, digits):
    gan = gan()
    seeds = np.array([5, 0, 12])
    samples = Samples(seeds, labels_of(gan, seeds, labels))
    path = path_through(gan, samples)
    visited = np.concatenate(list(path.images(np.arange(3.0))))
    assert np.abs(visited.astype(int) - np.concatenate(list(images_of(gan, samples)))).max() <= 1
    steps = differences(frames_of(path.images, 3, 75))
    assert steps[-1] <= 1.2 * np.median(steps)


def test_labels_change_gradually():
    gan = tiny_gan(model="conditional")
    path = LatentPath(gan, gan.latents_of(np.arange(2)), np.array([2, 5], np.int32))
    weights = path._labels(np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([[0.0], [0.25], [0.5]]))
    expected = np.zeros((3, 10))
    expected[0, 2], expected[1, [2, 5]], expected[2, [2, 5]] = 1, [0.75, 0.25], 0.5
    np.testing.assert_allclose(weights, expected)


class Own(ConditionalGAN):
    """A model whose own `generate` takes whole numbers."""

    def generate(self, latents, labels, network, training):
        assert not labels.dtype.is_floating
        return super().generate(latents, labels, network, training)


def test_labels_of_an_own_generate_stay_classes():
    gan = Own(4, 3, networks={"generator": lambda: _dense(7), "discriminator": lambda: _flat()})
    gan.compile(keras.optimizers.Adam())
    path = path_through(gan, Samples(np.arange(3), np.array([0, 1, 2], np.int32)))
    assert np.concatenate(list(path.images(np.array([0.0, 0.4, 0.6, 2.5])))).shape == (4, 3, 3, 1)


def test_vectors_of_an_own_generate_are_those_of_the_nearer_sample():
    vectors = np.array([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]], np.float32)
    gan, share = Own(4, conditions=vectors), np.array([[0.2], [0.8]])
    first, second = (np.tile(vector, (2, 1)) for vector in vectors)
    np.testing.assert_array_equal(interpolate_labels(gan, first, second, share), vectors)
    np.testing.assert_array_equal(interpolate_labels(gan, np.array([0, 0]), second, share), vectors)
    np.testing.assert_array_equal(interpolate_labels(gan, np.array([0, 0]), np.array([1, 1]), share), [0, 1])


def _dense(size):
    return keras.Sequential([keras.Input((size,)), keras.layers.Dense(9, "tanh"), keras.layers.Reshape((3, 3, 1))])


def _flat():
    return keras.Sequential([keras.Input((3, 3, 4)), keras.layers.Flatten(), keras.layers.Dense(1)])
