"""A step is a pure function of (state, seed, step), and every phase moves its own network alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan, uncompiled_gan, values_of
from refusals import check_refusal

from trainer.callbacks import Checkpoint
from trainer.errors import NetworkError
from trainer.models.step_plan import step_plan
from trainer.training.checkpoint.manifest import state_sha256
from trainer.training.plan import StepPlan
from trainer.training.step import TrainStep


def train(gan, digits, steps=3, **settings):
    settings = {"batch_size": 16, "verbose": 0, "steps_per_execution": 2} | settings
    gan.fit(digits.images, digits.labels if gan.takes_targets else None, steps=steps, **settings)
    return values_of(gan)


def run_groups(gan, digits, groups):
    """One step of some phase groups."""
    plan = step_plan(gan, 16)
    plan = StepPlan(**(vars(plan) | {"groups": groups}))
    chunk = gan.make_chunk(digits.images, digits.labels)
    tf.function(TrainStep(plan, chunk, tf.distribute.get_strategy()), autograph=False)(
        chunk.tensors(), tf.constant(0, tf.int64)
    )


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(digits, architecture):
    first, again, other = (train(tiny_gan(architecture, seed=seed), digits) for seed in (1, 1, 2))
    assert state_sha256(first) == state_sha256(again)
    assert state_sha256(first) != state_sha256(other)


def test_the_length_of_executions_changes_nothing(digits):
    one, many = (train(tiny_gan("dcgan"), digits, steps=5, steps_per_execution=n) for n in (1, 5))
    assert state_sha256(one) == state_sha256(many)


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_a_phase_moves_its_own_network_alone_buffers_included(digits, architecture, phase):
    gan = tiny_gan(architecture)
    before = values_of(gan)
    groups = step_plan(gan, 16).groups
    run_groups(gan, digits, tuple(group for group in groups if group.phases[0].name == phase))
    after = values_of(gan)
    other = {"discriminator": "generator", "generator": "discriminator"}[phase]
    for name in before:
        if name.startswith(other):
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    moved = [name for name in before if name.startswith(f"{phase}/") and (before[name] != after[name]).any()]
    assert moved == [name for name in before if name.startswith(f"{phase}/")]


@pytest.mark.parametrize("update_order", ["alternating", "simultaneous"])
@pytest.mark.parametrize("jit_compile", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_two_replicas_agree_with_one_dropout_included(digits, two_replicas, update_order, jit_compile):
    settings = {"update_order": update_order, "jit_compile": jit_compile, "ema_half_life_images": 100.0}
    one = train(tiny_gan("mlp", **settings), digits)
    two = train(tiny_gan("mlp", two_replicas, **settings), digits)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def test_two_replicas_give_the_gradients_of_one(digits, two_replicas):
    def updates(strategy):
        gan = tiny_gan("mlp", strategy, optimizer="rmsprop")
        for optimizer in gan.optimizers.values():
            optimizer.learning_rate = 0.0
        train(gan, digits, steps=1)
        return {name: value for name, value in values_of(gan).items() if "_optimizer/" in name}

    one, two = updates(None), updates(two_replicas)
    for name in one:  # RMSprop's slots after one step are the squared gradients over ten
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("clipping", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_two_replicas_clip_the_gradients_that_one_clips(digits, two_replicas, clipping):
    def after(strategy):
        gan = uncompiled_gan()
        gan.compile(optimizer=keras.optimizers.SGD(1.0, **{clipping: 1e-3}), strategy=strategy, jit_compile=False)
        return train(gan, digits, steps=1)

    one, two = after(None), after(two_replicas)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def test_an_optimizer_that_hands_gradients_on_sums_them_once(digits, two_replicas):
    def after(strategy):
        gan = uncompiled_gan()
        several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1)))
        gan.compile(optimizer=several, strategy=strategy, jit_compile=False)
        return train(gan, digits, steps=1)

    one, two = after(None), after(two_replicas)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def test_gradients_accumulate_on_one_replica(digits):
    gan = uncompiled_gan()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    gan.compile(optimizer=optimizer, jit_compile=False)
    start, first, second = values_of(gan), train(gan, digits, steps=1), train(gan, digits, steps=2)
    weights = [name for name in start if "kernel" in name and "optimizer" not in name]
    assert all((start[name] == first[name]).all() and (start[name] != second[name]).any() for name in weights)


def test_simultaneous_gradients_alone_come_from_one_pass(digits):
    """A discriminator that jumps far in its phase changes the generator's update only where the phases alternate."""

    def generator_after(order, discriminator_rate):
        gan = tiny_gan("mlp", update_order=order, discriminator_learning_rate=discriminator_rate)
        train(gan, digits, steps=1)
        return np.concatenate([weight.ravel() for weight in gan.generator.get_weights()])

    calm, jumped = (generator_after("simultaneous", rate) for rate in (0.0, 0.1))
    np.testing.assert_array_equal(calm, jumped)
    calm, jumped = (generator_after("alternating", rate) for rate in (0.0, 0.1))
    assert (calm != jumped).any()


