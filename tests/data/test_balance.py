"""Balanced classes are shown equally often, and horizontal flips mirror images left to right."""

import collections
import dataclasses
from contextlib import closing

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_gan, tiny_model, values_of
from refusals import check_refusal

from trainer import GAN
from trainer.data import num_examples
from trainer.data.pipeline.balance import balanced_order, balanced_size
from trainer.data.pipeline.batching import BatchSlice, Chunk, flip_horizontally
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset, StreamingLoader
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import DataError
from trainer.models.step_plan import step_plan
from trainer.storage import locate
from trainer.training.distributed.host_shard import order_key
from trainer.training.step import TrainStep

LABELS = np.array([3] * 17 + [0] * 4 + [2] * 9, np.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(30)


def slice_of(step, batch=6, replica=0, replicas=1):
    return BatchSlice(1, tf.constant(step, tf.int64), replica, batch // replicas, replicas)


def test_each_class_has_equal_positions_and_uses_its_images_evenly():
    order = balanced_order(LABELS)
    assert len(order) == balanced_size(np.bincount(LABELS)) == 51
    assert np.bincount(LABELS[order]).tolist() == [17, 0, 17, 17]
    uses = np.bincount(order, minlength=30)
    assert set(uses[:17]) == {1} and set(uses[17:21]) == {4, 5} and set(uses[21:]) == {1, 2}


def test_an_epoch_shows_every_class_equally_often():
    chunk = Chunk(IMAGES, LABELS, (0.0, 255.0), order=balanced_order(LABELS))
    tensors = chunk.tensors()
    taken = [chunk.batch(tensors, slice_of(step, 3)) for step in range(17)]
    labels = np.concatenate([labels for _, labels in taken])
    numbers = np.concatenate([images[:, 0, 0, 0] for images, _ in taken]).astype(int)
    assert np.bincount(labels).tolist() == [17, 0, 17, 17] and (LABELS[numbers] == labels).all()


@pytest.fixture
def stream(tmp_path):
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    shuffled = np.random.default_rng(1).permutation(30)
    write_prepared(tmp_path, IMAGES[shuffled], LABELS[shuffled], list("0123"), num_shards=5, **texts)
    files = ShardCache(locate(tmp_path))
    return StreamedDataset(files, ChunkSchedule(files.spec.shards, 2, 0))


def balanced_loader(stream):
    return StreamingLoader(stream, lambda images, labels: Chunk(images, labels, (0.0, 255.0)), 6, balance_classes=True)


def test_a_chunk_shows_its_classes_equally_often(stream):
    with closing(balanced_loader(stream)) as loader:
        assert loader.steps_per_epoch == 2 * loader.every_steps == 8
        for first in (0, 4):
            chunk = loader.chunk(first)
            size = chunk.visit.size
            labels = [chunk.batch(chunk.tensors(), slice_of(first + step, 1))[1].numpy()[0] for step in range(size)]
            counts = collections.Counter(labels)
            assert len(set(counts.values())) == 1 and len(counts) > 1
            assert len(chunk.order) == 17 * 3  # the largest class, for each class that has images


def test_an_order_is_no_longer_than_the_largest_chunk_needs(tmp_path):
    labels = np.repeat(np.arange(50), 2)  # 50 classes of 2 images, and 10 names without any
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    write_prepared(tmp_path, IMAGES[:1].repeat(100, 0), labels, [str(n) for n in range(60)], num_shards=10, **texts)
    files = ShardCache(locate(tmp_path))
    for chunks, most in ((2, 2 * 50), (10, 2 * 50), (1, 2 * 50)):
        with closing(balanced_loader(StreamedDataset(files, ChunkSchedule(files.spec.shards, chunks, 0)))) as loader:
            orders = [loader.chunk(visit * loader.every_steps).order for visit in range(2 * chunks)]
            assert {len(order) for order in orders} == {most}
    with closing(
        balanced_loader(StreamedDataset(files, ChunkSchedule(files.spec.shards, 10, 0), classes=(3, 4)))
    ) as loader:
        assert loader._max_order_length == 2 * 2


def test_the_padding_of_an_order_is_never_read(stream, monkeypatch):
    def train():
        gan = tiny_gan(model="conditional")
        gan.fit(stream, batch_size=6, steps=10, verbose=0, balance_classes=True)
        return values_of(gan)

    plain = train()
    monkeypatch.setattr(
        StreamingLoader,
        "_pad_order",
        lambda self, order: np.pad(order, (0, 18 * 4 - len(order)), constant_values=10**6),
    )
    padded_otherwise = train()
    assert all((plain[name] == padded_otherwise[name]).all() for name in plain)


def test_a_dataset_with_more_images_than_it_states_is_refused(stream):
    spec = stream.files.spec
    stream.files.spec = dataclasses.replace(spec, class_counts=(3, 3, 3, 0))
    with closing(balanced_loader(stream)) as loader:
        check_refusal(lambda: loader.chunk(0), DataError, "dataset.json", "[3, 3, 3, 0]")


def test_balanced_classes_lengthen_epochs_and_resume_bit_exactly(digits):
    config = tiny_config(balance_classes=True, classes=(1, 2))
    assert num_examples(config) == 2 * max(digits.info.class_counts[1:3])

    def train(*stops):
        gan = tiny_gan(model="conditional")
        for steps in stops:
            gan.fit(IMAGES, LABELS, batch_size=6, steps=steps, verbose=0, balance_classes=True, horizontal_flips=True)
        return values_of(gan)

    whole, resumed = train(12), train(5, 12)
    assert all((whole[name] == resumed[name]).all() for name in whole)


@pytest.mark.parametrize("model", ["gan", "cyclegan"])
def test_half_of_the_images_are_flipped_for_any_number_of_replicas(model, two_replicas):
    gan = tiny_model(model)
    images = IMAGES[:, :12, :12]
    chunk = gan.make_chunk(images, 255 - images if model == "cyclegan" else None)
    plan = step_plan(gan, 16, horizontal_flips=True)
    tensors = chunk.tensors()

    def seen(step, replica, strategy):
        batch, targets = TrainStep(plan, chunk.template, strategy)._draw_batch(
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
        for shown, unflipped in zip(whole, (array for array in plain if array is not None), strict=True):
            unflipped = unflipped.numpy()
            same = (shown == unflipped).all(axis=(1, 2, 3))
            flipped = (shown == unflipped[:, :, ::-1]).all(axis=(1, 2, 3))
            assert (same | flipped).all()
            count += flipped.sum()
    assert 0.35 < count / (8 * 16 * len(whole)) < 0.65


@pytest.mark.parametrize("images", [IMAGES[:2], IMAGES[:2, ..., 0]], ids=["channels", "no channels"])
def test_flip_horizontally_flips_the_selected_images(images):
    shown = flip_horizontally(tf.constant(images, tf.float32), tf.constant([0, 1])).numpy()
    np.testing.assert_array_equal(shown[0], images[0])
    np.testing.assert_array_equal(shown[1], images[1][:, ::-1])


@pytest.mark.parametrize(("shape", "takes_flips"), [((64,), False), ((8, 8), True), ((2, 4, 8, 1), False)])
def test_only_images_with_height_and_width_are_flipped(shape, takes_flips):
    factories = {
        "generator": lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(64), keras.layers.Reshape(shape)]),
        "discriminator": lambda: keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)]),
    }
    gan = GAN(2, networks=factories)
    gan.compile(optimizer="adam", jit_compile=False)
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)

    def fit():
        gan.fit(images, batch_size=4, steps=1, verbose=0, horizontal_flips=True)

    if takes_flips:
        fit()
        assert gan.step == 1
    else:
        check_refusal(fit, DataError, str(shape[0]), "horizontal_flips")
