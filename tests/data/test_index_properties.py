"""Properties of the index computations: the images of each batch, replica and chunk.

The examples are the same in every run, and the sizes are small.
"""

import functools
import math
import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st

from trainer.data.dataset_spec import Shard
from trainer.data.pipeline.balance import balanced_order, balanced_size
from trainer.data.pipeline.batching import BatchSlice, ChunkVisit
from trainer.data.pipeline.chunk_schedule import ChunkSchedule, choose_num_chunks
from trainer.errors import ConfigError
from trainer.training.distributed.host_shard import HostShard, order_key

KEYS = st.integers(0, 2**64 - 1)
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)
SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=12)


def checked(max_examples):
    """Returns the settings of a property: always the same examples, and no files."""
    return settings(max_examples=max_examples, derandomize=True, deadline=None, database=None)


@st.composite
def epochs(draw):
    """Draws the number of images, the replica batch size and the number of replicas; at least one batch per epoch."""
    num_replicas, replica_batch_size = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    global_batch_size = num_replicas * replica_batch_size
    return draw(st.integers(global_batch_size, global_batch_size + 60)), replica_batch_size, num_replicas


def steps(start, stop):
    return [tf.constant(step, tf.int64) for step in range(start, stop)]


def batch(key, step, replica_batch_size, num_replicas, indices):
    """Returns the indices of a global batch, replica after replica."""
    slices = [BatchSlice(key, step, replica, replica_batch_size, num_replicas) for replica in range(num_replicas)]
    return np.concatenate([indices(batch_slice).numpy() for batch_slice in slices])


@checked(60)
@given(key=KEYS, epoch=st.integers(0, 2**20), num_examples=st.integers(1, 300))
def test_an_epoch_is_a_permutation_of_all_examples(key, epoch, num_examples):
    indices = BatchSlice(key, tf.constant(epoch, tf.int64), 0, num_examples, 1).indices(num_examples)
    assert indices.dtype == tf.int32 and sorted(indices.numpy()) == list(range(num_examples))


@checked(25)
@given(key=KEYS, epoch=st.integers(0, 1000), shape=epochs())
def test_no_example_is_repeated_in_an_epoch_of_batches(key, epoch, shape):
    num_examples, replica_batch_size, num_replicas = shape
    num_steps = num_examples // (replica_batch_size * num_replicas)
    taken = np.concatenate(
        [
            batch(key, step, replica_batch_size, num_replicas, lambda batch_slice: batch_slice.indices(num_examples))
            for step in steps(epoch * num_steps, (epoch + 1) * num_steps)
        ]
    )
    assert len(set(taken)) == len(taken) == num_steps * replica_batch_size * num_replicas
    assert taken.min() >= 0 and taken.max() < num_examples


@checked(25)
@given(key=KEYS, step=st.integers(0, 10**6), shape=epochs())
def test_a_batch_is_the_same_for_any_number_of_replicas(key, step, shape):
    num_examples, replica_batch_size, num_replicas = shape
    step = tf.constant(step, tf.int64)
    whole = BatchSlice(key, step, 0, replica_batch_size * num_replicas, 1).indices(num_examples).numpy()
    parts = batch(key, step, replica_batch_size, num_replicas, lambda batch_slice: batch_slice.indices(num_examples))
    np.testing.assert_array_equal(whole, parts)


@checked(40)
@given(key=KEYS, num_examples=st.integers(40, 300), epoch=st.integers(0, 1000))
def test_two_epochs_have_different_orders(key, num_examples, epoch):
    first, second = (
        BatchSlice(key, step, 0, num_examples, 1).indices(num_examples).numpy() for step in steps(epoch, epoch + 2)
    )
    assert (first != second).any()


@checked(40)
@given(key=KEYS, number=st.integers(0, 10**6), size=st.integers(1, 200), first_step=st.integers(0, 10**9))
def test_a_visit_shows_each_image_once_before_it_repeats(key, number, size, first_step):
    visit = tf.constant([number, first_step, size], tf.int64)
    taken = BatchSlice(key, tf.constant(first_step, tf.int64), 0, 2 * size, 1).indices_of_chunk(visit).numpy()
    assert sorted(taken[:size]) == sorted(taken[size:]) == list(range(size))


