"""A custom loss must return one number per image; the trainer averages over the batch."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_data, tiny_model
from refusals import check_refusal

from trainer.errors import NetworkError
from trainer.models import GAN, CycleGAN
from trainer.models.losses import NonSaturating
from trainer.models.objective import Objective
from trainer.training.rng import StepRng

IMAGES = tf.zeros([4, 3, 2, 1])


def with_mean_in(method):
    """A loss whose `method` takes the mean over the batch itself."""

    def mean(self, *logits):
        return tf.reduce_mean(getattr(NonSaturating, method)(self, *logits))

    return type("TakesTheMean", (NonSaturating,), {method: mean})


def losses_of(loss, updates):
    objective = Objective(loss, updates=updates)
    images, rng = (IMAGES, None), StepRng(0, 0, 4)
    phases = (*objective.update.phases, "generator")
    return objective(lambda x, _: tf.zeros([x.shape[0], 1]), None, images, images, rng, phases)


@pytest.mark.parametrize(
    ("method", "updates"),
    [
        ("discriminator", "together"),
        ("generator", "together"),
        ("score", "together"),
        ("on_real", "separate"),
        ("on_fake", "separate"),
        ("discriminator", "concatenated"),
        ("generator", "concatenated"),
    ],
)
def test_a_loss_that_takes_the_mean_over_the_batch_is_refused(method, updates):
    assert losses_of(NonSaturating, updates).losses["generator"].shape == (4,)
    check_refusal(lambda: losses_of(with_mean_in(method), updates), NetworkError, "TakesTheMean", "()", "(4,)")


def test_the_mean_is_refused_for_the_generators_of_a_cyclegan_too(digits):
    gan = CycleGAN(networks=tiny_model("cyclegan")._factories)
    gan.compile(optimizer="adam", loss=with_mean_in("generator"))
    fit = functools.partial(gan.fit, *tiny_data(gan, digits), batch_size=16, steps=1, verbose=0)
    check_refusal(fit, NetworkError, "TakesTheMean", "()")


def test_a_class_of_losses_trains_as_its_name_does(digits):
    means = []
    for loss in ("non_saturating", NonSaturating):
        gan = GAN(8, networks=tiny_model("gan")._factories)
        gan.compile(optimizer="adam", loss=loss)
        means.append(gan.fit(*tiny_data(gan, digits), batch_size=16, epochs=1, verbose=0).history["loss/generator"])
    np.testing.assert_array_equal(*means)
