"""The image pool follows its sequential rule: in one process, after a resume and with several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.networks.layers import ImagePool

SHAPE = (2, 3, 1)


class PlainPool:
    """The rule of the pool in plain Python."""

    def __init__(self, size):
        self.size, self.images = size, []

    def __call__(self, images, draws):
        return np.stack([self.query(image, *draw) for image, draw in zip(images, draws, strict=True)])

    def query(self, image, coin, position):
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if coin >= 0.5:
            return image
        slot = int(np.float32(position) * np.float32(self.size))
        shown, self.images[slot] = self.images[slot], image
        return shown


def stream(num_calls, batch, seed=0):
    """Returns images [T, B, H, W, C] and draws [T, B, 2] of T calls."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(num_calls, batch, *SHAPE)).astype(np.float32),
        rng.random((num_calls, batch, 2)).astype(np.float32),
    )


def run(pool, images, draws):
    """Runs all calls in one loop in a graph."""

    @tf.function
    def loop(images, draws):
        return tf.map_fn(lambda pair: pool(*pair, training=True), (images, draws), fn_output_signature=tf.float32)

    return loop(images, draws).numpy()


@pytest.mark.parametrize(("size", "batch"), [(5, 1), (5, 3), (4, 7), (1, 4)])
def test_outputs_and_contents_follow_the_rule_image_by_image(size, batch):
    images, draws = stream(12, batch)
    pool, plain = ImagePool(size, SHAPE), PlainPool(size)
    expected = np.stack([plain(*call) for call in zip(images, draws, strict=True)])
    np.testing.assert_array_equal(run(pool, images, draws), expected)
    np.testing.assert_array_equal(pool.images.numpy(), plain.images)
    np.testing.assert_array_equal(pool.filled.numpy(), np.ones(size))
    assert (expected != images).any()


def test_a_pool_that_is_not_full_returns_new_images():
    images, draws = stream(2, 3)
    pool = ImagePool(8, SHAPE)
    np.testing.assert_array_equal(run(pool, images, draws), images)
    np.testing.assert_array_equal(pool.filled.numpy(), [1] * 6 + [0] * 2)


def test_a_copied_state_continues_like_the_original():
    images, draws = stream(10, 2)
    whole, first, second = (ImagePool(4, SHAPE) for _ in range(3))
    expected = run(whole, images, draws)
    run(first, images[:5], draws[:5])
    for theirs, ours in zip(first.weights, second.weights, strict=True):
        ours.assign(theirs.numpy())
    np.testing.assert_array_equal(run(second, images[5:], draws[5:]), expected[5:])
    np.testing.assert_array_equal(second.images.numpy(), whole.images.numpy())


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_free_slots_between_others_are_filled_first(batch):
    images, draws = stream(24 // batch, batch)
    pool = ImagePool(9, SHAPE)
    earlier = np.full((9, *SHAPE), 7.0, np.float32)
    is_free = np.array([0, 0, 1, 0, 1, 1, 0, 0, 1], bool)
    earlier[is_free] = 0
    for variable, value in zip(pool.weights, (earlier, 1 - is_free), strict=True):
        variable.assign(value)
    shown = run(pool, images, draws).reshape(-1, *SHAPE)
    new = images.reshape(-1, *SHAPE)
    np.testing.assert_array_equal(shown[:4], new[:4])
    assert pool.filled.numpy().all() and pool.images.numpy().any(axis=(1, 2, 3)).all()
    assert (shown[4:] != new[4:]).any()


def test_the_state_is_the_sum_of_the_pools_of_two_replicas(two_replicas):
    sizes, batch = (2, 3), 4
    streams = [stream(8, batch, seed) for seed in range(2)]
    halves = [ImagePool(size, SHAPE) for size in sizes]
    with two_replicas.scope():
        pool = ImagePool(sum(sizes), SHAPE)

    def query_on_replica(images, draws):
        values = [variable.value.read_value() for variable in pool.weights]
        with keras.StatelessScope(list(zip(pool.weights, values, strict=True))) as scope:
            shown = pool(images, draws, training=True)
        return shown, [scope.get_current_value(variable) for variable in pool.weights]

    @tf.function
    def step(images, draws):
        shown, values = two_replicas.run(query_on_replica, args=(images, draws))
        for variable, value in zip(pool.weights, values, strict=True):
            variable.value.assign(two_replicas.reduce(tf.distribute.ReduceOp.SUM, value, axis=None))
        return two_replicas.experimental_local_results(shown)

    def replica_values(part, call):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.constant(streams[context.replica_id_in_sync_group][part][call])
        )

    for call in range(8):
        images, draws = replica_values(0, call), replica_values(1, call)
        for shown, half, (half_images, half_draws) in zip(step(images, draws), halves, streams, strict=True):
            np.testing.assert_array_equal(shown, half(half_images[call], half_draws[call], training=True))
        for i, variable in enumerate(pool.weights):
            np.testing.assert_array_equal(
                variable.numpy(), np.concatenate([half.weights[i].numpy() for half in halves])
            )
    assert all(variable.aggregation == "sum" for variable in pool.weights)


def test_outputs_have_no_gradient():
    pool, images = ImagePool(2, SHAPE), tf.ones([3, *SHAPE])
    with tf.GradientTape() as tape:
        tape.watch(images)
        shown = tf.reduce_sum(pool(images, tf.zeros([3, 2]), training=True))
    assert tape.gradient(shown, images) is None
    assert not pool.trainable_variables


def test_images_are_unchanged_without_slots_and_outside_training():
    images = tf.random.stateless_normal([3, *SHAPE], [0, 1])
    pool = ImagePool(2, SHAPE)
    for shown in (ImagePool(0, SHAPE)(images, tf.zeros([3, 2]), training=True), pool(images, tf.zeros([3, 2]))):
        np.testing.assert_array_equal(shown, images)
    assert not ImagePool(0, SHAPE).weights
    assert not pool.filled.numpy().any()


def test_mixed_precision_rounds_neither_images_nor_draws():
    images, draws = stream(12, 2)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = ImagePool(3, SHAPE)
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_array_equal(run(mixed, images, draws), run(ImagePool(3, SHAPE), images, draws))
