"""The inputs, losses and sample grids that are particular to each model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, values_of
from keras import layers
from refusals import check_refusal

import trainer
from trainer import CycleGAN, InfoGAN, callbacks
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.image_io import tile
from trainer.metrics.cycle import CycleMetrics
from trainer.models import MODELS
from trainer.models.auxiliary_head import AuxiliaryHeadGAN
from trainer.registry import is_from_package
from trainer.training.rng import StepRng


class Translator(CycleGAN):
    """A user's subclass: two layers for each network, one method for both directions."""

    def get_generator(self):
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 3, padding="same", activation="tanh")])

    def get_discriminator(self):
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 3, 2, padding="same")])


def test_every_model_of_the_package_is_a_public_name():
    for kind in filter(is_from_package, map(MODELS.__getitem__, MODELS.names())):
        assert getattr(trainer, kind.__name__) is kind and kind.__name__ in trainer.__all__


@pytest.fixture(scope="module")
def domains():
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), np.uint8)
    return images[:24], 255 - images[24:]


@pytest.fixture(scope="module")
def translator(domains):
    gan = Translator(cycle_weight=1.0, pool_size=4)
    gan.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mean_squared_error")
    history = gan.fit(*domains, batch_size=8, epochs=2, verbose=0)
    return gan, history.history


def test_a_cyclegan_trains_on_two_domains_of_different_numbers(translator):
    gan, history = translator
    assert gan.step == 2 * (24 // 8)
    logged = {"loss/cycle_a", "loss/cycle_b", "loss/identity_a", "accuracy/real_a", "score/fake_b", "loss/generator"}
    assert logged <= set(history)
    assert 0 < np.asarray(gan.networks["pool_a"].filled.value).sum() <= 4


@pytest.mark.parametrize("updates", ["together", "separate"])
def test_each_fake_image_enters_the_pool_once(domains, updates):
    gan = Translator(pool_size=20)
    gan.compile("adam", discriminator_updates=updates)
    gan.fit(*domains, batch_size=8, steps=1, verbose=0)
    assert [int(np.sum(gan.networks[f"pool_{domain}"].filled.value)) for domain in "ab"] == [8, 8]


def any_size(**options):
    """Returns the compiled model of `Translator` for images of any size."""
    gan = Translator(**options)
    gan.get_generator = lambda: keras.Sequential(
        [keras.Input((None, None, 1)), layers.Conv2D(1, 3, padding="same", activation="tanh")]
    )
    gan.get_discriminator = lambda: keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(1, 3, 2)])
    gan.compile("adam")
    return gan


def test_a_cyclegan_without_a_pool_takes_images_of_any_size(domains):
    gan = any_size(pool_size=0)
    gan.fit(*domains, batch_size=8, steps=1, verbose=0)
    assert gan.translate(domains[0][:2]).shape == (2, 8, 8, 1)
    check_refusal(lambda: any_size(), NetworkError, "pool_size=0", "(None, None, 1)")


def test_a_cyclegan_shows_there_and_back_of_both_domains(translator, domains):
    gan, _ = translator
    grid = gan.sample_grid(10, 5)
    assert grid.shape == (6 * 10 + 2, 5 * 10 + 2, 1)
    a, b = domains
    rows = [grid[2 + row * 10 : 10 + row * 10, 2:10] for row in range(6)]
    for row, image in ((0, a[0]), (1, gan.translate(a, "b")[0]), (3, b[0]), (4, gan.translate(b, "a")[0])):
        np.testing.assert_array_equal(rows[row], image)
    np.testing.assert_array_equal(gan.sample(3)[0], gan.translate(a[:3], "b"))
    check_refusal(lambda: gan.translate(a, "c"), ConfigError, "domain", "'c'")


@pytest.mark.parametrize("num_images", [(1, 1), (1, 9), (9, 1), (2, 200), (12, 12)])
def test_a_grid_of_a_cyclegan_has_a_column_for_each_image_that_there_is(translator, domains, num_images):
    gan, _ = translator
    shown = gan.grid_images
    gan.set_grid_images(
        *(np.repeat(images, 9, axis=0)[:number] for images, number in zip(domains, num_images, strict=True))
    )
    num_columns = min(10, *num_images)
    assert gan.sample_grid(10, 10).shape == (6 * 10 + 2, num_columns * 10 + 2, 1)
    assert len(gan.sample(gan.num_grid_images)[0]) == min(100, *num_images)
    check_refusal(lambda: gan.sample(gan.num_grid_images + 1), DataError, "num_images")
    gan.grid_images = shown


def test_fit_keeps_the_images_that_a_user_has_set_to_show(domains):
    gan = Translator()
    gan.compile(optimizer="adam")
    gan.set_grid_images(*(images[-3:] for images in domains))
    gan.fit(*domains, batch_size=4, steps=1, verbose=0)
    for shown, images in zip(gan.grid_images, domains, strict=True):
        np.testing.assert_array_equal(shown, images[-3:])


