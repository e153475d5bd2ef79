"""Promises of every registered model. A model added to `trainer.models.MODELS` is tested without changes here."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from broken_updates import break_updates
from conftest import TINY_ARCHITECTURES, tiny_data, tiny_model, values_of

from trainer.callbacks import Checkpoint
from trainer.models import MODELS, penalties
from trainer.models.step_plan import step_plan
from trainer.networks.layers import BatchNormalization
from trainer.training.checkpoint.manifest import state_sha256
from trainer.training.divergence import STATE_NAME
from trainer.training.plan import StepPlan
from trainer.training.step import TrainStep

BATCH = 16
PHASES = {
    "together": {"augment": "diffaugment", "augment_probability": None},
    "penalized": {"penalties": tuple(penalties.names()), "penalty_every_steps": 2},
    "separate": {"discriminator_updates": "separate"},
    "concatenated": {"discriminator_updates": "concatenated"},
    "simultaneous": {"update_order": "simultaneous", "penalties": ("r1",)},
}
"""Settings that cover every kind of phase, with and without penalties and augmentation."""
SEPARATE_MODELS = [name for name in MODELS.names() if MODELS[name].allows_separate_updates]
"""Models that may update the discriminator on real and on fake images separately."""


def models(*slow):
    """Returns the registered models as test parameters.

    Args:
        *slow: Names of models for which the test takes more than about three seconds.
    """
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in MODELS.names()]


def train(gan, digits, steps, **settings):
    gan.fit(*tiny_data(gan, digits), batch_size=BATCH, steps=steps, verbose=0, **settings)
    return values_of(gan)


def networks_of(gan, group):
    """Returns the networks and optimizers that a phase group may change."""
    optimizer_groups = [name.partition("_")[0] for name in (phase.name for phase in group.phases)]
    owned = {network for owner in optimizer_groups for network in gan.optimizer_groups[owner]}
    states = {"augmenter"} if "discriminator" in optimizer_groups else set()
    return owned | states, {f"{owner}_optimizer" for owner in optimizer_groups}


@pytest.mark.parametrize(
    ("model", "phases"),
    [
        (model, phases)
        for model in MODELS.names()
        for phases in PHASES
        if phases != "separate" or model in SEPARATE_MODELS
    ],
)
def test_a_phase_moves_all_weights_that_it_owns_and_nothing_else(digits, model, phases):
    gan = tiny_model(model, **PHASES[phases])
    plan, chunk = step_plan(gan, BATCH), gan.make_chunk(*tiny_data(gan, digits))
    seen = set()
    for group in plan.groups:
        before = values_of(gan)
        step = TrainStep(StepPlan(**(vars(plan) | {"groups": (group,)})), chunk, tf.distribute.get_strategy())
        logged = step(chunk.tensors(), tf.constant(0, tf.int64))  # eagerly: tracing takes longer than one step
        after = values_of(gan)
        networks, optimizers = networks_of(gan, group)
        assert all(np.isfinite(value) for value in logged.values())
        assert {f"loss/{phase.name}" for phase in group.phases} <= set(logged)
        for name, variable in gan.state.items():
            owner = name.partition("/")[0]
            changed = (before[name] != after[name]).any()
            assert np.isfinite(after[name]).all(), name
            assert not changed or owner in networks | optimizers, f"{name} changed"
            is_weight = owner in networks and any(variable is v for v in gan.networks[owner].trainable_variables)
            assert changed or not is_weight, f"{name} did not change"
        seen |= networks
    assert {name.partition("/")[0] for name in values_of(gan) if "_optimizer" not in name} <= seen | {STATE_NAME}


@pytest.mark.parametrize(
    ("model", "phases"),
    [
        *[pytest.param(*model.values, "together", marks=model.marks) for model in models("cyclegan")],
        *[pytest.param(model, "separate", marks=pytest.mark.slow) for model in SEPARATE_MODELS],
    ],
)
def test_a_step_that_is_not_finite_changes_nothing(digits, eager_ada, model, phases):
    """The state has an EMA, an adapted probability with its counts, and an image pool in a CycleGAN."""
    gan = break_updates(tiny_model(model, ema_half_life_images=100.0, **PHASES[phases]), [2])
    before, after = train(gan, digits, 2), train(gan, digits, 3)
    assert [name for name in before if (before[name] != after[name]).any()] == [f"{STATE_NAME}/000/skips"]
    following = train(gan, digits, 4)
    assert {name.partition("/")[0] for name in before if (after[name] != following[name]).any()} >= set(gan.networks)
    assert all(np.isfinite(value).all() for value in following.values())


@pytest.mark.parametrize("model", models("conditional", "cyclegan", "infogan"))
def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(digits, eager_ada, tmp_path, model):
    """The run has learning rate decay, an EMA and an adaptive augmentation probability."""
    settings = {
        "steps": 5,
        "augment": "diffaugment",
        "augment_probability": None,
        "learning_rate_decay": "linear",
        "ema_half_life_images": 100.0,
    }
    undisturbed, killed = tiny_model(model, **settings), tiny_model(model, **settings)
    reference = train(undisturbed, digits, 5, callbacks=[Checkpoint(tmp_path, every_steps=2)])
    for step in (4, 5):
        shutil.rmtree(tmp_path / f"step-{step:08d}")  # as after a kill at step 3
    first_steps = []
    recorder = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: first_steps.append(killed.step))
    resumed = train(killed, digits, 5, callbacks=[Checkpoint(tmp_path), recorder])
    assert first_steps == [2]
    assert state_sha256(resumed) == state_sha256(reference)
    assert any(name.startswith("ema_generator") for name in resumed)
    assert next(value for name, value in resumed.items() if name.endswith("/probability")) > 0


@pytest.mark.parametrize("model", models("acgan", "cyclegan", "infogan"))
def test_two_replicas_train_as_one(digits, two_replicas, monkeypatch, model):
    """Batch normalization and image pools are switched off, because they work per replica."""
    normalize = BatchNormalization.call
    monkeypatch.setattr(BatchNormalization, "call", lambda self, inputs, training=None: normalize(self, inputs))
    settings = {"ema_half_life_images": 100.0, "epsilon": 1e-3}  # Adam would amplify rounding differences
    if model == "cyclegan":
        settings["model_options"] = {"pool_size": 0}
    one, two = (train(tiny_model(model, strategy, **settings), digits, 3) for strategy in (None, two_replicas))
    assert set(one) == set(two)
    for name in one:
        atol = 1e-4 if "_optimizer/" in name else 1e-5  # moments are as large as gradients
        np.testing.assert_allclose(one[name], two[name], atol=atol, err_msg=name)


def assert_finite_with_float32_weights(gan, after):
    assert all(np.isfinite(value).all() for value in after.values())
    dtypes = {variable.dtype for network in gan.networks.values() for variable in network.trainable_variables}
    assert dtypes == {"float32"}


@pytest.mark.parametrize("model", models("cyclegan"))
def test_a_bfloat16_step_is_finite_and_keeps_float32_weights(digits, model):
    gan = tiny_model(model, precision="bfloat16", update_order="simultaneous")
    assert_finite_with_float32_weights(gan, train(gan, digits, 2))
    generator = gan.networks[gan.optimizer_groups["generator"][0]]
    assert "bfloat16" in {layer.compute_dtype for layer in generator.layers}


@pytest.mark.slow
def test_bfloat16_steps_with_the_penalties_of_r3gan_are_finite(digits):
    networks = {"architecture": "r3gan", "architecture_options": TINY_ARCHITECTURES["r3gan"]}
    settings = {"loss": "relativistic", "penalties": ("r1", "r2"), "penalty_weight": 1.0}
    optimizer = {"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-8}
    gan = tiny_model("conditional", precision="bfloat16", **networks, **settings, **optimizer)
    assert_finite_with_float32_weights(gan, train(gan, digits, 3))


@pytest.mark.parametrize("model", MODELS.names())
def test_samples_and_grids_are_uint8_images(digits, model):
    gan = tiny_model(model)
    gan.make_chunk(*tiny_data(gan, digits))  # CycleGAN samples translations of its data
    images, _ = gan.sample(7)
    assert (images.shape, images.dtype) == ((7, 12, 12, 1), np.uint8)
    grid = gan.sample_grid(3, 4)
    assert grid.dtype == np.uint8 and grid.ndim == 3
