"""All noise is a function of (seed, purpose, step, place in the global batch)."""

import random
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.data.pipeline.batching import BatchSlice
from trainer.training.rng import StepRng, seeded_initialization, stream_key


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_replicas_draw_their_parts_of_what_one_alone_draws(draw, jit_compile):
    def numbers(num_samples, replica):
        def at(step):  # The step is an argument because constants are folded before XLA compiles.
            return getattr(StepRng(7, step, num_samples, replica, "phase"), draw)("latents", 5)

        return tf.function(at, jit_compile=jit_compile)(tf.constant(3, tf.int64)).numpy()

    whole = numbers(12, 0)
    for num_samples in (6, 3, 1):  # XLA draws odd and even numbers of rows in different ways
        parts = [numbers(num_samples, replica) for replica in range(12 // num_samples)]
        np.testing.assert_array_equal(whole, np.concatenate(parts), err_msg=f"{num_samples} samples")


def test_seed_step_and_purpose_each_give_other_noise():
    base = StepRng(1, 1, 4, 0, "a").normal("latents", 6).numpy()
    for other in (
        StepRng(2, 1, 4, 0, "a"),
        StepRng(1, 2, 4, 0, "a"),
        StepRng(1, 1, 4, 0, "b"),
        StepRng(1, 1, 4, 0).child("x"),
    ):
        assert not np.isclose(base, other.normal("latents", 6).numpy()).any()
    assert not np.isclose(base, StepRng(1, 1, 4, 0, "a").normal("other", 6).numpy()).any()


def test_normal_and_uniform_have_their_moments():
    rng = StepRng(0, 0, 20_000)
    normal, uniform = rng.normal("n", 4).numpy(), rng.uniform("u", 4).numpy()
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01


def test_integers_cover_their_range_evenly():
    counts = np.bincount(StepRng(0, 0, 10_000).integers("labels", 10).numpy(), minlength=10)
    assert len(counts) == 10 and counts.min() > 850


def indices(step, replica=0, num_replicas=1, num_examples=103, batch=10, seed=5):
    key, step = stream_key(seed, "order/0"), tf.constant(step, tf.int64)
    return BatchSlice(key, step, replica, batch // num_replicas, num_replicas).indices(num_examples).numpy()


def test_an_epoch_is_a_permutation_and_each_epoch_another():
    epochs = [np.concatenate([indices(epoch * 10 + step) for step in range(10)]) for epoch in range(3)]
    for seen in epochs:
        assert len(set(seen)) == 100 and set(seen) <= set(range(103))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_replicas_share_the_batch_of_one():
    parts = [indices(4, replica, 2) for replica in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), indices(4))


def test_the_order_depends_on_the_seed():
    assert (indices(0) != indices(0, seed=6)).any()


def initial_weights(seed):
    with seeded_initialization(seed):
        network = keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(4) for _ in range(20))])
    return np.concatenate([weight.numpy().ravel() for weight in network.weights])


def test_initial_weights_do_not_depend_on_random_numbers_of_other_threads():
    expected, is_over = initial_weights(9), threading.Event()

    def draw():
        while not is_over.is_set():
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        np.testing.assert_array_equal(initial_weights(9), expected)
    finally:
        is_over.set()
        thread.join()


def test_networks_that_are_made_in_several_threads_have_the_weights_of_their_seeds():
    seeds = [1, 1, 2, 3]
    expected, made = [initial_weights(seed) for seed in seeds], {}
    threads = [
        threading.Thread(target=lambda index=index, seed=seed: made.update({index: initial_weights(seed)}))
        for index, seed in enumerate(seeds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, weights in enumerate(expected):
        np.testing.assert_array_equal(made[index], weights)
    assert (expected[1] != expected[2]).any()


def test_an_initialization_inside_of_another_one_has_no_effect_on_it():
    def seeds(inner):
        with seeded_initialization(9):
            first = keras.initializers.GlorotUniform().seed
            if inner:
                initial_weights(3)
            return first, keras.initializers.GlorotUniform().seed

    assert seeds(inner=True) == seeds(inner=False)


def test_seeded_initialization_leaves_the_process_as_it_was():
    np.random.seed(3)
    expected = np.random.RandomState(3).rand()
    with seeded_initialization(9):
        np.random.rand()
    assert np.random.rand() == expected
