"""Single samples: seeds, labels, latents, and truncation."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import ActiveDropout, tiny_gan, tiny_model
from refusals import check_refusal

from trainer.errors import ConfigError, DataError
from trainer.models.inference import MAX_SAMPLE_INDEX
from trainer.sampling.samples import Samples, check_num_samples, images_of, labels_of, parse_seeds

SEEDS = np.array([129, 3, 50, 49, 0, 61])


def images(gan, seeds, labels=None, **settings):
    blocks = list(images_of(gan, Samples(seeds, labels_of(gan, seeds, labels), **settings)))
    return np.concatenate(blocks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-3,2,9", [0, 1, 2, 3, 9]),
        ("9,0-2,1-4", [9, 0, 1, 2, 3, 4]),
        (" 5 , 3 - 4 ", [5, 3, 4]),
        ("007,7", [7]),
        (f"{MAX_SAMPLE_INDEX}", [MAX_SAMPLE_INDEX]),
    ],
)
def test_seeds_are_numbers_and_ranges_each_once_in_order(text, expected):
    assert parse_seeds(text).tolist() == expected


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("", "''"),
        ("a", "'a'"),
        ("1,,2", "''"),
        ("1.5", "'1.5'"),
        ("-1", "'-1'"),
        ("1--2", "'1--2'"),
        ("1-2-3", "'1-2-3'"),
        ("3-1", "'3-1'"),
        ("١", "'١'"),
        (str(MAX_SAMPLE_INDEX + 1), str(MAX_SAMPLE_INDEX)),
        ("9" * 5000, "…"),
        ("0-99999999", "10,000,000"),
    ],
)
def test_a_text_that_is_no_list_of_seeds_is_refused(text, mention):
    check_refusal(lambda: parse_seeds(text), ConfigError, "seeds=", mention)


def test_too_many_images_are_refused():
    check_refusal(lambda: check_num_samples("num_images", 10**10, 10**10), ConfigError, "num_images", "10000000000")
    check_num_samples("num_images", 10**7, 10**7)


@pytest.mark.parametrize(
    "gan",
    [
        lambda: tiny_gan(),
        lambda: tiny_gan("dcgan"),
        lambda: tiny_gan(latent_distribution="uniform"),
        lambda: tiny_gan(model="conditional"),
        lambda: tiny_gan(model="conditional", classes=(3, 7)),
        lambda: tiny_model("infogan"),
    ],
    ids=["mlp", "dcgan", "uniform", "conditional", "two classes", "infogan"],
)
def test_a_seed_is_the_same_image_in_every_list(gan):
    gan = gan()
    expected, labels = gan.sample(130)
    for seeds in (SEEDS, np.arange(130), np.arange(20, 125), SEEDS[:1]):
        assert np.abs(images(gan, seeds).astype(int) - expected[seeds]).max() <= 1
        if labels is not None:
            assert labels_of(gan, seeds, None).tolist() == labels[seeds].tolist()
    np.testing.assert_array_equal(images(gan, np.arange(130)), expected)


@pytest.mark.parametrize("index", [-1, MAX_SAMPLE_INDEX + 1, 2**32])
def test_latents_of_an_index_out_of_range_are_refused(index):
    check_refusal(lambda: tiny_gan().latents_of(np.array([0, index])), DataError, str(index), str(MAX_SAMPLE_INDEX))


def test_the_first_images_come_before_the_latents_of_others(monkeypatch):
    gan, drawn = tiny_gan(), []
    latents_of = gan.latents_of
    monkeypatch.setattr(gan, "latents_of", lambda indices, **seed: drawn.extend(indices) or latents_of(indices, **seed))
    blocks = images_of(gan, Samples(np.arange(1000), None))
    assert len(next(blocks)) == len(drawn) == 50


def test_another_seed_gives_other_images():
    gan = tiny_gan()
    expected = gan.sample(130, seed=5)[0]
    assert np.abs(images(gan, SEEDS, seed=5).astype(int) - expected[SEEDS]).max() <= 1
    assert (images(gan, SEEDS) != expected[SEEDS]).any()


def test_active_random_layers_are_a_function_of_the_seed():
    gan = ActiveDropout(4)
    gan.compile("adam")
    gan.sample_latents = lambda rng: tf.ones([rng.num_samples, 4])
    expected = gan.sample(150)[0]
    assert (expected[:50] != expected[50:100]).any()
    for seeds in (SEEDS, np.arange(150), np.arange(40, 130)):
        np.testing.assert_array_equal(images(gan, seeds), expected[seeds])
    np.testing.assert_array_equal(images(gan, SEEDS, seed=9), gan.sample(150, seed=9)[0][SEEDS])


def test_given_labels_are_used_in_turn():
    gan = tiny_gan(model="conditional")
    assert labels_of(gan, np.array([4, 6, 8]), [0, 3]).tolist() == [0, 3, 0]
    assert labels_of(gan, np.array([4, 6, 8]), [7]).tolist() == [7, 7, 7]
    assert labels_of(gan, np.array([4, 16]), None).tolist() == [4, 6]
    assert labels_of(tiny_gan(), SEEDS, None) is None


@pytest.mark.parametrize("labels", [["3"], ["3", "4"], [3]])
def test_labels_of_a_model_without_classes_are_refused(labels):
    check_refusal(lambda: labels_of(tiny_gan(), SEEDS, labels), DataError, "labels", "3")


@pytest.mark.parametrize("labels", [[4], [3, 4], [10], [-1], [2**32 + 3], [3.5]])
def test_labels_that_the_model_does_not_know_are_refused(labels):
    gan = tiny_gan(model="conditional", classes=(3, 7))
    check_refusal(lambda: labels_of(gan, SEEDS, labels), DataError, "labels", str(labels[-1]))


def test_truncation_moves_normal_latents_in_their_order_towards_zero():
    gan = tiny_gan()
    latents = gan.latents_of(np.arange(500))
    assert np.abs(latents).max() > 2.5
    for psi in (1.0, 0.7, 0.1, 0.0):
        truncated = gan.truncate_latents(latents, psi)
        assert truncated.dtype == np.float32 and truncated.shape == latents.shape
        assert np.abs(truncated).max() <= 2.0 * psi + 1e-6
        assert (np.abs(truncated) <= np.abs(latents) + 1e-6).all()
        if psi:
            assert (np.argsort(truncated[:, 0]) == np.argsort(latents[:, 0])).all()
            assert truncated.std() == pytest.approx(psi * 0.88, rel=0.05)  # of a normal distribution cut at 2


def test_truncation_keeps_codes_and_scales_uniform_latents():
    infogan = tiny_model("infogan")
    latents = infogan.latents_of(np.arange(60))
    truncated = infogan.truncate_latents(latents, 0.5)
    np.testing.assert_array_equal(truncated[:, infogan.latent_dim :], latents[:, infogan.latent_dim :])
    assert (truncated[:, : infogan.latent_dim] != latents[:, : infogan.latent_dim]).all()
    uniform = tiny_gan(latent_distribution="uniform")
    latents = uniform.latents_of(np.arange(60))
    np.testing.assert_allclose(uniform.truncate_latents(latents, 0.5), 0.25 + latents / 2, rtol=1e-6)


def test_truncated_images_are_those_of_truncated_latents():
    gan = tiny_gan()
    expected = gan.images_from(gan.truncate_latents(gan.latents_of(SEEDS), 0.4))
    np.testing.assert_array_equal(images(gan, SEEDS, truncation=0.4), expected)
    alike = images(gan, SEEDS, truncation=0.0)
    assert (alike == alike[0]).all()


def test_a_cyclegan_has_one_image_per_training_image(digits):
    gan = tiny_model("cyclegan")
    gan.set_grid_images(digits.images[:20, 8:20, 8:20], digits.images[20:40, 8:20, 8:20])
    expected = gan.translate(digits.images[:20, 8:20, 8:20], "b")
    np.testing.assert_array_equal(images(gan, np.array([7, 2])), expected[[7, 2]])
    check_refusal(lambda: images(gan, np.array([20])), DataError, "20")
