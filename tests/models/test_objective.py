"""A custom loss must return one number per image; the trainer averages over the batch."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_data, tiny_model
from refusals import check_refusal

from trainer.errors import NetworkError
from trainer.models import GAN, CycleGAN
from trainer.models.discriminator_passes import PassInputs
from trainer.models.losses import NonSaturating
from trainer.models.objective import Objective
from trainer.training.rng import StepRng

IMAGES = tf.zeros([4, 3, 2, 1])


def with_mean_in(method):
    """A loss whose `method` takes the mean over the batch itself."""

    def mean(self, *logits):
        return tf.reduce_mean(getattr(NonSaturating, method)(self, *logits))

    return type("TakesTheMean", (NonSaturating,), {method: mean})


def losses_of(loss, updates, real=IMAGES, fake=IMAGES):
    """Returns the losses of a discriminator that returns the first pixel of an image."""
    objective = Objective(loss, updates=updates)
    phases = (*objective.discriminator_update.phases, "generator")
    rng = StepRng(0, 0, 4)
    return objective(PassInputs(lambda x, _: x[:, 0, 0], None, (real, None), (fake, None), rng, (-1.0, 1.0)), phases)


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


@pytest.mark.parametrize(
    ("loss", "updates", "expected"),
    [
        ("non_saturating", "together", {"accuracy/real": 0.75, "accuracy/fake": 0.25}),
        ("least_squares", "together", {"accuracy/real": 0.25, "accuracy/fake": 0.5}),
        ("hinge", "separate", {"accuracy/real": 0.75, "accuracy/fake": 0.25}),
        ("relativistic", "together", {"accuracy/pairs": 0.25}),
        ("relativistic", "concatenated", {"accuracy/pairs": 0.25}),
        ("wasserstein", "together", {}),
        ("wasserstein", "separate", {}),
        (type("OwnLoss", (NonSaturating,), {"is_shift_invariant": True}), "together", {}),
    ],
)
def test_accuracies_are_logged_of_losses_for_which_they_have_a_meaning(loss, updates, expected):
    logits = [-1.0, 0.2, 0.4, 2.0], [-2.0, 0.3, 3.0, 4.0]
    real, fake = (tf.reshape(tf.constant(values), [4, 1, 1, 1]) for values in logits)
    values = {
        name: v for metrics in losses_of(loss, updates, real, fake).metrics.values() for name, v in metrics.items()
    }
    assert {name: float(tf.reduce_mean(v)) for name, v in values.items() if name.startswith("accuracy/")} == expected
    assert {name for name in values if name.startswith("score/")} == {"score/real", "score/fake"}


def test_a_class_of_losses_trains_as_its_name_does(digits):
    means = []
    for loss in ("non_saturating", NonSaturating):
        gan = GAN(8, networks=tiny_model("gan")._factories)
        gan.compile(optimizer="adam", loss=loss)
        means.append(gan.fit(*tiny_data(gan, digits), batch_size=16, epochs=1, verbose=0).history["loss/generator"])
    np.testing.assert_array_equal(*means)
