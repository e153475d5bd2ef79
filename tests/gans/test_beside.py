"""What a subclass keeps on itself beside its networks: noise that is the step's own, and weights that are refused."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_wiring
from keras import layers
from refusals import check_refusal

from trainer import GAN
from trainer.errors import NetworkError

IMAGES = np.random.default_rng(0).integers(0, 255, (16, 2, 2, 1), np.uint8)


class Small(GAN):
    """A GAN of 2×2 images that keeps something on itself."""

    def __init__(self, kept=None):
        super().__init__(3)
        self.kept = kept

    def get_generator(self):
        return keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Reshape((2, 2, 1))])

    def get_discriminator(self):
        return keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1)])


class Noisy(Small):
    """Adds noise to what the discriminator sees, and logs what it added last."""

    def discriminate(self, images, labels):
        noisy = self.kept[0](images, training=True)
        self.added = keras.ops.mean(noisy - images, axis=[1, 2, 3])
        return self.discriminator(noisy, training=True)

    def add_losses(self, outcome, latents):
        outcome.metrics["discriminator"]["added"] = self.added


class Judging(Small):
    def discriminate(self, images, labels):
        return self.discriminator(self.kept(images), training=True)


def noise_of(strategy, penalties):
    """The mean of what is added in each of three steps."""
    logged = []
    gan = Noisy([layers.GaussianNoise(1.0)])
    for _ in range(2):  # a second compile changes nothing
        gan.compile(optimizer="adam", penalties=penalties, strategy=strategy, jit_compile=False)
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(logs["added"]))
    gan.fit(IMAGES, batch_size=8, steps=3, steps_per_window=1, verbose=0, callbacks=[log])
    return logged


@pytest.mark.parametrize("penalties", [(), ("gradient_penalty",)], ids=["plain", "penalty"])
def test_a_random_layer_on_the_gan_draws_by_seed_and_step(penalties):
    first = noise_of(None, penalties)
    assert len({round(added, 4) for added in first}) == 3
    assert noise_of(None, penalties) == first


def test_a_random_layer_on_the_gan_draws_other_noise_on_each_replica(two_replicas):
    class Opposed(Noisy):
        def add_losses(self, outcome, latents):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            outcome.metrics["discriminator"]["added"] = tf.where(replica == 0, self.added, -self.added)

    gan = Opposed([layers.GaussianNoise(1.0)])
    gan.compile(optimizer="adam", strategy=two_replicas, jit_compile=False)
    history = gan.fit(IMAGES, batch_size=8, steps=1, verbose=0)
    assert abs(history.history["added"][0]) > 1e-3  # the same noise on both would add up to nothing


def built(trainable=True):
    layer = layers.Dense(1, trainable=trainable)
    layer.build((None, 2, 2, 1))
    return layer


@pytest.mark.parametrize(
    "make",
    [built, lambda: {"last": [built()]}, lambda: keras.Variable([1.0]), lambda: keras.Sequential([built()])],
    ids=["layer", "list", "variable", "model"],
)
def test_weights_that_nothing_would_train_are_refused(make):
    gan = Small(make())
    for _ in range(2):
        check_refusal(lambda: gan.compile(optimizer="adam"), NetworkError, "Small.kept", "get_networks", "owners")


def test_a_layer_that_is_built_in_the_first_step_is_refused_there():
    gan = Judging(layers.Dense(1))
    gan.compile(optimizer="adam", jit_compile=False)
    fit = functools.partial(gan.fit, IMAGES, batch_size=8, steps=1, verbose=0)
    check_refusal(fit, NetworkError, "Judging.kept", "get_networks")


def test_frozen_weights_networks_and_their_parts_may_be_kept():
    class Keeps(Small):
        def __init__(self):
            super().__init__(built(trainable=False))
            self.constant = keras.Variable([1.0], trainable=False)
            self.made = super().get_generator()
            self.discriminator = super().get_discriminator()  # another takes its place

        def get_generator(self):
            return self.made

        def get_networks(self):
            networks = super().get_networks()
            self.first = networks["discriminator"].layers[-1]
            return networks if hasattr(self, "networks") else networks | {"reader": built()}

    gan = Keeps()
    gan.owners = GAN.owners | {"generator": ("generator", "reader")}
    gan.compile(optimizer="adam")
    gan.owners = GAN.owners
    gan.compile(optimizer="adam")


@pytest.mark.parametrize("wiring", ["acgan", "cyclegan"])
def test_a_wiring_may_be_compiled_again(wiring):
    settings = {"ema_half_life_images": 100.0, "penalties": ("r1",)}
    gan = tiny_wiring(wiring, augment="ada", augment_probability=None, **settings)
    gan.compile(optimizer="adam", jit_compile=False)
