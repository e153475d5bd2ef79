"""A custom model trains all its networks, or is refused."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, values_of
from keras import layers
from refusals import check_refusal

from trainer import GAN, ConditionalGAN
from trainer.callbacks import Animation, Checkpoint, Evaluation, EventLog, MetricsLog, SampleGrid
from trainer.errors import ConfigError, NetworkError
from trainer.models import MODELS, from_config, register_model

BATCH = {"batch_size": 16, "verbose": 0}
GROUPS = {"discriminator": ("discriminator",), "generator": ("generator", "encoder")}


def perceptron(inputs, units, name):
    return keras.Sequential([keras.Input(inputs), layers.Flatten(), layers.Dense(units)], name=name)


class EncodingGAN(GAN):
    """A GAN with a third network that predicts the latents from the fake images."""

    optimizer_groups = GROUPS

    def __init__(self, latent_dim=4, *, weight=0.1, **settings):
        super().__init__(latent_dim, **settings)
        self.weight = weight

    def get_networks(self):
        pixels = [layers.Dense(784, activation="tanh"), layers.Reshape((28, 28, 1))]
        return {
            "generator": keras.Sequential([keras.Input((self.latent_dim,)), *pixels]),
            "discriminator": perceptron((28, 28, 1), 1, "discriminator"),
            "encoder": perceptron((28, 28, 1), self.latent_dim, "encoder"),
        }

    def add_losses(self, loss_output, latents):
        predicted = self.encoder(loss_output.fake.images, training=True)
        loss_output.add("generator", "encoding", tf.reduce_mean(tf.square(predicted - latents), axis=-1), self.weight)
        for phase in ("generator", "another"):
            loss_output.log(phase, f"is_near/{phase}", tf.norm(predicted - latents, axis=-1) < 1e9)


def compiled(kind, **members):
    gan = type(kind.__name__, (kind,), members)()
    gan.compile(optimizer="adam")
    return gan


def test_a_third_network_learns_and_its_loss_is_logged(digits):
    gan = compiled(EncodingGAN)
    before = values_of(gan)
    history = gan.fit(digits.images[:64], steps=3, **BATCH).history
    after = values_of(gan)
    assert all((after[name] != before[name]).any() for name in after if name.startswith("encoder/"))
    assert history["loss/encoding"][0] > 0
    assert history["is_near/generator"] == [1.0] and "is_near/another" not in history


@pytest.mark.parametrize(
    ("optimizer_groups", "mentions"),
    [
        (GAN.optimizer_groups | {"encoder": ("encoder",)}, ("optimizer_groups", "encoder")),
        (
            GAN.optimizer_groups | {"generator": ("generator", "decoder")},
            ("optimizer_groups", "decoder", "get_networks"),
        ),
        (GAN.optimizer_groups, ("optimizer_groups", "encoder", "trainable")),
    ],
)
def test_networks_that_nothing_would_move_are_refused(optimizer_groups, mentions):
    check_refusal(lambda: compiled(EncodingGAN, optimizer_groups=optimizer_groups), NetworkError, *mentions)


@pytest.mark.parametrize("name", ["augmenter", "divergence", "ema_encoder", "encoder_optimizer", "encoder/a"])
def test_reserved_names_of_networks_are_refused(name):
    def get_networks(self):
        networks = EncodingGAN.get_networks(self)
        return networks | {name: networks.pop("encoder")}

    groups = GAN.optimizer_groups | {"generator": ("generator", name)}
    check_refusal(lambda: compiled(EncodingGAN, optimizer_groups=groups, get_networks=get_networks), NetworkError, name)


def test_a_network_that_rests_needs_no_owner(digits):
    def get_networks(self):
        networks = EncodingGAN.get_networks(self)
        networks["encoder"].trainable = False
        return networks

    gan = compiled(EncodingGAN, optimizer_groups=GAN.optimizer_groups, get_networks=get_networks)
    before = values_of(gan)
    gan.fit(digits.images[:64], steps=2, **BATCH)
    assert all((value == before[name]).all() for name, value in values_of(gan).items() if name.startswith("encoder/"))


@pytest.mark.parametrize(("method", "axis"), [("add", None), ("add", "kept"), ("log", None)])
def test_a_term_that_is_no_number_an_image_is_refused(digits, method, axis):
    def add_losses(self, loss_output, latents):
        predicted = self.encoder(loss_output.fake.images, training=True)
        term = tf.reduce_mean(predicted) if axis is None else tf.zeros([2, 1])
        getattr(loss_output, method)("generator", "encoding", term)

    gan = compiled(EncodingGAN, add_losses=add_losses)
    shape = "()" if axis is None else "(2, 1)"
    check_refusal(lambda: gan.fit(digits.images[:64], steps=1, **BATCH), NetworkError, "encoding", shape)


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        (lambda losses: {name: tf.reduce_mean(loss) for name, loss in losses.items()}, ("forward", "()")),
        (lambda losses: {}, ("forward", "discriminator")),
    ],
)
def test_a_forward_pass_without_a_loss_an_image_is_refused(digits, change, mentions):
    def forward(self, *arguments):
        losses, metrics = EncodingGAN.forward(self, *arguments)
        return change(losses), metrics

    gan = compiled(EncodingGAN, forward=forward)
    check_refusal(lambda: gan.fit(digits.images[:64], steps=1, **BATCH), NetworkError, *mentions)


def test_a_gan_is_compiled_once(digits):
    gan = compiled(EncodingGAN)
    gan.fit(digits.images[:64], steps=2, **BATCH)
    before = values_of(gan)
    check_refusal(lambda: gan.compile(optimizer="adam", loss="hinge"), ConfigError, "EncodingGAN", "compiled")
    assert all((value == before[name]).all() for name, value in values_of(gan).items())


def test_a_gan_is_not_saved_whole_and_leaves_the_file(tmp_path):
    (tmp_path / "gan.keras").write_text("before")
    act = functools.partial(compiled(EncodingGAN).save, tmp_path / "gan.keras")
    check_refusal(act, ConfigError, "ema_generator.save", "save_weights", "Checkpoint")
    assert (tmp_path / "gan.keras").read_text() == "before"


def test_weights_and_the_generator_are_saved(digits, tmp_path):
    gan, again = compiled(EncodingGAN), compiled(EncodingGAN)
    gan.fit(digits.images[:64], steps=2, **BATCH)
    gan.save_weights(tmp_path / "gan.weights.h5")
    again.load_weights(tmp_path / "gan.weights.h5")
    np.testing.assert_array_equal(again.sample(3)[0], gan.sample(3)[0])
    gan.ema_generator.save(tmp_path / "generator.keras")
    latents = np.ones((2, 4), "f")
    loaded = keras.saving.load_model(tmp_path / "generator.keras")
    np.testing.assert_array_equal(loaded.predict(latents, verbose=0), gan.predict(latents, verbose=0))


def test_a_fit_with_nothing_left_to_train_is_a_warning(digits, caplog):
    def own_records():  # TensorFlow warns if earlier tests of the process have traced several steps
        return [record for record in caplog.records if record.name.startswith("trainer")]

    gan = compiled(EncodingGAN)
    gan.fit(digits.images[:64], epochs=1, **BATCH)
    assert not own_records()
    gan.fit(digits.images[:64], epochs=1, **BATCH)
    (record,) = own_records()
    assert record.levelname == "WARNING" and "epochs" in record.getMessage() and "4" in record.getMessage()
    gan.fit(digits.images[:64], epochs=2, **BATCH)
    assert gan.step == 8


def test_keras_schedulers_set_the_rates_of_both_optimizers(digits):
    gan = compiled(EncodingGAN)
    halved = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 * rate)
    history = gan.fit(digits.images[:64], epochs=2, callbacks=[halved], **BATCH).history
    assert {name: float(optimizer.learning_rate) for name, optimizer in gan.optimizers.items()} == {
        "discriminator": pytest.approx(0.00025),
        "generator": pytest.approx(0.00025),
    }
    assert history["learning_rate_generator"] == pytest.approx([0.0005, 0.00025])


class Falling:
    """A suite of metrics that gets better twice."""

    def __init__(self):
        self.values = iter([9.0, 5.0, 4.0, 4.0, 4.0, 4.0])

    def measure(self, model):
        return {"distance": next(self.values)}


def test_keras_callbacks_follow_the_metrics(digits):
    gan = compiled(EncodingGAN)
    patience = keras.callbacks.EarlyStopping(monitor="metric/distance", mode="min", patience=1)
    following = [Evaluation(Falling(), every_steps=4), patience]
    history = gan.fit(digits.images[:64], epochs=9, callbacks=following, **BATCH).history
    assert history["metric/distance"] == [5.0, 4.0, 4.0] and gan.step == 12


@pytest.mark.parametrize("make", [SampleGrid, Animation, EventLog, MetricsLog, Checkpoint])
def test_callbacks_refuse_a_bucket(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refusal(lambda: make("gs://mine/run"), ConfigError, "gs://mine/run")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def registered(monkeypatch):
    """Takes models for one test."""
    monkeypatch.setattr(MODELS, "_members", dict(MODELS._members))
    return lambda name, kind: register_model(name)(kind)


def test_options_of_a_registered_model_are_its_own_and_its_bases(registered):
    class Sharp(ConditionalGAN):
        def __init__(self, latent_dim, *, sharpness=1.0, **settings):
            super().__init__(latent_dim, **settings)
            self.sharpness = sharpness

    registered("asked", Sharp)
    gan = from_config(tiny_config(model="asked", model_options={"sharpness": 2.0}), (28, 28, 1), 10)
    assert (gan.sharpness, gan.num_classes) == (2.0, 10)
    config = tiny_config(model="asked", model_options={"sharpnes": 2.0})
    check_refusal(lambda: from_config(config, (28, 28, 1), 10), ConfigError, "asked", "'sharpnes'", "sharpness")