@checked(25)
@given(key=KEYS, number=st.integers(0, 10**6), shape=epochs(), num_steps=st.integers(1, 4))
def test_the_replicas_of_a_visit_take_disjoint_images(key, number, shape, num_steps):
    size, replica_batch_size, num_replicas = shape
    num_steps = min(num_steps, size // (replica_batch_size * num_replicas))
    visit, first_step = tf.constant([number, 7, size], tf.int64), 7
    taken = np.concatenate(
        [
            batch(key, step, replica_batch_size, num_replicas, lambda batch_slice: batch_slice.indices_of_chunk(visit))
            for step in steps(first_step, first_step + num_steps)
        ]
    )
    assert len(set(taken)) == len(taken) == num_steps * replica_batch_size * num_replicas


def machine(task, num_machines, replicas_each, has_chief):
    """Returns a stand-in for the strategy of one machine of a cluster."""
    jobs = ["chief", "worker"] if has_chief else ["worker"]
    is_chief = has_chief and task == 0
    resolver = types.SimpleNamespace(
        task_type="chief" if is_chief else "worker",
        task_id=task - (has_chief and not is_chief),
        cluster_spec=lambda: types.SimpleNamespace(jobs=jobs),
    )
    return types.SimpleNamespace(
        num_replicas_in_sync=num_machines * replicas_each,
        extended=types.SimpleNamespace(worker_devices=("CPU:0",) * replicas_each),
        cluster_resolver=resolver,
    )


@checked(8)
@given(
    seed=st.integers(0, 2**31 - 1),
    num_machines=st.integers(1, 3),
    replicas_each=st.integers(1, 2),
    replica_batch_size=st.integers(1, 4),
    num_steps=st.integers(1, 3),
    spare=st.integers(0, 5),
    has_chief=st.booleans(),
)
def test_host_shards_are_disjoint_and_cover_a_visit(
    seed, num_machines, replicas_each, replica_batch_size, num_steps, spare, has_chief
):
    global_batch_size = num_machines * replicas_each * replica_batch_size
    visit = ChunkVisit(number=3, first_step=11, size=num_steps * global_batch_size + spare)
    host_shards = [
        HostShard(machine(task, num_machines, replicas_each, has_chief), num_steps, global_batch_size, seed, repeats=1)
        for task in range(num_machines)
    ]
    positions = [host_shard(visit) for host_shard in host_shards]
    assert all(len(taken) == host_shard.max_examples for taken, host_shard in zip(positions, host_shards, strict=True))
    assert len(set(np.concatenate(positions))) == num_steps * global_batch_size
    visit_tensor = tf.constant([visit.number, visit.first_step, visit.size], tf.int64)
    whole = [
        BatchSlice(order_key(seed, 0), step, 0, global_batch_size, 1).indices_of_chunk(visit_tensor).numpy()
        for step in steps(visit.first_step, visit.first_step + num_steps)
    ]
    assert set(np.concatenate(positions)) == set(np.concatenate(whole))


@checked(8)
@given(seed=st.integers(0, 2**31 - 1), num_machines=st.integers(1, 3), size=st.integers(1, 30))
def test_host_shards_that_repeat_a_chunk_cover_every_image(seed, num_machines, size):
    batch_size = 2 * num_machines
    num_steps = math.ceil(size / batch_size)
    visit = ChunkVisit(number=0, first_step=0, size=size)
    host_shards = [
        HostShard(machine(task, num_machines, 1, True), num_steps, batch_size, seed, repeats=1)(visit)
        for task in range(num_machines)
    ]
    assert set(np.concatenate(host_shards)) == set(range(size))


@checked(200)
@given(labels=LABELS)
def test_balancing_shows_each_class_equally_often(labels):
    order = balanced_order(labels)
    counts = np.bincount(labels)
    shown = np.bincount(labels[order], minlength=len(counts))
    assert set(shown[counts > 0]) == {counts.max()} and not shown[counts == 0].any()
    assert order.dtype == np.int32 and len(order) == balanced_size(counts)


@checked(200)
@given(labels=LABELS)
def test_balancing_uses_the_images_of_a_class_evenly(labels):
    uses = np.bincount(balanced_order(labels), minlength=len(labels))
    for label in set(labels.tolist()):
        of_class = uses[labels == label]
        assert of_class.min() >= 1 and of_class.max() - of_class.min() <= 1


def shards_of(sizes):
    return tuple(
        Shard(file=str(index), num_examples=size, num_bytes=size, sha256=f"{index:064}", crc32c="")
        for index, size in enumerate(sizes)
    )


@st.composite
def schedules(draw):
    """Draws a schedule with at most as many chunks as shards."""
    sizes = draw(SIZES)
    return ChunkSchedule(shards_of(sizes), draw(st.integers(1, len(sizes))), draw(st.integers(0, 2**31 - 1)))


@checked(150)
@given(schedule=schedules(), epoch=st.integers(0, 1000))
def test_an_epoch_visits_each_shard_once_in_chunks_of_similar_size(schedule, epoch):
    visits = range(epoch * schedule.num_chunks, (epoch + 1) * schedule.num_chunks)
    chunks = [schedule.shards_of(visit) for visit in visits]
    assert sorted(shard.file for chunk in chunks for shard in chunk) == sorted(shard.file for shard in schedule.shards)
    lengths = [len(chunk) for chunk in chunks]
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= 1


@checked(150)
@given(schedule=schedules(), epoch=st.integers(0, 1000))
def test_no_chunk_is_larger_than_max_chunk_size(schedule, epoch):
    sizes = sorted((shard.num_examples for shard in schedule.shards), reverse=True)
    assert schedule.max_chunk_size == sum(sizes[: math.ceil(len(sizes) / schedule.num_chunks)])
    for visit in range(epoch * schedule.num_chunks, (epoch + 1) * schedule.num_chunks):
        assert sum(shard.num_examples for shard in schedule.shards_of(visit)) <= schedule.max_chunk_size


@checked(150)
@given(schedule=schedules(), visit=st.integers(0, 1000))
def test_the_chunk_of_a_visit_depends_on_the_seed_only(schedule, visit):
    assert ChunkSchedule(schedule.shards, schedule.num_chunks, schedule.seed).shards_of(visit) == schedule.shards_of(
        visit
    )


@checked(150)
@given(sizes=SIZES, images=st.floats(0.5, 400), padding=st.integers(0, 2))
def test_the_number_of_chunks_is_the_smallest_of_which_two_fit(sizes, images, padding):
    shards = shards_of(sizes)
    spec = types.SimpleNamespace(name="set", array_shape=(4, 6, 3), num_examples=sum(sizes), shards=shards)
    count = functools.partial(choose_num_chunks, spec, images * (4 + 2 * padding) * (6 + 2 * padding) * 3 / 2**20)

    def fit(chunks):
        return (sum(sizes) if chunks == 1 else 2 * ChunkSchedule(shards, chunks, 0).max_chunk_size) <= images

    allowed = [chunks for chunks in range(1, len(sizes) + 1) if fit(chunks)]
    if allowed:
        assert count(padding) == allowed[0]
    else:
        with pytest.raises(ConfigError):
            count(padding)
