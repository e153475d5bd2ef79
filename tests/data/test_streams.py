"""Streaming of a dataset larger than memory: a fixed schedule, every image, and exact resume within a chunk."""

import collections
import ctypes
import gc
import itertools
import json
import os
import signal
import sys
import types
from contextlib import closing
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config, tiny_gan, values_of
from refusals import check_command_refusal, check_refusal

from trainer import task
from trainer.data import default_num_chunks, tfrecord_reader
from trainer.data.dataset_spec import Shard
from trainer.data.pipeline.batching import BatchSlice, Chunk
from trainer.data.pipeline.chunk_schedule import ChunkSchedule, choose_num_chunks
from trainer.data.pipeline.loaders import InMemoryLoader, StreamedDataset, StreamingLoader
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_writer import write_prepared
from trainer.environment import Environment
from trainer.errors import ConfigError
from trainer.storage import locate
from trainer.training.complete_config import with_machine_settings
from trainer.training.distributed.host_shard import HostShard, order_key

SIZES = (7, 7, 7, 7, 7, 5)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(40)


def shards(sizes=SIZES):
    return tuple(
        Shard(file=str(i), num_examples=n, num_bytes=n, sha256=f"{i:064}", crc32c="") for i, n in enumerate(sizes)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    texts = {"name": "set", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, IMAGES, np.arange(40) % 10, [str(label) for label in range(10)], num_shards=6, **texts)
    return ShardCache(locate(folder))


def stream_of(files, chunks=3, seed=0, **settings):
    return StreamedDataset(files, ChunkSchedule(files.spec.shards, chunks, seed), **settings)


def test_every_epoch_has_every_shard_once_in_its_own_order():
    schedule = ChunkSchedule(shards(), 4, seed=3)
    epochs = [
        [shard.file for visit in range(4 * epoch, 4 * epoch + 4) for shard in schedule.shards_of(visit)]
        for epoch in range(5)
    ]
    assert all(sorted(epoch) == list("012345") for epoch in epochs) and len({*map(tuple, epochs)}) > 3
    assert epochs[1] == [
        shard.file for visit in range(4, 8) for shard in ChunkSchedule(shards(), 4, seed=3).shards_of(visit)
    ]
    assert epochs[0] != [
        shard.file for visit in range(4) for shard in ChunkSchedule(shards(), 4, seed=4).shards_of(visit)
    ]
    assert (
        schedule.max_chunk_size == 14
        and ChunkSchedule(shards(), 6, 0).max_chunk_size == 7
        and ChunkSchedule(shards(), 1, 0).max_chunk_size == 40
    )


def test_two_chunks_fit_into_memory():
    spec = types.SimpleNamespace(name="set", array_shape=(64, 64, 4), num_examples=40, shards=shards())
    images_that_fit = {40: 1, 39: 3, 28: 3, 27: 6, 14: 6}
    for images, chunks in images_that_fit.items():
        assert choose_num_chunks(spec, images * 64 * 64 * 4 / 2**20) == chunks
    assert choose_num_chunks(spec, 39 * 66 * 66 * 4 / 2**20, padding=1) == 3
    assert choose_num_chunks(spec, 28 * 66 * 66 * 4 / 2**20 - 0.001, padding=1) == 6
    check_refusal(
        lambda: choose_num_chunks(spec, 0.2), ConfigError, "data_memory_mib=0.2", "set", "0.1 MiB", "--shard_mib"
    )


def test_a_visit_takes_every_image_once_before_it_repeats():
    visit = tf.constant([5, 30, 20], tf.int64)
    slices = [BatchSlice(7, tf.constant(step, tf.int64), 0, 4, 1) for step in range(30, 40)]
    taken = [index for batch_slice in slices for index in batch_slice.indices_of_chunk(visit).numpy().tolist()]
    assert sorted(taken[:20]) == list(range(20)) and sorted(taken[20:]) == list(range(20)) and taken[:20] != taken[20:]
    parts = [
        BatchSlice(7, tf.constant(30, tf.int64), replica, 2, 2).indices_of_chunk(visit).numpy() for replica in range(2)
    ]
    assert np.concatenate(parts).tolist() == taken[:4]


def test_a_stream_shows_the_images_with_their_labels(files):
    seen = collections.Counter()
    with closing(
        StreamingLoader(stream_of(files), lambda images, labels: Chunk(images, labels, (0.0, 255.0)), 4)
    ) as loader:
        assert (loader.steps_per_epoch, loader.every_steps) == (9, 3)
        for step in range(2 * loader.steps_per_epoch):
            if step % loader.every_steps == 0:
                chunk = loader.chunk(step)
                tensors = chunk.tensors()
            images, labels = chunk.batch(tensors, BatchSlice(1, tf.constant(step, tf.int64), 0, 4, 1))
            numbers = images.numpy()[:, 0, 0, 0].astype(int)
            assert (labels.numpy() == numbers % 10).all()
            seen.update(numbers.tolist())
    assert len(seen) > 36 and max(seen.values()) <= 4


def test_a_chunk_has_the_selected_classes_and_padding(files):
    stream = stream_of(files, classes=(1, 2), padding=2)
    assert (stream.num_examples, stream.image_shape) == (8, (32, 32, 1))
    loaded = [stream.load(visit) for visit in range(3)]
    numbers = sorted(int(image[2, 2, 0]) for images, _, size in loaded for image in images[:size])
    assert numbers == [1, 2, 11, 12, 21, 22, 31, 32]
    assert all((images[:, :2] == 0).all() and images.shape == (14, 32, 32, 1) for images, _, _ in loaded)


def test_few_images_are_decoded_at_a_time(files, monkeypatch):
    monkeypatch.setattr(tfrecord_reader, "_BATCH_BYTES", 3 * 28 * 28 + 1)
    batches = list(tfrecord_reader.read_shards(files, files.spec.shards))
    assert {len(images) for images, _ in batches} == {1, 3} and len(batches) == 16
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), IMAGES)
    monkeypatch.setattr(tfrecord_reader, "_BATCH_BYTES", 1)
    assert all(len(labels) == 1 for _, labels in tfrecord_reader.read_shards(files, files.spec.shards))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and needs glibc")