def test_the_average_follows_the_generator_by_its_half_life(digits):
    gan = tiny_gan("dcgan", ema_half_life_images=1000.0)
    start = gan.generator.get_weights()
    train(gan, digits, steps=1)
    rate = 1 - 0.5 ** (16 / min(1000.0, 0.05 * 16))
    followed = zip(gan.ema_generator.weights, start, gan.generator.weights, strict=True)
    for average, before, after in followed:
        expected = before + rate * (after.numpy() - before) if average.trainable else after.numpy()
        np.testing.assert_allclose(average.numpy(), expected, atol=1e-6)


def test_repeats_move_the_discriminator_on_images_of_their_own(digits):
    gan = tiny_gan("mlp", discriminator_repeats=3)
    train(gan, digits, steps=2)
    assert int(gan.optimizers["discriminator"].iterations.numpy()) == 6
    assert int(gan.optimizers["generator"].iterations.numpy()) == 2


def test_weight_regularizers_are_part_of_the_objective(digits):
    def discriminator_after(strength):
        gan = tiny_gan("mlp")
        layer = next(layer for layer in gan.discriminator.layers if isinstance(layer, keras.layers.Dense))
        layer.kernel.regularizer = keras.regularizers.L2(strength)
        train(gan, digits, steps=1)
        return gan.discriminator.get_weights()[0]

    assert (discriminator_after(0.0) != discriminator_after(10.0)).any()


def test_plain_keras_dropout_is_a_function_of_seed_and_step(digits):
    def trained():
        gan = uncompiled_gan()
        gan.set_network_factories(
            {
                "discriminator": lambda: keras.Sequential(
                    [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
                )
            }
        )
        gan.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
        return train(gan, digits, steps=3)

    assert state_sha256(trained()) == state_sha256(trained())


@pytest.mark.parametrize("jit_compile", ["off", pytest.param("on", marks=pytest.mark.slow)])
@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_a_bfloat16_step_is_finite_and_keeps_float32_weights(digits, architecture, jit_compile):
    after = train(tiny_gan(architecture, precision="bfloat16", jit_compile=jit_compile), digits, steps=2)
    assert all(np.isfinite(value).all() for value in after.values())
    assert {value.dtype.name for name, value in after.items() if name.startswith("generator/")} == {"float32"}


class Counts(keras.layers.Layer):
    """Holds whole numbers and a boolean, as Keras's `Normalization` and layers of one's own do."""

    def __init__(self):
        super().__init__()
        settings = {"shape": (), "initializer": "zeros", "trainable": False}
        self.calls = self.add_weight(dtype="int32", name="calls", **settings)
        self.samples = self.add_weight(dtype="int64", name="samples", aggregation="sum", **settings)
        self.used = self.add_weight(dtype="bool", name="used", **settings)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        self.calls.assign(self.calls + 1)
        self.samples.assign(tf.shape(inputs, tf.int64)[0])
        self.used.assign(True)
        return inputs


@pytest.mark.parametrize(("num_replicas", "num_parts"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_whole_numbers_and_booleans_are_buffers_too(digits, two_replicas, num_replicas, num_parts, tmp_path):
    def counting():
        numbers = keras.layers.Normalization(axis=None)
        numbers.adapt(np.arange(8.0))
        layers = [keras.layers.Flatten(), numbers, Counts(), keras.layers.Dense(1)]
        return keras.Sequential([keras.Input((28, 28, 1)), *layers])

    gan = uncompiled_gan()
    gan.set_network_factories({"discriminator": counting})
    strategy = two_replicas if num_replicas == 2 else None
    gan.compile(optimizer="adam", strategy=strategy, jit_compile=False, accumulate_steps=num_parts)
    after = train(gan, digits, steps=2, callbacks=[Checkpoint(tmp_path)])
    found = {name.rpartition("/")[2]: value for name, value in after.items() if value.dtype.kind in "ib"}
    assert int(found["calls"]) == 2 * 2  # on real and on fake images
    assert int(found["samples"]) == 16  # of all replicas in the last batch
    assert bool(found["used"])


def test_a_variable_without_a_gradient_is_named(digits):
    class Idle(keras.layers.Layer):
        def build(self, shape):
            self.idle = self.add_weight(shape=(1,), name="idle")

        def call(self, inputs):
            return inputs

    gan = uncompiled_gan()
    gan.set_network_factories(
        {
            "discriminator": lambda: keras.Sequential(
                [keras.Input((28, 28, 1)), keras.layers.Flatten(), Idle(), keras.layers.Dense(1)]
            )
        }
    )
    gan.compile(optimizer=keras.optimizers.Adam(1e-3))
    check_refusal(lambda: train(gan, digits), NetworkError, "discriminator", "idle")
