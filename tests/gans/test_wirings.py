"""What is particular to each wiring: what it asks for, what it shows, and what it refuses."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, values_of
from keras import layers

from trainer import ACGAN, ConditionalGAN, CycleGAN, InfoGAN
from trainer.engine.randomness import Noise
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.gans import from_config
from trainer.recipes import get


class Translator(CycleGAN):
    """A user's subclass: two layers for each network, one method for both directions."""

    def get_generator(self):
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 3, padding="same", activation="tanh")])

    def get_discriminator(self):
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 3, 2, padding="same")])


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


def test_a_cyclegan_shows_there_and_back_of_both_domains(translator, domains):
    gan, _ = translator
    grid = gan.sample_grid(10, 5)
    assert grid.shape == (6 * 10 + 2, 5 * 10 + 2, 1)
    a, b = domains
    rows = [grid[2 + row * 10 : 10 + row * 10, 2:10] for row in range(6)]
    for row, image in ((0, a[0]), (1, gan.translate(a, "b")[0]), (3, b[0]), (4, gan.translate(b, "a")[0])):
        np.testing.assert_array_equal(rows[row], image)
    np.testing.assert_array_equal(gan.sample(3)[0], gan.translate(a[:3], "b"))


def test_a_cyclegan_without_two_like_domains_is_refused(domains):
    gan = Translator()
    gan.compile(optimizer="adam")
    with pytest.raises(DataError, match="fit needs two domains"):
        gan.fit(domains[0])
    with pytest.raises(DataError, match=r"the two domains differ: x is uint8 \[8, 8, 1\], y uint8 \[4, 8, 1\]"):
        gan.fit(domains[0], domains[1][:, :4])
    with pytest.raises(DataError, match="no images to translate"):
        gan.sample(2)
    with pytest.raises(ConfigError, match="global_batch_size=8 is more than the 7 images"):
        gan.fit(domains[0], domains[1][:7], batch_size=8)
    with pytest.raises(ConfigError, match="pool_size=-1 is out of range; give a whole number from 0 up"):
        Translator(pool_size=-1)


@pytest.mark.parametrize(
    ("generator", "sentence"),
    [
        (keras.Sequential([layers.Conv2D(1, 3, padding="same")]), r"get_generator\(\) must return a built keras.Model"),
        (layers.Identity(), "therefore must be a Sequential or functional model"),
    ],
)
def test_a_generator_that_does_not_say_what_it_makes_is_refused(generator, sentence):
    generator.built = isinstance(generator, layers.Identity)
    gan = Translator()
    gan.get_generator = lambda: generator
    with pytest.raises(NetworkError, match=sentence):
        gan.compile(optimizer="adam")


def test_a_cyclegan_that_is_not_compiled_says_so(domains):
    gan = Translator()
    for call in (lambda: gan.sample(2), lambda: gan.translate(domains[0], "b"), lambda: gan.fit(*domains)):
        with pytest.raises(ConfigError, match="was called before compile"):
            call()


def test_an_infogan_needs_no_labels_and_samples_with_codes(digits):
    gan = tiny_gan("dcgan", wiring="infogan", wiring_options={"num_categories": 4, "num_continuous": 1})
    gan.fit(digits.images[:64], batch_size=16, steps=2, verbose=0)
    images, codes = gan.sample(6)
    assert images.shape == (6, 28, 28, 1) and codes.tolist() == [0, 1, 2, 3, 0, 1]
    assert gan.labels_are_codes


def test_an_infogans_grid_varies_one_continuous_code_across_each_row():
    gan = tiny_gan("mlp", wiring="infogan", wiring_options={"num_categories": 3, "num_continuous": 2})
    grid = gan.sample_grid(10, 4)
    assert grid.shape == (2 * 3 * 30 + 2, 4 * 30 + 2, 1)
    cells = grid[2:, 2:].reshape(6, 30, 4, 30)[:, :28, :, :28].swapaxes(1, 2)
    assert len(np.unique(cells.reshape(24, -1), axis=0)) == 24
    plain = tiny_gan("mlp", wiring="infogan", wiring_options={"num_categories": 3, "num_continuous": 0})
    assert plain.sample_grid(10, 4).shape == (3 * 30 + 2, 4 * 30 + 2, 1)


def test_an_acgans_discriminator_takes_no_label_and_its_classifier_may_learn_from_real_images_alone(digits):
    def classifier_after(weight, scale):
        options = {"fake_class_weight": weight, "class_weight": scale}
        gan = tiny_gan("mlp", wiring="acgan", wiring_options=options, optimizer="rmsprop")
        gan.fit(digits.images, digits.labels, batch_size=16, steps=1, verbose=0)
        assert gan.discriminator.inputs[0].shape == (None, 28, 28, 1)
        return values_of(gan)["classifier/000/kernel"]

    assert (classifier_after(0.0, 1.0) != classifier_after(1.0, 1.0)).any()


