"""A dataset that is replaced at any moment is read as it was, or refused: never a mixture, and never silently."""

import collections
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from bucket_runs import run, state_of, train

from trainer.data import tfrecord_reader
from trainer.data.loading import load, open_batches
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import TrainerError
from trainer.storage import locate
from trainer.storage.gcs import BucketLocation
from trainer.storage.local import LocalLocation

NUM_MOMENTS = 50
NUM_VISITS = 5
RANDOM = np.random.default_rng(0)
IMAGES, OTHER_IMAGES = RANDOM.integers(0, 256, (2, 24, 4, 4, 3), np.uint8)
LABELS = np.arange(24) % 2


def write(folder, images, **changes):
    """Writes a dataset of six shards."""
    texts = {"name": "set", "source": "", "license": "", "attribution": ""} | changes
    write_prepared(folder, images, LABELS[: len(images)], ["a", "b"], num_shards=6, **texts)


def contents(folder):
    """Returns the content of every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The files of a dataset, by name."""
    write(tmp_path_factory.mktemp("original"), IMAGES)
    return contents(tmp_path_factory.getbasetemp() / "original0")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The files of another dataset with the same names, by name."""
    write(tmp_path_factory.mktemp("other"), OTHER_IMAGES)
    return contents(tmp_path_factory.getbasetemp() / "other0")


@pytest.fixture
def moments(monkeypatch):
    """Counts the operations on files, and calls `action` before the operation with the number `at`."""
    state = types.SimpleNamespace(count=0, at=None, action=None)

    def tick():
        state.count += 1
        if state.count == state.at:
            state.action()

    def hook(owner, name):
        plain = getattr(owner, name)

        def hooked(*arguments, **settings):
            tick()
            return plain(*arguments, **settings)

        monkeypatch.setattr(owner, name, hooked)

    for name in ("is_file", "stat", "open", "read_bytes"):
        hook(Path, name)
    for owner, name in ((BucketLocation, "download"), (BucketLocation, "_blob"), (tfrecord_reader, "_check_labels")):
        hook(owner, name)
    return state


def damaged(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def replacements(files, other, rng):
    """Yields ways to replace some shards without end: the new content of files by name; None for a deletion."""
    shards = [name for name in files if name.endswith(".tfrecord")]
    while True:
        first, second = rng.choice(shards, 2, replace=False)
        yield {first: damaged(files[first])}
        yield {first: files[second], second: files[first]}
        yield {first: None}
        yield {first: files[first][:-7]}
        yield {first: files[first] + files[first]}
        yield {name: other[name] for name in shards}
        yield other
        yield {first: b""}


def apply_changes(folder, changes):
    for name, content in changes.items():
        if content is None:
            folder.delete([name])
        elif isinstance(folder, LocalLocation):
            folder.path.mkdir(exist_ok=True)
            (folder.path / name).write_bytes(content)  # into the same file, which may be open
        else:
            (folder / name).write_bytes(content)


def visits(stream):
    """Yields what a run reads of a stream, visit by visit: all examples, or those of one of several machines."""
    for visit in range(NUM_VISITS):
        if visit % 2:
            images, labels = stream.load_examples(visit, 8, lambda all_labels: np.arange(0, len(all_labels), 3))
        else:
            images, labels, _ = stream.load(visit)
        yield images.tobytes() + labels.tobytes()


def check_refusal_line(error):
    assert str(error).strip() and "\n" not in str(error)


@pytest.mark.parametrize("where", ["local", "cached", "bucket"])
def test_a_stream_replaced_at_any_moment_is_refused_or_read_as_it_was(
    where, original, other, moments, tmp_path, request
):
    folder = locate(request.getfixturevalue("bucket") if where != "local" else tmp_path / "set")
    cache, cache_mib = tmp_path / "cache", 0 if where == "bucket" else 10
    rng, outcomes, num_operations = np.random.default_rng(3), collections.Counter(), 0
    ways = replacements(original, other, rng)
    present = {}
    for _ in range(1 + NUM_MOMENTS):
        apply_changes(folder, {name: content for name, content in original.items() if present.get(name) != content})
        present = dict(original)
        shutil.rmtree(cache, ignore_errors=True)
        files = ShardCache(folder, cache, cache_mib)
        changes, target = next(ways), folder
        if where == "cached":
            hashes = {shard.file: f"{shard.sha256}.tfrecord" for shard in files.spec.shards}
            changes = {hashes[name]: content for name, content in changes.items() if name in hashes}
            target = LocalLocation(cache)
        else:
            present |= changes
        moments.count, moments.action = 0, lambda target=target, changes=changes: apply_changes(target, changes)
        moments.at = rng.integers(1, num_operations) if num_operations else None
        stream = StreamedDataset(files, ChunkSchedule(files.spec.shards, 3, seed=0))
        received = []
        try:
            received.extend(visits(stream))
            outcomes["read"] += 1
        except TrainerError as error:
            check_refusal_line(error)
            outcomes["refused"] += 1
        if not num_operations:
            num_operations, expected = moments.count, received
        assert received == expected[: len(received)]
    assert outcomes["read"] > (40 if where == "cached" else 2) and (outcomes["refused"] > 20 or where == "cached"), (
        outcomes
    )


def test_a_set_prepared_again_at_any_moment_is_read_whole_or_refused(moments, tmp_path):
    sets = IMAGES, np.pad(OTHER_IMAGES[:18], ((0, 0), (0, 1), (0, 0), (0, 0)))
    files, rng = [], np.random.default_rng(1)
    for number, images in enumerate(sets):
        write(tmp_path / str(number), images)
        files.append(contents(tmp_path / str(number)))
    folder, outcomes, num_operations = tmp_path / "set", collections.Counter(), 0
    preparation = [{"dataset.json": None}, *({name: content} for name, content in reversed(files[1].items()))]

    def prepare_again():
        for changes in preparation[: rng.choice([len(preparation), rng.integers(len(preparation))])]:
            apply_changes(locate(folder), changes)

    def read_all():
        arrays = load(str(folder))
        yield arrays.info, arrays.images
        info, batches = open_batches(f"inverted:{folder}")
        yield info, 255 - np.concatenate([images for images, _ in batches])

    for _ in range(1 + NUM_MOMENTS):
        apply_changes(locate(folder), files[0])
        moments.count, moments.action = 0, prepare_again
        last = rng.choice([num_operations, 4])  # a set that is replaced later is never read whole
        moments.at = rng.integers(1, last) if num_operations else None
        try:
            for info, images in read_all():
                assert info.image_shape == images.shape[1:] and info.num_examples == len(images)
                (number,) = [number for number, content in enumerate(sets) if np.array_equal(images, content)]
                outcomes[number] += 1
        except TrainerError as error:
            check_refusal_line(error)
            outcomes["refused"] += 1
        num_operations = num_operations or moments.count
    assert outcomes[1] and min(outcomes[0], outcomes["refused"]) > 3, outcomes


@pytest.mark.slow
def test_a_run_whose_data_is_replaced_ends_and_resumes_when_it_is_restored(
    tmp_path, original, other, monkeypatch, capsys
):
    data, flags = tmp_path / "set", ("--num_chunks=3", "--steps=20")
    apply_changes(locate(data), original)
    assert train(data, tmp_path / "whole", *flags) == 0

    def load_and_replace(self, visit, plain=StreamedDataset.load):
        if visit == 4:
            apply_changes(locate(data), other)
        return plain(self, visit)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(StreamedDataset, "load", load_and_replace)
        capsys.readouterr()
        assert train(data, tmp_path / "run", *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and ".tfrecord" in error
    assert (
        run("generate", f"--job_dir={tmp_path}/run", f"--out={tmp_path}/grid.png") == 0
    )  # what was committed is there
    assert train(data, tmp_path / "run", *flags) == 1  # other data
    apply_changes(locate(data), original)
    assert train(data, tmp_path / "run", *flags) == 0
    assert state_of(tmp_path / "run", 20) == state_of(tmp_path / "whole", 20)
