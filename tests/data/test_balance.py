"""Classes of any size come equally often, and mirrored images are the images, mirrored."""

import collections
import dataclasses
from contextlib import closing

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_gan, tiny_wiring, values_of
from refusals import check_refusal

from trainer.data import num_examples
from trainer.data.pipeline.balance import balanced_order, balanced_size
from trainer.data.pipeline.batching import BatchSlice, Chunk, mirrored
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset, StreamingLoader
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import write_prepared
from trainer.errors import DataError
from trainer.models.step_plan import step_plan
from trainer.storage import locate
from trainer.training.distributed.host_shard import order_key
from trainer.training.step import TrainStep

LABELS = np.array([3] * 17 + [0] * 4 + [2] * 9, np.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(30)


def place(step, batch=6, replica=0, replicas=1):
    return BatchSlice(1, tf.constant(step, tf.int64), replica, batch // replicas, replicas)


def test_each_class_has_as_many_places_and_uses_its_images_evenly():
    order = balanced_order(LABELS)
    assert len(order) == balanced_size(np.bincount(LABELS)) == 51
    assert np.bincount(LABELS[order]).tolist() == [17, 0, 17, 17]
    uses = np.bincount(order, minlength=30)
    assert set(uses[:17]) == {1} and set(uses[17:21]) == {4, 5} and set(uses[21:]) == {1, 2}


def test_an_epoch_shows_every_class_as_often():
    chunk = Chunk(IMAGES, LABELS, (0.0, 255.0), order=balanced_order(LABELS))
    tensors = chunk.tensors()
    taken = [chunk.batch(tensors, place(step, 3)) for step in range(17)]
    labels = np.concatenate([labels for _, labels in taken])
    numbers = np.concatenate([images[:, 0, 0, 0] for images, _ in taken]).astype(int)
    assert np.bincount(labels).tolist() == [17, 0, 17, 17] and (LABELS[numbers] == labels).all()


@pytest.fixture
def stream(tmp_path):
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    shuffled = np.random.default_rng(1).permutation(30)
    write_prepared(tmp_path, IMAGES[shuffled], LABELS[shuffled], list("0123"), num_shards=5, **texts)
    files = ShardCache(locate(tmp_path))
    return StreamedDataset(files, ChunkSchedule(files.manifest.shards, 2, 0))


def balanced_feed(stream):
    return StreamingLoader(stream, lambda images, labels: Chunk(images, labels, (0.0, 255.0)), 6, balance_classes=True)


def test_a_visited_window_shows_its_classes_as_often(stream):
    with closing(balanced_feed(stream)) as loader:
        assert loader.steps_per_epoch == 2 * loader.every_steps == 8
        for first in (0, 4):
            chunk = loader.chunk(first)
            size = chunk.visit.size
            labels = [chunk.batch(chunk.tensors(), place(first + step, 1))[1].numpy()[0] for step in range(size)]
            counts = collections.Counter(labels)
            assert len(set(counts.values())) == 1 and len(counts) > 1
            assert len(chunk.order) == 17 * 3  # the largest class, for each class that has images


def test_the_order_takes_no_room_for_more_than_a_window_can_hold(tmp_path):
    labels = np.repeat(np.arange(50), 2)  # 50 classes of 2 images, and 10 names without any
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path, IMAGES[:1].repeat(100, 0), labels, [str(n) for n in range(60)], num_shards=10, **texts)
    files = ShardCache(locate(tmp_path))
    for chunks, most in ((2, 2 * 50), (10, 2 * 50), (1, 2 * 50)):
        with closing(balanced_feed(StreamedDataset(files, ChunkSchedule(files.manifest.shards, chunks, 0)))) as loader:
            orders = [loader.chunk(visit * loader.every_steps).order for visit in range(2 * chunks)]
            assert {len(order) for order in orders} == {most}
    with closing(
        balanced_feed(StreamedDataset(files, ChunkSchedule(files.manifest.shards, 10, 0), classes=(3, 4)))
    ) as loader:
        assert loader._most_places == 2 * 2


def test_what_an_order_is_padded_with_is_never_read(stream, monkeypatch):
    def trained():
        gan = tiny_gan(model="conditional")
        gan.fit(stream, batch_size=6, steps=10, verbose=0, balance_classes=True)
        return values_of(gan)

    plain = trained()
    monkeypatch.setattr(
        StreamingLoader, "_padded", lambda self, order: np.pad(order, (0, 18 * 4 - len(order)), constant_values=10**6)
    )
    padded_otherwise = trained()
    assert all((plain[name] == padded_otherwise[name]).all() for name in plain)


def test_a_set_with_more_images_than_it_states_is_refused(stream):
    manifest = stream.files.manifest
    stream.files.manifest = dataclasses.replace(manifest, class_counts=(3, 3, 3, 0))
    with closing(balanced_feed(stream)) as loader:
        check_refusal(lambda: loader.chunk(0), DataError, "dataset.json", "[3, 3, 3, 0]")


def test_balanced_classes_lengthen_epochs_and_resume_bit_exactly(digits):
    config = tiny_config(balance_classes=True, classes=(1, 2))
    assert num_examples(config) == 2 * max(digits.info.class_counts[1:3])

    def trained(*stops):
        gan = tiny_gan(model="conditional")
        for steps in stops:
            gan.fit(IMAGES, LABELS, batch_size=6, steps=steps, verbose=0, balance_classes=True, horizontal_flips=True)
        return values_of(gan)

    whole, cut = trained(12), trained(5, 12)
    assert all((whole[name] == cut[name]).all() for name in whole)


@pytest.mark.parametrize("model", ["gan", "cyclegan"])
def test_every_other_image_is_mirrored_whatever_the_replicas(model, two_replicas):
    gan = tiny_wiring(model)
    images = IMAGES[:, :12, :12]
    chunk = gan.make_chunk(images, 255 - images if model == "cyclegan" else None)
    plan = step_plan(gan, 16, horizontal_flips=True)
    tensors = chunk.tensors()

    def seen(step, replica, strategy):
        batch, targets = TrainStep(plan, chunk.outline, strategy)._draw_batch(
            tensors, tf.constant(step, tf.int64), tf.constant(replica), 0
        )
        return [array.numpy() for array in (batch, targets) if array is not None]

    count = 0
    for step in range(8):
        whole = seen(step, 0, tf.distribute.get_strategy())
        parts = [seen(step, replica, two_replicas) for replica in (0, 1)]
        for both, *halves in zip(whole, *parts, strict=True):
            np.testing.assert_array_equal(both, np.concatenate(halves))
        plain = chunk.batch(tensors, BatchSlice(order_key(plan.seed, 0), tf.constant(step, tf.int64), 0, 16, 1))
        for shown, as_they_are in zip(whole, (array for array in plain if array is not None), strict=True):
            as_they_are = as_they_are.numpy()
            same = (shown == as_they_are).all(axis=(1, 2, 3))
            turned = (shown == as_they_are[:, :, ::-1]).all(axis=(1, 2, 3))
            assert (same | turned).all()
            count += turned.sum()
    assert 0.35 < count / (8 * 16 * len(whole)) < 0.65


def test_mirrored_turns_the_chosen_left_to_right():
    images = tf.constant(IMAGES[:2], tf.float32)
    shown = mirrored(images, tf.constant([0, 1])).numpy()
    np.testing.assert_array_equal(shown[0], IMAGES[0])
    np.testing.assert_array_equal(shown[1], IMAGES[1][:, ::-1])