def test_second_heads_need_a_discriminator_that_ends_in_a_dense_layer():
    class Patches(ACGAN):
        def get_generator(self):
            return keras.Sequential([keras.Input((self.latent_dim + self.num_classes,)), layers.Dense(4)])

        def get_discriminator(self):
            return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 3)])

    with pytest.raises(NetworkError, match=re.escape("must be a Sequential or functional model that ends in Dense(1)")):
        Patches(4, 10).compile(optimizer="adam")


def test_continuous_codes_are_not_fewer_than_none():
    with pytest.raises(ConfigError, match="num_continuous=-1 is out of range; give a whole number from 0 up"):
        InfoGAN(8, num_continuous=-1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"wiring_options": {"cycle": 3}}, "'cycle' is an unknown option of wiring gan"),
        ({"wiring": "infogan", "wiring_options": {"num_classes": 3}}, "'num_classes' is an unknown option"),
        ({"wiring": "infogan", "wiring_options": {"num_categories": "3"}}, "num_categories='3' is out of range"),
        ({"wiring": "infogan", "wiring_options": {"category_weight": [1]}}, "category_weight=[1] is out of range"),
        ({"wiring": "acgan", "wiring_options": {"class_weight": "1"}}, "class_weight='1' is out of range"),
        (
            {"wiring": "cyclegan"},
            "wiring=cyclegan needs an architecture that maps images to images, which mlp does not",
        ),
        ({"architecture": "resnet_translator", "architecture_options": {}}, "needs an architecture that maps latents"),
        ({"discriminator_updates": "separate", "loss": "relativistic"}, "needs a loss that is a sum"),
        ({"discriminator_updates": "separate", "penalties": ("r1",)}, "need discriminator_updates=together"),
        ({"discriminator_updates": "separate", "discriminator_repeats": 2}, "needs discriminator_updates=together"),
        ({"update_order": "simultaneous", "discriminator_repeats": 2}, "need update_order=alternating"),
        (
            {"update_order": "simultaneous", "penalties": ("r1",), "penalty_every_steps": 4},
            "penalty_every_steps=4 needs update_order=alternating",
        ),
        ({"augment": "ada", "augment_probability": 0.5, "discriminator_updates": "concatenated"}, "augmentation need"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_one_sentence(changes, sentence):
    config = get("vanilla").override(**changes)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        from_config(config, (28, 28, 1), 10)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cycle_weight": "10"}, "cycle_weight='10' is out of range; give a number from 0 up."),
        ({"identity_weight": True}, "identity_weight=True is out of range"),
        ({"pool_size": 2.5}, "pool_size=2.5 is out of range; give a whole number from 0 up."),
    ],
)
def test_a_cyclegans_options_are_numbers(options, sentence):
    config = get("cyclegan").override(wiring_options=options)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        from_config(config, (28, 28, 1), 10)


@pytest.mark.parametrize("wiring", ["conditional", "acgan"])
def test_classes_that_the_data_lack_are_neither_asked_for_nor_shown(digits, wiring):
    gan = tiny_gan("mlp", wiring=wiring, classes=(7, 3))
    asked = gan.sample_labels(Noise(0, tf.constant(5, tf.int64), 200, purpose="test")).numpy()
    assert asked.dtype == np.int32 and set(asked) == {3, 7}
    assert gan.sample(5)[1].tolist() == [3, 7, 3, 7, 3]
    assert gan.sample_grid(10, 4).shape == (2 * 30 + 2, 4 * 30 + 2, 1)
    with pytest.raises(DataError, match="labels has 4, which the model was not trained on; give one of 3, 7"):
        gan.sample(2, labels=4)
    chosen = np.isin(digits.labels, (3, 7))
    gan.fit(digits.images[chosen], digits.labels[chosen], batch_size=16, steps=1, verbose=0)


def test_all_classes_are_drawn_as_they_are():
    some, every = tiny_gan("mlp", wiring="conditional", classes=tuple(range(10))), tiny_gan("mlp", wiring="conditional")
    noise = Noise(0, tf.constant(5, tf.int64), 200, purpose="test")
    np.testing.assert_array_equal(some.sample_labels(noise), every.sample_labels(noise))
    with pytest.raises(ConfigError, match=r"classes=\(3, 12\) are not all from 0 to 9"):
        ConditionalGAN(4, 10, classes=(3, 12))


def test_a_cyclegan_of_floats_shows_and_translates_them_in_the_range_of_all(domains):
    floats = [(images / 127.5 - 1.0).astype(np.float32) for images in domains]
    gan, of_bytes = Translator(), Translator()
    for model, (a, b) in ((gan, floats), (of_bytes, domains)):
        model.compile(optimizer="adam")
        model.fit(a, b, batch_size=4, steps=1, verbose=0)
    np.testing.assert_array_equal(gan.sample_grid(6, 3), of_bytes.sample_grid(6, 3))
    gan.translate(np.zeros_like(floats[0][:1]), "b")  # which alone would be taken for 0..1
    assert gan.image_range == (-1.0, 1.0)
