"""Adapted augmentation: its counts, the losses that it fits, and the range of its images."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_MLP, tiny_gan
from refusals import check_refusal

from trainer import GAN, networks
from trainer.errors import ConfigError
from trainer.models import augment, losses
from trainer.models.augmenter import Augmenter
from trainer.models.discriminator_passes import PassInputs
from trainer.models.objective import Objective
from trainer.training.rng import StepRng

IMAGES = tf.zeros([4, 3, 2, 1])


def mean_sign(loss, output):
    """What is counted of a batch of real images for which the discriminator gives `output`."""
    augmenter = Augmenter("ada", None)
    objective = Objective(loss, augmenter=augmenter)
    discriminator = keras.Sequential([keras.Input((3, 2, 1)), keras.layers.Flatten()])
    inputs = PassInputs(
        lambda images, labels: tf.fill([4, 1], output),
        discriminator,
        (IMAGES, None),
        (IMAGES, None),
        StepRng(0, 0, 4),
        (-1.0, 1.0),
    )
    objective(inputs, ("discriminator",))
    return float(augmenter.sign_sum.numpy())


@pytest.mark.parametrize(
    ("loss", "decision_threshold"),
    [
        ("non_saturating", 0.0),
        ("hinge", 0.0),
        ("least_squares", 0.5),
        (keras.losses.BinaryCrossentropy(), 0.5),
        (keras.losses.BinaryCrossentropy(from_logits=True), 0.0),
        (keras.losses.Hinge(), 0.0),
        (keras.losses.squared_hinge, 0.0),
    ],
)
def test_an_image_counts_as_real_beyond_the_boundary_of_the_loss(loss, decision_threshold):
    assert [mean_sign(loss, decision_threshold + by) for by in (-0.2, 0.2)] == [-1.0, 1.0]


@pytest.mark.parametrize("name", losses.names())
def test_losses_without_a_boundary_take_no_adapted_probability(name):
    of_differences = name in ("wasserstein", "relativistic")
    real, fake = tf.constant([0.5, 0.2]), tf.constant([-2.0, 0.1])
    values, moved = (losses.get(name).discriminator(real + by, fake + by) for by in (0.0, 1.0))
    assert bool(tf.reduce_all(tf.abs(values - moved) < 1e-5)) == of_differences
    if not of_differences:
        assert tiny_gan(loss=name, augment="ada", augment_probability=None).objective.augmenter.adapts
        return
    assert not tiny_gan(loss=name, augment="ada", augment_probability=0.5).objective.augmenter.adapts
    act = functools.partial(tiny_gan, loss=name, augment="ada", augment_probability=None)
    check_refusal(act, ConfigError, "augment_probability", "None")


@pytest.mark.slow
def test_the_probability_is_adapted_in_the_first_pass_of_a_step_alone(two_replicas, eager_ada):
    """There all replicas know the same; what they see in a step is merged at its end."""
    with two_replicas.scope():
        augmenter = Augmenter("diffaugment", None)
    objective = Objective("non_saturating", augmenter=augmenter)

    def passes():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        logits = tf.fill([4, 1], tf.where(replica == 0, 1.0, -1.0))
        probabilities = []
        with keras.StatelessScope([(v, v.value.read_value()) for v in augmenter.weights]):
            for repeat in range(3):
                rng = StepRng(0, 0, 4, replica, repeat=repeat).child("discriminator")
                inputs = PassInputs(lambda *_: logits, None, (IMAGES, None), (IMAGES, None), rng, (-1.0, 1.0))
                objective(inputs, ("discriminator",))
                probabilities.append(tf.identity(augmenter.probability.value))
        return tf.stack(probabilities)

    for counted, expected in ((3.0, 0.0), (4.0, 4 * 8 / 640)):
        augmenter.num_batches.assign(counted)
        of_replicas = tf.function(lambda: two_replicas.run(passes))()
        for probabilities in two_replicas.experimental_local_results(of_replicas):
            np.testing.assert_allclose(probabilities, [expected] * 3, rtol=1e-6)


def test_float_images_are_augmented_in_their_own_range(digits, monkeypatch):
    """Which is known when `fit` has them, after `compile` has made the augmentation."""
    ranges = []

    def recorded(images, rng, probability, *, image_range):
        ranges.append(image_range)
        return images

    monkeypatch.setattr(augment, "get", lambda name: recorded)
    factories = networks.build("mlp", (28, 28, 1), 8, 0, "tanh", TINY_MLP)
    for images, expected in (
        (digits.images[:16], (-1.0, 1.0)),
        (digits.images[:16] / np.float32(255), (0.0, 1.0)),
        (digits.images[:16] / np.float32(127.5) - 1, (-1.0, 1.0)),
    ):
        gan = GAN(8, networks=factories)
        gan.compile(optimizer="adam", augment="ada", augment_probability=0.5)
        gan.fit(images, batch_size=16, steps=1, verbose=0)
        assert set(ranges) == {expected} == {gan.image_range}
        ranges.clear()
