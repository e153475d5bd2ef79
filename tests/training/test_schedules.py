"""Ramps have their values, Adam follows one, and a config's schedules end where it says."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, uncompiled_gan

from trainer.models.step_plan import step_plan
from trainer.training import optimizers, schedules
from trainer.training.schedules import Ramp

STEPS, BATCH = 6, 16


@pytest.mark.parametrize(
    ("shape", "begin", "expected"),
    [
        ("linear", 0, {0: 8, 25: 6.5, 50: 5, 100: 2, 1000: 2}),
        ("linear", 50, {0: 8, 50: 8, 75: 5, 100: 2, 101: 2}),
        ("cosine", 0, {0: 8, 25: 8 - 6 * (1 - 0.5**0.5) / 2, 50: 5, 100: 2, 1000: 2}),
        ("cosine", 50, {0: 8, 50: 8, 75: 5, 100: 2, 101: 2}),
    ],
)
def test_a_ramp_goes_from_start_to_end_and_stays(shape, begin, expected):
    ramp = Ramp(8.0, 2.0, 100, begin=begin, shape=shape)
    for step, value in expected.items():
        assert float(ramp(step)) == pytest.approx(value, rel=1e-5)
        assert float(ramp(tf.constant(step, tf.int64))) == pytest.approx(value, rel=1e-5)
    assert ramp(3).dtype == tf.float32


def test_a_cosine_ramp_is_level_at_both_ends():
    values = [float(Ramp(0.0, 1.0, 100)(step)) for step in range(101)]
    assert values == sorted(values)
    assert values[1] - values[0] < 1e-3 > values[100] - values[99]
    assert values[51] - values[50] == pytest.approx(np.pi / 200, rel=1e-2)


def test_a_ramp_is_made_again_from_its_config():
    ramp = Ramp(1.0, 0.25, 40, begin=10, shape="linear")
    again = Ramp.from_config(ramp.get_config())
    assert [float(again(step)) for step in range(50)] == [float(ramp(step)) for step in range(50)]


def test_a_number_is_the_same_at_every_step():
    assert [float(schedules.get(0.5)(tf.constant(step))) for step in (0, 9)] == [0.5, 0.5]


@pytest.mark.parametrize("beta_1", [0.0, 0.5])
def test_adam_with_a_scheduled_beta_2_uses_it_at_each_update(beta_1):
    beta_2, rate, epsilon = Ramp(0.9, 0.99, 5), Ramp(0.1, 0.01, 4, shape="linear"), 1e-8
    variable = keras.Variable(np.array([1.0, -2.0, 3.0], np.float32))
    optimizer = optimizers.clone(keras.optimizers.Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon))
    assert isinstance(optimizer, optimizers.FusedAdam)
    optimizer.build([variable])
    expected, m, v = variable.numpy().astype(np.float64), np.zeros(3), np.zeros(3)
    for update in range(8):
        gradient = np.array([0.3, -1.0, 0.01]) * (update + 1)
        beta, t = float(beta_2(update)), update + 1
        m, v = beta_1 * m + (1 - beta_1) * gradient, beta * v + (1 - beta) * gradient**2
        corrected = (m / (1 - beta_1**t)) / (np.sqrt(v / (1 - beta**t)) + epsilon)
        expected -= float(rate(update)) * corrected
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of a user's own, which nobody registered and which has no config."""

    def __call__(self, step):
        return 0.1 * 0.5 ** tf.cast(step, tf.float32)


class HalvingWithConfig(Halving):
    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("schedule", "after_two"), [(Halving(), 0.025), (HalvingWithConfig(), 0.025), (lambda: 0.1, 0.1)]
)
@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_a_schedule_of_ones_own_is_followed_as_it_is(kind, schedule, after_two):
    given = kind(schedule)
    cloned = optimizers.clone(given)
    variable = keras.Variable(np.zeros(2, np.float32))
    cloned.build([variable])
    for rate in (0.1, np.sqrt(0.1 * after_two)):
        assert float(cloned.learning_rate) == pytest.approx(rate)
        cloned.apply([tf.ones([2])], [variable])
    assert float(cloned.learning_rate) == pytest.approx(after_two)
    assert given._learning_rate is schedule


def test_a_gan_takes_a_custom_schedule():
    gan = uncompiled_gan()
    gan.compile(optimizer=keras.optimizers.Adam(Halving()))
    assert [float(optimizer.learning_rate) for optimizer in gan.optimizers.values()] == pytest.approx([0.1, 0.1])


