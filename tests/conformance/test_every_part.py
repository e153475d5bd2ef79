"""Every registered loss, penalty and augmentation has finite steps that move all weights, also on two replicas.

A new entry of a registry is tested without changes here.
"""

import numpy as np
import pytest
from conftest import tiny_data, tiny_model, values_of

from trainer.models import augment, losses, penalties
from trainer.training.checkpoint.manifest import state_sha256

SHIFT_INVARIANT = {"wasserstein", "relativistic"}
"""Losses that depend only on differences of logits, so that the final bias has no gradient."""


def slow_except(fast, names):
    """Returns names as test parameters, all but one marked as slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name != fast)) for name in names]


def train(gan, digits, steps=3):
    gan.fit(*tiny_data(gan, digits), batch_size=16, steps=steps, verbose=0)
    after = values_of(gan)
    assert gan.step == steps
    assert all(np.isfinite(value).all() for value in after.values())
    return after


def unchanged_weights(gan, before, after):
    """Returns the names of trainable weights that did not change."""
    named = (
        (f"{network}/{index:03d}/{variable.name}", variable)
        for networks in gan.optimizer_groups.values()
        for network in networks
        for index, variable in enumerate(gan.networks[network].weights)
    )
    return [name for name, variable in named if variable.trainable and (before[name] == after[name]).all()]


@pytest.mark.parametrize("name", losses.names())
def test_steps_under_every_loss_are_finite_and_move_all_weights(digits, name):
    updates = "separate" if losses.get(name).is_separable else "together"
    gan = tiny_model("gan", loss=name, discriminator_updates=updates)
    before = values_of(gan)
    unchanged = unchanged_weights(gan, before, train(gan, digits))
    final_bias = f"discriminator/{len(gan.discriminator.weights) - 1:03d}/bias"
    assert unchanged in ([], [final_bias] if name in SHIFT_INVARIANT else [])


@pytest.mark.parametrize("every_steps", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", penalties.names())
def test_every_penalty_has_effect_and_is_the_same_on_two_replicas(digits, two_replicas, name, every_steps):
    settings = {"penalty_every_steps": every_steps, "epsilon": 1e-3}  # Adam would amplify rounding differences
    plain = train(tiny_model("gan", **settings), digits)
    gan = tiny_model("gan", penalties=(name,), **settings)
    before = values_of(gan)
    one = train(gan, digits)
    assert not unchanged_weights(gan, before, one)
    assert state_sha256(one) != state_sha256(plain)
    two = train(tiny_model("gan", two_replicas, penalties=(name,), **settings), digits)
    for state in one:
        np.testing.assert_allclose(one[state], two[state], atol=1e-5, err_msg=state)


@pytest.mark.parametrize("probability", [0.6, None], ids=["fixed", "adapted"])
@pytest.mark.parametrize("name", slow_except("diffaugment", augment.names()))
def test_steps_under_every_augmentation_are_finite_and_differ(digits, eager_ada, name, probability):
    plain = train(tiny_model("gan"), digits, steps=10)
    gan = tiny_model("gan", augment=name, augment_probability=probability)
    augmented = train(gan, digits, steps=10)
    assert state_sha256({n: v for n, v in augmented.items() if n in plain}) != state_sha256(plain)
    if probability is None:
        states = {state.rpartition("/")[2]: value for state, value in augmented.items() if state.startswith("augm")}
        assert states["probability"] == pytest.approx(0.2)  # adapted after 4 and after 8 batches of 16, 640 in all
        assert states["num_batches"] == 2


@pytest.mark.parametrize("name", slow_except("diffaugment", augment.names()))
def test_two_replicas_augment_as_one_does(digits, two_replicas, name):
    settings = {"augment": name, "augment_probability": 0.6, "epsilon": 1e-3}
    one, two = (train(tiny_model("gan", strategy, **settings), digits) for strategy in (None, two_replicas))
    for state in one:
        atol = 1e-4 if "_optimizer/" in state else 1e-5  # moments are as large as gradients
        np.testing.assert_allclose(one[state], two[state], atol=atol, err_msg=state)
