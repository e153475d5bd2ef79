"""What a loss of one's own must give: one number an image, whose mean the trainer takes."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_data, tiny_wiring
from refusals import check_refusal

from trainer.errors import NetworkError
from trainer.models.losses import NonSaturating
from trainer.models.objective import Objective
from trainer.training.rng import StepRng

IMAGES = tf.zeros([4, 3, 2, 1])


def with_mean_in(method):
    """A loss whose `method` takes the mean over the batch itself."""

    def mean(self, *logits):
        return tf.reduce_mean(getattr(NonSaturating, method)(self, *logits))

    return type("TakesTheMean", (NonSaturating,), {method: mean})


def judged(loss, updates):
    objective = Objective(loss, updates=updates)
    of_images = IMAGES, None
    return objective(lambda images, _: tf.zeros([images.shape[0], 1]), None, of_images, of_images, StepRng(0, 0, 4))


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
    assert judged(NonSaturating, updates).losses["generator"].shape == (4,)
    check_refusal(lambda: judged(with_mean_in(method), updates), NetworkError, "TakesTheMean", "()", "(4,)")


def test_the_mean_is_refused_for_the_generators_of_a_cyclegan_too(digits):
    gan = tiny_wiring("cyclegan")
    gan.compile(optimizer="adam", loss=with_mean_in("generator"))
    fit = functools.partial(gan.fit, *tiny_data(gan, digits), batch_size=16, steps=1, verbose=0)
    check_refusal(fit, NetworkError, "TakesTheMean", "()")


def test_a_class_of_losses_trains_as_its_name_does(digits):
    means = []
    for loss in ("non_saturating", NonSaturating):
        gan = tiny_wiring("gan")
        gan.compile(optimizer="adam", loss=loss)
        means.append(gan.fit(*tiny_data(gan, digits), batch_size=16, epochs=1, verbose=0).history["loss/generator"])
    np.testing.assert_array_equal(*means)
