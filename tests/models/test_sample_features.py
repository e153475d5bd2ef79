"""Functions of samples are computed on all replicas, on the images that `sample` gives."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import ActiveDropout, tiny_gan, tiny_model, values_of
from refusals import check_refusal

from trainer.errors import ConfigError, DataError
from trainer.metrics.cycle import CycleMetrics
from trainer.metrics.digits import DigitsMetrics
from trainer.models.sampler import Sampler, as_bytes

MODELS = ("gan", "conditional", "acgan", "infogan")


def pixels_and_sums(images):
    return images, tf.reduce_sum(tf.cast(images, tf.int32), axis=(1, 2, 3))


@pytest.mark.parametrize("model", MODELS)
def test_the_images_are_those_of_sample_on_any_number_of_replicas(model, two_replicas):
    gans = [tiny_model(model, strategy, ema_half_life_images=100.0) for strategy in (None, two_replicas)]
    for gan, num_images in itertools.product(gans, (50, 53, 130)):
        images, labels = gan.sample(num_images)
        (pixels, sums), same_labels = gan.sample_features(num_images, pixels_and_sums)
        np.testing.assert_array_equal(pixels, images)
        np.testing.assert_array_equal(sums, images.sum((1, 2, 3), np.int32))
        assert (labels is None) == (same_labels is None) == (model == "gan")
        np.testing.assert_array_equal(labels, same_labels)


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_two_replicas_give_the_metrics_of_one(architecture, digits, two_replicas):
    suite, results = DigitsMetrics(digits.images[:300], num_samples=130), []
    for strategy in (None, two_replicas):
        gan = tiny_gan(architecture, strategy, model="conditional", ema_half_life_images=100.0)
        for number, variable in enumerate(gan.ema_generator.weights):  # moments of batches, too
            noise = np.random.Generator(np.random.PCG64(number)).random(variable.shape, np.float32)
            variable.assign(variable + 0.2 * noise)
        results.append((gan.sample(130)[0], suite.measure(gan)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] and "conditional_accuracy" in results[0][1]


def test_few_samples_are_the_first_of_many():
    gan = tiny_gan("dcgan")
    (few, _), _ = gan.sample_features(7, pixels_and_sums)
    np.testing.assert_array_equal(few, gan.sample(120)[0][:7])
    np.testing.assert_array_equal(few, gan.sample(7)[0])


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_an_integer_of_numpy_is_the_same_seed(kind):
    gan, same = ActiveDropout(4), ActiveDropout(4)
    gan.compile(seed=3)
    same.compile(seed=kind(3))
    images, _ = gan.sample(5)
    np.testing.assert_array_equal(same.sample(5)[0], images)
    np.testing.assert_array_equal(gan.sample(5, seed=kind(3))[0], images)
    latents = gan.latents_of(np.arange(5), seed=kind(3))
    np.testing.assert_array_equal(latents, gan.latents_of(np.arange(5)))
    np.testing.assert_array_equal(gan.images_from(latents, indices=np.arange(5), seed=kind(3)), images)
    assert gan.seed == same.seed and type(same.seed) is int


@pytest.mark.parametrize("model", ["infogan", "stylegan2", "stylegan2_conditional"])
def test_predict_takes_the_latents_of_samples(model):
    gan, labels = tiny_model(model), np.array([0, 1, 2], np.int32)
    for size in dict.fromkeys([gan.latent_size, gan.network_latent_size]):
        gan = tiny_model(model)
        latents = gan.latents_of(np.arange(3))[:, :size]
        assert latents.shape == (3, size)
        arguments = (latents, labels) if gan.num_classes else latents
        expected = gan.images_from(latents, labels if gan.num_classes else None).astype(int)
        for images in (gan.predict(arguments, verbose=0), gan(arguments)):
            np.testing.assert_allclose(as_bytes(images, gan.image_range), expected, atol=1)


def test_images_may_be_of_latents_with_and_without_truncation():
    gan = tiny_model("stylegan2")
    latents = gan.latents_of(np.arange(3))
    np.testing.assert_array_equal(gan.images_from(latents), gan.images_from(latents[:, :-1]))


@pytest.mark.parametrize("model", ["infogan", "stylegan2"])
def test_latents_of_another_size_are_refused(model):
    gan = tiny_model(model)
    latents = np.zeros((2, gan.latent_size + 1), np.float32)
    arguments = (latents, np.zeros(2, int)) if gan.num_classes else latents
    check_refusal(lambda: gan(arguments), DataError, "latents", str(latents.shape), f"{gan.latent_size}")


def test_a_function_is_compiled_once_and_sampling_in_between_keeps_it(digits):
    traces = []

    def function(images):
        traces.append(images.shape)
        return (images,)

    gan = tiny_gan()
    for num_images in (3, 60, 200):
        gan.sample_features(num_images, function)
        gan.sample(num_images)
        gan.fit(digits.images[:32], batch_size=16, steps=gan.step + 1, verbose=0)
    assert traces == [(50, 28, 28, 1)]


def test_the_weights_and_the_range_of_images_are_those_of_the_call(digits):
    gan, results = tiny_gan(), []
    for change in (
        lambda: None,
        lambda: gan.fit(digits.images[:32], batch_size=16, steps=2, verbose=0),
        lambda: setattr(gan, "image_range", (0.0, 1.0)),
    ):
        change()
        (pixels, _), _ = gan.sample_features(60, pixels_and_sums)
        np.testing.assert_array_equal(pixels, gan.sample(60)[0])
        assert all((pixels != earlier).any() for earlier in results)
        results.append(pixels)


def test_active_random_layers_differ_by_block_and_seed_and_change_no_state(two_replicas):
    images = {}
    for name, strategy in (("one", None), ("two", two_replicas)):
        gan = ActiveDropout(4)
        gan.compile("adam", ema_half_life_images=10.0, strategy=strategy)
        gan.sample_latents = lambda rng: tf.ones([rng.num_samples, 4])
        before = values_of(gan)
        images[name] = gan.sample_features(150, pixels_and_sums)[0][0]
        np.testing.assert_array_equal(images[name], gan.sample(150)[0])
        assert (images[name] != gan.sample(150, seed=9)[0]).any()
        assert all((value == before[key]).all() for key, value in values_of(gan).items())
    np.testing.assert_array_equal(images["one"], images["two"])
    assert (images["one"][:50] != images["one"][50:100]).any()


def test_a_translator_gives_the_translations_of_its_images(digits, two_replicas):
    a, b = digits.images[:70, 8:20, 8:20], 255 - digits.images[:70, 8:20, 8:20]
    for strategy in (None, two_replicas):
        gan = tiny_model("cyclegan", strategy)
        gan.set_grid_images(a, b)
        (pixels, _), labels = gan.sample_features(60, pixels_and_sums)
        np.testing.assert_array_equal(pixels, gan.translate(a[:60], "b"))
        np.testing.assert_array_equal(pixels, gan.sample(60)[0])
        assert labels is None
        assert set(CycleMetrics(a, b).measure(gan)) == {"cycle_error", "cycle_error_a", "cycle_error_b"}


def test_dropout_in_samples_does_not_depend_on_the_number_of_replicas(digits, two_replicas):
    a, b = digits.images[:100, 8:20, 8:20], 255 - digits.images[:100, 8:20, 8:20]
    for strategy in (None, two_replicas):
        gan = tiny_model("pix2pix", strategy)
        gan.set_grid_images(a, b)
        (pixels, _), _ = gan.sample_features(100, pixels_and_sums)
        np.testing.assert_array_equal(pixels, gan.sample(100)[0])
        assert (pixels != gan.sample(100, seed=9)[0]).any()


def test_a_scope_of_the_users_does_not_matter(two_replicas):
    gan = tiny_gan(strategy=two_replicas)
    (expected, _), _ = gan.sample_features(60, pixels_and_sums)
    other = tiny_gan(strategy=two_replicas)
    with two_replicas.scope():
        np.testing.assert_array_equal(other.sample(60)[0], expected)
        np.testing.assert_array_equal(other.sample_features(60, pixels_and_sums)[0][0], expected)


def test_a_sampler_keeps_few_functions_compiled():
    sampler = Sampler(lambda latents: latents)
    for number in range(9):
        (images,) = sampler.outputs(lambda images, n=number: (images + n,), None, (0.0, 255.0), np.zeros((2, 1), "f"))
        assert images.tolist() == [[number]] * 2
    assert len(sampler._compiled) <= 4


@pytest.mark.parametrize("number", [0, -1, 2.5, "4", None])
def test_refused_numbers_are_named(number):
    check_refusal(lambda: tiny_gan().sample_features(number, pixels_and_sums), ConfigError, "num_images", repr(number))
