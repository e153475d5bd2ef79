"""The Keras face: subclass, compile, fit, with Keras's callbacks, losses and optimizers."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, uncompiled_gan, values_of
from keras import layers
from refusals import check_refusal

from trainer import ACGAN, GAN, ConditionalGAN, CycleGAN, InfoGAN
from trainer.callbacks import Checkpoint
from trainer.errors import ConfigError, DataError


class DigitsGAN(GAN):
    """A user's subclass, as in a tutorial."""

    def __init__(self, input_dim):
        super().__init__(input_dim)

    def get_generator(self):
        return keras.Sequential(
            [
                keras.Input((self.latent_dim,)),
                layers.Dense(32, kernel_initializer="he_normal"),
                layers.BatchNormalization(momentum=0.9),
                layers.LeakyReLU(negative_slope=0.1),
                layers.Dense(784, activation="tanh"),
                layers.Reshape((28, 28, 1)),
            ]
        )

    def get_discriminator(self):
        return keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Flatten(),
                layers.Dense(32, kernel_initializer="he_normal"),
                layers.LeakyReLU(negative_slope=0.1),
                layers.Dropout(0.4),
                layers.Dense(1, activation="sigmoid"),
            ]
        )


class DigitsConditionalGAN(ConditionalGAN):
    def get_generator(self):
        return keras.Sequential(
            [
                keras.Input((self.latent_dim + self.num_classes,)),
                layers.Dense(32, activation="relu"),
                layers.Dense(784, activation="tanh"),
                layers.Reshape((28, 28, 1)),
            ]
        )

    def get_discriminator(self):
        return keras.Sequential(
            [
                keras.Input((28, 28, 1 + self.num_classes)),
                layers.Flatten(),
                layers.Dense(32),
                layers.LeakyReLU(negative_slope=0.1),
                layers.Dense(1, activation="sigmoid"),
            ]
        )


class MnistGAN(GAN):
    """The shortest subclass: the size of the latents has the name that the tutorial gives it."""

    def get_generator(self):
        return keras.Sequential(
            [
                keras.Input(shape=(self.input_dim,)),
                layers.Dense(16, kernel_initializer="he_normal"),
                layers.BatchNormalization(momentum=0.9),
                layers.LeakyReLU(0.1),
                layers.Dense(784, activation="sigmoid"),
                layers.Reshape((28, 28, 1)),
            ]
        )

    get_discriminator = DigitsGAN.get_discriminator


class RememberingGAN(MnistGAN):
    def __init__(self, input_dim, **settings):
        super().__init__(input_dim=input_dim, **settings)
        self.input_dim = input_dim


def rmsprop():
    """RMSprop 1e-3 with decay 3e-8, in Keras 3's spelling."""
    return keras.optimizers.RMSprop(
        learning_rate=keras.optimizers.schedules.InverseTimeDecay(1e-3, decay_steps=1, decay_rate=3e-8)
    )


@pytest.fixture(scope="module")
def images(digits):
    return digits.images[:256].astype("float32") / 127.5 - 1.0


def test_a_subclass_trains_with_keras_losses_and_callbacks(images, tmp_path):
    seen = []
    gan = DigitsGAN(100)
    gan.compile(optimizer=rmsprop(), loss=tf.losses.binary_crossentropy)
    history = gan.fit(
        images,
        epochs=3,
        batch_size=128,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, sorted(logs)))),
            keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    )
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert {"loss/discriminator", "loss/generator", "accuracy/real", "accuracy/fake"} <= set(seen[0][1])
    assert len(history.history["loss/generator"]) == 3
    assert list((tmp_path / "logs").rglob("events.*"))
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    assert isinstance(history, keras.callbacks.History)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: MnistGAN(input_dim=20), 20),
        (lambda: MnistGAN(20), 20),
        (lambda: MnistGAN(latent_dim=20), 20),
        (lambda: RememberingGAN(20), 20),
        (lambda: RememberingGAN(input_dim=np.int64(20), image_range="0..1"), 20),
    ],
)
def test_the_size_of_the_latents_has_two_names(digits, make, size):
    gan = make()
    assert gan.latent_dim == gan.input_dim == gan.latent_size == size
    gan.compile(optimizer=rmsprop(), loss=tf.losses.binary_crossentropy)
    x = digits.images[:32].astype("float32") / 255
    history = gan.fit(x=x, epochs=2, batch_size=16, verbose=0)
    assert len(history.history["loss/generator"]) == 2
    assert gan.sample(2)[0].shape == (2, 28, 28, 1) and gan.image_range == (0.0, 1.0)


@pytest.mark.parametrize(("arguments", "size"), [({}, 1), ({"input_dim": 3}, 3), ({"latent_dim": 3}, 3)])
def test_a_cyclegan_needs_no_size_of_latents(arguments, size):
    assert CycleGAN(**arguments).latent_dim == CycleGAN(**arguments).input_dim == size