def test_memory_does_not_grow_with_the_number_of_loaded_chunks(files):
    trim_heap, stream = ctypes.CDLL("libc.so.6").malloc_trim, stream_of(files)

    def resident_kib(visits):
        for visit in visits:
            stream.load(visit)
        gc.collect()
        trim_heap(0)
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024

    before = resident_kib(range(150))
    assert resident_kib(range(150, 500)) - before < 600


def host_shard_of(role, index, repeats=2):
    """Returns the host shard of a chief or one of two workers."""
    strategy = types.SimpleNamespace(
        num_replicas_in_sync=3,
        extended=types.SimpleNamespace(worker_devices=("CPU:0",)),
        cluster_resolver=types.SimpleNamespace(
            task_id=index, task_type=role, cluster_spec=lambda: types.SimpleNamespace(jobs=["chief", "worker"])
        ),
    )
    return lambda num_steps: HostShard(strategy, num_steps, 6, seed=5, repeats=repeats)


@pytest.mark.parametrize("settings", [{}, {"balance_classes": True}, {"classes": (1, 2, 3)}])
@pytest.mark.parametrize(("role", "index", "replica"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_a_machine_loads_only_the_images_of_its_replicas(files, settings, role, index, replica):
    classes, balance = settings.get("classes"), settings.get("balance_classes", False)
    stream = stream_of(files, chunks=2, classes=classes)
    make = lambda images, labels: Chunk(images, labels, (0.0, 255.0))  # noqa: E731
    with (
        closing(StreamingLoader(stream, make, 6, balance)) as whole,
        closing(StreamingLoader(stream, make, 6, balance, host_shard_of(role, index))) as part,
    ):
        assert part.every_steps == whole.every_steps
        for step in range(2 * whole.steps_per_epoch):
            if step % whole.every_steps == 0:
                chunks = whole.chunk(step), part.chunk(step)
                tensors = [chunk.tensors() for chunk in chunks]
            for repeat in range(2):
                batch_slice = BatchSlice(order_key(5, repeat), tf.constant(step, tf.int64), replica, 2, 3)
                (images, labels), (part_images, part_labels) = (
                    chunk.batch(content, batch_slice) for chunk, content in zip(chunks, tensors, strict=True)
                )
                np.testing.assert_array_equal(images, part_images)
                np.testing.assert_array_equal(labels, part_labels)
        assert len(chunks[1].images) <= min(stream.schedule.max_chunk_size, 2 * 2 * whole.every_steps)


def train_gan(files, *stops, **settings):
    gan = tiny_gan("mlp", **settings)
    for steps in stops:
        gan.fit(stream_of(files), batch_size=4, steps=steps, verbose=0)
    return values_of(gan)


def test_a_stop_in_the_middle_of_a_chunk_changes_nothing(files):
    whole = train_gan(files, 20)
    for stops in ((7, 20), (9, 20), (1, 2, 20)):
        again = train_gan(files, *stops)
        assert all((whole[name] == again[name]).all() for name in whole)


@pytest.fixture
def reading(monkeypatch):
    """Functions to call before a shard is read, by the number of shards read before."""
    actions, count = {}, itertools.count()

    def read(self, shard, plain=ShardCache.read):
        content = plain(self, shard)
        actions.get(next(count), lambda: None)()
        return content

    monkeypatch.setattr(ShardCache, "read", read)
    return types.SimpleNamespace(actions=actions, count=lambda: next(count))


def test_closing_a_loader_ends_loading_after_the_current_shard(files, reading, monkeypatch):
    loader = StreamingLoader(stream_of(files), lambda images, labels: Chunk(images, labels, (0.0, 1.0)), 4)
    begun, awaited, plain = Event(), Event(), loader._thread.shutdown
    monkeypatch.setattr(loader._thread, "shutdown", lambda **how: (awaited.set(), plain(**how)))
    reading.actions[2] = lambda: (begun.set(), awaited.wait(20))
    loader.chunk(0)
    assert begun.wait(20)
    loader.close()
    assert reading.count() == 3  # two of the first chunk and one of the second


def test_no_chunk_is_loaded_after_the_last_step(files, reading):
    train_gan(files, 5)  # three steps of the first chunk and two of the second
    assert reading.count() == 4


def test_sigterm_does_not_wait_for_a_loading_chunk(files, reading, monkeypatch):
    gan, requested, loaders = tiny_gan("mlp"), Event(), []

    def chunk(self, step, num_steps, plain=StreamingLoader.chunk):
        if step == 3:
            loaders.append(self)
            requested.set()
        return plain(self, step, num_steps)

    def terminate():
        requested.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)
        loaders[0]._cancelled.wait(20)

    monkeypatch.setattr(StreamingLoader, "chunk", chunk)
    reading.actions[2] = terminate
    gan.fit(stream_of(files), batch_size=4, steps=20, verbose=0, handle_sigterm=True)
    assert gan.step == 3 and gan.preempted and reading.count() == 3
    gan.fit(stream_of(files), batch_size=4, steps=20, verbose=0)
    whole, again = train_gan(files, 20), values_of(gan)
    assert all((whole[name] == again[name]).all() for name in whole)


def test_a_dataset_in_memory_is_one_chunk(files):
    with closing(InMemoryLoader(Chunk(IMAGES, None, (0.0, 1.0)), 4)) as loader:
        assert (loader.steps_per_epoch, loader.every_steps) == (10, 0) and loader.chunk(3) is loader.chunk(100)


def test_epochs_of_a_stream_are_in_the_history(files):
    gan = tiny_gan("mlp", model="conditional")
    history = gan.fit(stream_of(files), batch_size=4, epochs=2, verbose=0)
    assert gan.step == 18 and len(history.history["loss/generator"]) == 2


def arguments(files, job_dir, *flags):
    tiny = '--architecture_options={"generator_units": [16], "discriminator_units": [16], "dropout": 0.3}'
    common = ["--recipe=vanilla", tiny, "--global_batch_size=4", "--metrics=none", "--jit_compile=off"]
    return ["task", *common, f"--dataset={files._folder}", f"--job_dir={job_dir}", *flags]


def train(*parts):
    return task.main(arguments(*parts))


def state_of(job_dir, step):
    return json.loads((job_dir / f"checkpoints/step-{step:08d}/MANIFEST.json").read_text())["state_sha256"]


@pytest.mark.slow
def test_a_run_keeps_its_chunks_on_a_machine_with_other_memory(files, tmp_path, capsys):
    small = f"--data_memory_mib={28 * 28 * 28 / 2**20}"
    assert train(files, tmp_path / "whole", "--steps=20", small) == 0
    output = capsys.readouterr().out
    assert all(fact in output for fact in ("40", "28x28x1", "3 "))
    assert train(files, tmp_path / "cut", "--steps=7", small) == 0
    assert train(files, tmp_path / "cut", "--steps=20", "--data_memory_mib=100") == 0
    assert state_of(tmp_path / "cut", 20) == state_of(tmp_path / "whole", 20)
    assert json.loads((tmp_path / "cut/config.json").read_text())["num_chunks"] == 3
    argv = arguments(files, tmp_path / "cut", "--steps=30", "--num_chunks=2")
    check_command_refusal(task.main, argv, capsys, 1, "num_chunks=3", "num_chunks=2")


@pytest.mark.parametrize(
    ("memory_mib", "stored", "expected"), [(None, 1, 1), (100, 3, 3), (0.021, 1, 3), (0.021, 9, 9)]
)
def test_a_resumed_run_has_more_chunks_than_it_has_stored_only_if_its_memory_needs_them(
    files, memory_mib, stored, expected
):
    config = tiny_config(dataset=str(files._folder), data_memory_mib=memory_mib)
    assert with_machine_settings(config, Environment(), config.override(num_chunks=stored)).num_chunks == expected


def test_too_little_memory_for_the_chunks_of_a_run_is_refused(files, tmp_path, capsys):
    assert train(files, tmp_path / "run", "--steps=1", "--noexport_model") == 0
    argv = arguments(files, tmp_path / "run", "--steps=2", "--noexport_model", "--data_memory_mib=0.021")
    check_command_refusal(task.main, argv, capsys, 1, "num_chunks=1", "num_chunks=3", "data_memory_mib=0.021")
    assert task.main([*argv, "--allow_config_change"]) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["num_chunks"] == 3


def test_padding_counts_as_memory(files):
    config = tiny_config(dataset=str(files._folder), data_memory_mib=28 * 28 * 28 / 2**20)
    assert default_num_chunks(config) == 3 and default_num_chunks(config.override(padding=2)) == 6