def gan_after_all_steps(digits, **settings):
    """A GAN that has seen all of `schedule_images`."""
    gan = tiny_gan(steps=STEPS, schedule_images=STEPS * BATCH, **settings)
    gan.fit(digits.images[:64], batch_size=BATCH, steps=STEPS, verbose=0)
    return gan


@pytest.mark.parametrize(
    "settings",
    [{}, {"discriminator_repeats": 3}, {"discriminator_updates": "separate"}, {"update_order": "simultaneous"}],
    ids=["once", "repeats", "separate", "simultaneous"],
)
def test_learning_rates_and_beta_2_end_at_schedule_images(digits, settings):
    rates = {"generator_learning_rate": 1e-3, "discriminator_learning_rate": 4e-3}
    decay = {"learning_rate_decay": "linear", "learning_rate_end": 0.25, "learning_rate_decay_begin": 0.5}
    gan = gan_after_all_steps(digits, beta_2=0.9, beta_2_end=0.99, **rates, **decay, **settings)
    for phase, optimizer in gan.optimizers.items():
        rate = rates[f"{phase}_learning_rate"]
        assert float(optimizer.learning_rate) == pytest.approx(0.25 * rate, rel=1e-5)
        updates = int(optimizer.iterations.numpy())
        assert float(optimizer.beta_2(updates)) == pytest.approx(0.99, rel=1e-5)
        assert float(optimizer.beta_2(updates // 2)) == pytest.approx(0.945, rel=1e-5)
        optimizer.iterations.assign(updates // 2)
        assert float(optimizer.learning_rate) == pytest.approx(rate, rel=1e-5)
        optimizer.iterations.assign(updates * 3 // 4 if updates % 4 == 0 else updates - 1)
        assert 0.25 * rate < float(optimizer.learning_rate) < rate


def test_schedules_end_after_the_run_where_schedule_images_say_so():
    gan = tiny_gan(steps=STEPS, schedule_images=2 * STEPS * BATCH, learning_rate_decay="linear")
    optimizer = gan.optimizers["generator"]
    optimizer.iterations.assign(STEPS)
    assert float(optimizer.learning_rate) == pytest.approx(1e-4, rel=1e-5)
    optimizer.iterations.assign(2 * STEPS)
    assert float(optimizer.learning_rate) == 0


def test_penalty_augmentation_and_average_follow_the_same_images(digits):
    gan = tiny_gan(
        steps=STEPS,
        schedule_images=STEPS * BATCH,
        penalties=("r1",),
        penalty_weight=2.0,
        penalty_weight_end=0.2,
        augment="diffaugment",
        augment_probability=0.1,
        augment_probability_end=0.5,
        ema_half_life_images=1000.0,
        ema_schedule="cosine",
    )
    (average,) = step_plan(gan, BATCH).emas
    scheduled = gan.objective._penalties._weight, gan.objective.augmenter._schedule, average.half_life_images
    for of_step, (start, end) in zip(scheduled, [(2.0, 0.2), (0.1, 0.5), (0.0, 1000.0)], strict=True):
        values = [float(of_step(tf.constant(step))) for step in (0, STEPS // 2, STEPS, 2 * STEPS)]
        assert values == pytest.approx([start, (start + end) / 2, end, end], rel=1e-5)
    gan.fit(digits.images[:64], batch_size=BATCH, steps=1, verbose=0)  # at half-life 0 the average is the generator
    for ours, theirs in zip(gan.ema_generator.weights, gan.generator.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize("every_steps", [1, 4])
def test_a_lazy_penalty_corrects_the_discriminators_optimizer_alone(every_steps):
    gan = tiny_gan(
        penalties=("r1",), penalty_every_steps=every_steps, discriminator_learning_rate=1e-3, beta_1=0.5, beta_2=0.9
    )
    correction = every_steps / (every_steps + 1) if every_steps > 1 else 1.0
    of_discriminator, of_generator = gan.optimizers["discriminator"], gan.optimizers["generator"]
    assert float(of_discriminator.learning_rate) == pytest.approx(1e-3 * correction, rel=1e-5)
    assert (of_discriminator.beta_1, of_discriminator.beta_2) == pytest.approx((0.5**correction, 0.9**correction))
    assert float(of_generator.learning_rate) == pytest.approx(2e-4, rel=1e-5)
    assert (of_generator.beta_1, of_generator.beta_2) == (0.5, 0.9)


def test_without_a_penalty_how_often_it_would_be_changes_nothing():
    optimizer = tiny_gan(penalty_every_steps=4, penalty_weight_end=0.0).optimizers["discriminator"]
    assert float(optimizer.learning_rate) == pytest.approx(2e-4, rel=1e-5)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.999)