@pytest.mark.parametrize(
    "make",
    [
        lambda kind: kind(20, 10),
        lambda kind: kind(latent_dim=20, num_classes=10),
        lambda kind: kind(input_dim=20, num_classes=10),
    ],
)
def test_a_conditional_gan_of_the_tutorial_trains(digits, make):
    gan = make(DigitsConditionalGAN)
    gan.compile(optimizer=rmsprop(), loss=tf.losses.binary_crossentropy)
    x, y = digits.images[:32].astype("float32") / 127.5 - 1, keras.utils.to_categorical(digits.labels[:32], 10)
    gan.fit(x=x, y=y, epochs=1, batch_size=16, verbose=0)
    assert gan.step == 2 and gan.sample(10)[1].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: GAN(), ("latent_dim", "input_dim")),
        (lambda: GAN(8, input_dim=8), ("latent_dim", "input_dim", "8")),
        (lambda: ConditionalGAN(num_classes=3), ("latent_dim", "input_dim")),
        (lambda: ACGAN(8, 3, input_dim=8), ("latent_dim", "input_dim", "8")),
        (lambda: CycleGAN(8, input_dim=8), ("latent_dim", "input_dim", "8")),
        (lambda: CycleGAN(input_dim=0), ("input_dim", "0")),
        (lambda: GAN(0), ("latent_dim", "0")),
        (lambda: GAN("100"), ("latent_dim", "'100'")),
        (lambda: GAN(input_dim=2.5), ("input_dim", "2.5")),
        (lambda: InfoGAN(input_dim=-1), ("input_dim", "-1")),
        (lambda: ConditionalGAN(8), ("num_classes", "None")),
        (lambda: ConditionalGAN(8, 10.0), ("num_classes", "10.0")),
        (lambda: ConditionalGAN(8, "10"), ("num_classes", "'10'")),
    ],
)
def test_sizes_that_are_none_are_refused(make, mentions):
    check_refusal(make, ConfigError, *mentions)


def test_a_range_is_kept_for_all_of_training(digits):
    gan = DigitsGAN(8)
    gan.compile(optimizer="adam", loss=keras.losses.binary_crossentropy, augment="diffaugment")
    gan.fit(digits.images[:32] / 255, batch_size=16, steps=1, verbose=0)
    assert gan.image_range == (0.0, 1.0)
    gan.fit(digits.images[:32], batch_size=16, steps=2, verbose=0)
    gan.fit(digits.images[:32] / 600, batch_size=16, steps=3, verbose=0)
    signed = digits.images[:32] / 127.5 - 1
    check_refusal(lambda: gan.fit(signed, batch_size=16, steps=4, verbose=0), DataError, "0..1", "-1..1")
    assert gan.image_range == (0.0, 1.0) and gan.step == 3


def test_the_weights_of_another_run_keep_their_range(digits, tmp_path):
    source, gan = DigitsGAN(8), DigitsGAN(8)
    for model in (source, gan):
        model.compile(optimizer="adam", loss=keras.losses.binary_crossentropy)
    source.fit(digits.images[:32] / 255, batch_size=16, steps=1, callbacks=[Checkpoint(tmp_path)], verbose=0)
    gan.init_from(tmp_path)
    assert gan.image_range == source.image_range == (0.0, 1.0)
    np.testing.assert_array_equal(gan.sample(4, seed=1)[0], source.sample(4, seed=1)[0])
    signed = digits.images[:32] / 127.5 - 1
    check_refusal(lambda: gan.fit(signed, batch_size=16, steps=1, verbose=0), DataError, "0..1", "-1..1")
    gan.fit(digits.images[:32], batch_size=16, steps=1, verbose=0)
    assert gan.image_range == (0.0, 1.0)


def test_a_conditional_subclass_takes_integer_and_one_hot_labels(images, digits):
    labels = digits.labels[:256]
    states = []
    for y in (labels, keras.utils.to_categorical(labels, 10)):
        gan = DigitsConditionalGAN(100, 10)
        gan.compile(optimizer=rmsprop(), loss=keras.losses.BinaryCrossentropy())
        gan.fit(images, y, epochs=1, batch_size=128, verbose=0)
        states.append(values_of(gan))
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])


def test_keras_loss_against_targets_is_half_of_real_and_fake(images):
    """The first discriminator loss of a Keras BCE is half of the named loss's on the same logits."""
    from trainer.models import losses

    real, fake = tf.constant([0.3, -1.0]), tf.constant([2.0, 0.1])
    named = losses.get("non_saturating")
    keras_loss = losses.get(keras.losses.BinaryCrossentropy(from_logits=True))
    np.testing.assert_allclose(
        2 * keras_loss.discriminator(real, fake).numpy(), named.discriminator(real, fake).numpy(), rtol=1e-5
    )
    np.testing.assert_allclose(keras_loss.generator(real, fake).numpy(), named.generator(real, fake).numpy(), rtol=1e-5)