def test_a_cyclegan_with_one_image_per_domain_is_trained_evaluated_and_shown(domains, tmp_path):
    gan = Translator(cycle_weight=1.0, pool_size=4)
    gan.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mean_squared_error")
    a, b = (images[:1] for images in domains)
    active = [
        callbacks.Evaluation(CycleMetrics(a, b), 1),
        callbacks.SampleGrid(tmp_path, 1, log_dir=tmp_path),
        callbacks.Animation(tmp_path),
    ]
    history = gan.fit(a, b, batch_size=1, steps=2, callbacks=active, verbose=0)
    assert 0 < history.history["metric/cycle_error"][-1] < 1
    assert len(list(tmp_path.glob("step-*.png"))) == 3 and (tmp_path / "progression.gif").exists()


def test_an_infogan_needs_no_labels_and_samples_with_codes(digits):
    gan = tiny_gan("dcgan", model="infogan", model_options={"num_categories": 4, "num_continuous": 1})
    gan.fit(digits.images[:64], batch_size=16, steps=2, verbose=0)
    images, codes = gan.sample(6)
    assert images.shape == (6, 28, 28, 1) and codes.tolist() == [0, 1, 2, 3, 0, 1]
    assert gan.labels_are_codes


def test_an_infogans_grid_varies_one_continuous_code_across_each_row():
    gan = tiny_gan("mlp", model="infogan", model_options={"num_categories": 3, "num_continuous": 2})
    grid = gan.sample_grid(10, 4)
    assert grid.shape == (2 * 3 * 30 + 2, 4 * 30 + 2, 1)
    cells = grid[2:, 2:].reshape(6, 30, 4, 30)[:, :28, :, :28].swapaxes(1, 2)
    assert len(np.unique(cells.reshape(24, -1), axis=0)) == 24
    plain = tiny_gan("mlp", model="infogan", model_options={"num_categories": 3, "num_continuous": 0})
    assert plain.sample_grid(10, 4).shape == (3 * 30 + 2, 4 * 30 + 2, 1)


class NoisyInfoGAN(InfoGAN):
    """A model whose dropout is active during inference."""

    def get_generator(self):
        return keras.Sequential(
            [keras.Input((7,)), layers.Dropout(0.5), layers.Dense(9, activation="tanh"), layers.Reshape((3, 3, 1))]
        )

    def get_discriminator(self):
        return keras.Sequential([keras.Input((3, 3, 1)), layers.Flatten(), layers.Dense(4), layers.Dense(1)])

    def generate(self, latents, labels, network, training):
        return super().generate(latents, labels, network, True)


def test_a_grid_of_an_infogan_has_the_random_layers_of_the_seed_of_the_run():
    gan = NoisyInfoGAN(2, 3)
    gan.compile(seed=7)
    latents, categories = gan.traversal(gan.latents_of(np.zeros(1, int)), np.arange(3), 4)
    np.testing.assert_array_equal(gan.sample_grid(10, 4), tile(gan.images_from(latents, categories), 4))


def test_a_model_with_a_head_must_build_it():
    with pytest.raises(NotImplementedError):
        AuxiliaryHeadGAN(4, 3).get_head(8)


def test_an_acgans_classifier_may_learn_from_real_images_alone(digits):
    def classifier_after(weight, scale):
        options = {"fake_class_weight": weight, "class_weight": scale}
        gan = tiny_gan("mlp", model="acgan", model_options=options, optimizer="rmsprop")
        gan.fit(digits.images, digits.labels, batch_size=16, steps=1, verbose=0)
        assert gan.discriminator.inputs[0].shape == (None, 28, 28, 1)
        return values_of(gan)["classifier/000/kernel"]

    assert (classifier_after(0.0, 1.0) != classifier_after(1.0, 1.0)).any()


@pytest.mark.parametrize("model", ["conditional", "acgan"])
def test_classes_that_the_data_lack_are_neither_asked_for_nor_shown(digits, model):
    gan = tiny_gan("mlp", model=model, classes=(7, 3))
    asked = gan.sample_labels(StepRng(0, tf.constant(5, tf.int64), 200, purpose="test")).numpy()
    assert asked.dtype == np.int32 and set(asked) == {3, 7}
    assert gan.sample(5)[1].tolist() == [3, 7, 3, 7, 3]
    assert gan.sample_grid(10, 4).shape == (2 * 30 + 2, 4 * 30 + 2, 1)
    check_refusal(lambda: gan.sample(2, labels=4), DataError, "labels", "4", "3, 7")
    chosen = np.isin(digits.labels, (3, 7))
    gan.fit(digits.images[chosen], digits.labels[chosen], batch_size=16, steps=1, verbose=0)


def test_all_classes_are_drawn_as_they_are():
    some, every = tiny_gan("mlp", model="conditional", classes=tuple(range(10))), tiny_gan("mlp", model="conditional")
    rng = StepRng(0, tf.constant(5, tf.int64), 200, purpose="test")
    np.testing.assert_array_equal(some.sample_labels(rng), every.sample_labels(rng))


def test_a_cyclegan_translates_floats_in_the_range_of_all_images(domains):
    floats = [(images / 127.5 - 1.0).astype(np.float32) for images in domains]
    gan, of_bytes = Translator(), Translator()
    for model, (a, b) in ((gan, floats), (of_bytes, domains)):
        model.compile(optimizer="adam")
        model.fit(a, b, batch_size=4, steps=1, verbose=0)
    np.testing.assert_array_equal(gan.sample_grid(6, 3), of_bytes.sample_grid(6, 3))
    gan.translate(np.zeros_like(floats[0][:1]), "b")  # which alone would be taken for 0..1
    assert gan.image_range == (-1.0, 1.0)