def test_predict_summary_and_weights_files_work(images, tmp_path, capsys):
    gan = DigitsGAN(100)
    gan.compile(optimizer="adam", loss=keras.losses.binary_crossentropy)
    latents = np.ones((5, 100), np.float32)
    assert gan.predict(latents, verbose=0).shape == (5, 28, 28, 1)
    gan.summary()
    assert "sequential" in capsys.readouterr().out
    gan.save_weights(tmp_path / "gan.weights.h5")
    other = DigitsGAN(100)
    other.compile(optimizer="adam", loss=keras.losses.binary_crossentropy, seed=5)
    assert (other.predict(latents, verbose=0) != gan.predict(latents, verbose=0)).any()
    other.load_weights(tmp_path / "gan.weights.h5")
    np.testing.assert_array_equal(other.predict(latents, verbose=0), gan.predict(latents, verbose=0))


def test_a_callback_may_stop_training(digits):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    gan = tiny_gan()
    gan.fit(digits.images, batch_size=16, steps=40, steps_per_execution=3, callbacks=[Stop()], verbose=0)
    assert gan.step == 3


def test_fit_again_continues_to_more_steps(digits):
    gan = tiny_gan()
    gan.fit(digits.images, batch_size=16, steps=2, verbose=0)
    gan.fit(digits.images, batch_size=16, steps=5, verbose=0)
    assert gan.step == 5
    assert int(gan.optimizers["generator"].iterations.numpy()) == 5


def test_epochs_are_counted_in_passes_over_the_data(digits):
    epochs = []
    gan = tiny_gan()
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append((epoch, gan.step)))
    gan.fit(digits.images[:70], batch_size=16, epochs=2.5, callbacks=[record], verbose=0)
    assert epochs == [(0, 4), (1, 8)] and gan.step == 10


def test_samples_depend_on_the_seed_and_not_on_their_number():
    gan = tiny_gan("dcgan", model="conditional")
    few, labels = gan.sample(7)
    many, _ = gan.sample(20)
    assert few.dtype == np.uint8 and few.shape == (7, 28, 28, 1)
    np.testing.assert_array_equal(few, many[:7])
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (gan.sample(7, seed=9)[0] != few).any()
    assert gan.sample(3, labels=4)[1].tolist() == [4, 4, 4]


def test_one_hot_labels_may_be_booleans_and_may_be_sampled_with(digits):
    gan = tiny_gan("mlp", model="conditional")
    one_hot = np.eye(10, dtype=bool)
    gan.fit(digits.images[:20], one_hot[digits.labels[:20]], batch_size=4, steps=1, verbose=0)
    assert gan.sample(2, labels=one_hot[[3, 5]])[1].tolist() == [3, 5]
    assert gan.sample(2, labels=[4])[1].tolist() == [4, 4]


class Judge(keras.Model):
    """A subclassed discriminator, which does not say what it takes."""

    def __init__(self):
        super().__init__()
        self.flat, self.hidden, self.last = layers.Flatten(), layers.Dense(4, "relu"), layers.Dense(1)

    def call(self, images, training=False):
        return self.last(self.hidden(self.flat(images)))


def judge(channels):
    made = Judge()
    made(np.zeros((1, 28, 28, channels), np.float32))
    return made


def test_a_discriminator_may_be_a_subclassed_model(digits):
    conditional = uncompiled_gan("dcgan", model="conditional")
    for gan, labels in ((uncompiled_gan(), None), (conditional, digits.labels[:20])):
        gan.get_discriminator = functools.partial(judge, 1 + gan.num_classes)
        gan.compile(optimizer="adam")
        before = values_of(gan)
        gan.fit(digits.images[:20], labels, batch_size=4, steps=2, verbose=0)
        moved = [name for name, value in values_of(gan).items() if (value != before[name]).any()]
        assert len([name for name in moved if name.startswith("discriminator/")]) == 4


def test_the_generators_labels_reach_its_images():
    gan = tiny_gan("mlp", model="conditional")
    assert (gan.sample(1, labels=0)[0] != gan.sample(1, labels=1)[0]).any()
    assert json.dumps(gan.predict((np.zeros((2, 8), "f"), np.array([0, 1])), verbose=0).shape) == "[2, 28, 28, 1]"


class Unnamed(layers.Layer):
    """Gives its weights no names, as many do."""

    def build(self, shape):
        self.scale, self.shift = self.add_weight(shape=(1,)), self.add_weight(shape=(1,))

    def call(self, inputs):
        return inputs * self.scale + self.shift


def test_names_of_state_do_not_depend_on_other_networks():
    def names():
        gan = DigitsGAN(8)
        gan.get_discriminator = lambda: keras.Sequential(
            [keras.Input((28, 28, 1)), layers.Flatten(), Unnamed(), layers.Dense(1)]
        )
        gan.compile(optimizer="adam")
        return list(gan.state)

    first = names()
    assert names() == first
    assert {"discriminator/000/variable", "discriminator/001/variable"} <= set(first)
