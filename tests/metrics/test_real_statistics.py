"""Statistics of real images are computed once, stored, and never read from a file that is not theirs."""

import dataclasses
import io
import logging
import os
import zipfile

import numpy as np
import pytest
from image_sets import PooledPixels, images_of, real_images_of

from trainer.errors import DataError, StorageError
from trainer.metrics import statistics_file
from trainer.metrics.real_statistics import RealImages, real_statistics
from trainer.storage import locate

IMAGES = images_of(40)


class Counter:
    """Real images that count how often they are read."""

    def __init__(self, images=IMAGES, fingerprint="made"):
        self.num_reads, self._images = 0, real_images_of(images, fingerprint)
        self.images = RealImages(fingerprint, len(images), self._blocks)

    def _blocks(self):
        self.num_reads += 1
        return self._images.blocks()


def assert_equal(first, second):
    """Asserts that two statistics have the same bits."""
    for attribute in ("num_samples", "mean", "covariance"):
        np.testing.assert_array_equal(getattr(first.moments, attribute), getattr(second.moments, attribute))
    for field in dataclasses.fields(first.pairs):
        values = [getattr(statistics.pairs, field.name) for statistics in (first, second)]
        np.testing.assert_array_equal(*values)
        assert getattr(values[0], "dtype", None) == getattr(values[1], "dtype", None)
    assert first.real_vs_real == second.real_vs_real


@pytest.fixture(scope="module")
def computed():
    return real_statistics(PooledPixels(), Counter().images)


@pytest.fixture
def warnings(caplog):
    """Returns a function that returns the warnings so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("trainer")]


@pytest.fixture
def folder(storage_folder):
    return storage_folder / "data/statistics"


def test_stored_statistics_are_read_without_the_images(folder, computed, warnings):
    first, second, extractor = Counter(), Counter(), PooledPixels()
    assert_equal(real_statistics(PooledPixels(), first.images, [folder]), computed)
    assert_equal(real_statistics(extractor, second.images, [folder]), computed)
    assert (first.num_reads, second.num_reads, extractor.num_traces) == (1, 0, 0)
    assert len(list(folder.entries())) == 1
    assert not warnings()


def test_without_folders_nothing_is_stored(computed, warnings):
    counter = Counter()
    for _ in range(2):
        assert_equal(real_statistics(PooledPixels(), counter.images), computed)
    assert counter.num_reads == 2
    assert not warnings()


CHANGES = {
    "fingerprint": lambda: (PooledPixels(), Counter(fingerprint="other")),
    "number": lambda: (PooledPixels(), Counter(IMAGES[:39])),
    "weights": lambda: (changed(sha256="f" * 64), Counter()),
    "name": lambda: (changed(name="other"), Counter()),
}


def changed(**attributes):
    extractor = PooledPixels()
    vars(extractor).update(attributes)
    return extractor


@pytest.mark.parametrize("change", CHANGES)
def test_other_images_or_weights_are_computed(tmp_path, change):
    folder = locate(tmp_path)
    real_statistics(PooledPixels(), Counter().images, [folder])
    for num_reads in (1, 0):
        extractor, counter = CHANGES[change]()
        real_statistics(extractor, counter.images, [folder])
        assert counter.num_reads == num_reads
    assert len(list(folder.entries())) == 2


def test_a_folder_that_is_not_writable_is_passed_over(tmp_path, computed, warnings, monkeypatch):
    unwritable, cache, unused = (locate(tmp_path / name) for name in ("data", "cache", "unused"))
    write = type(cache).write_bytes

    def refuse(location, content, **options):
        if location.parent.name == "data":
            raise StorageError(f"{location} cannot be written.")
        write(location, content, **options)

    monkeypatch.setattr(type(cache), "write_bytes", refuse)
    for num_reads in (1, 0):
        counter = Counter()
        assert_equal(real_statistics(PooledPixels(), counter.images, [unwritable, cache, unused]), computed)
        assert counter.num_reads == num_reads
    assert [len(list(folder.entries())) for folder in (unwritable, cache, unused)] == [0, 1, 0]
    assert not warnings()
    assert_equal(real_statistics(PooledPixels(), Counter().images, [unwritable]), computed)
    assert len(warnings()) == 1


def test_without_write_permission_to_the_bucket_the_cache_is_used(bucket, proxy, tmp_path, computed, warnings):
    folders = [locate(f"{bucket}/data/statistics"), locate(tmp_path / "cache")]
    proxy.policy = lambda request: None if request.method == "GET" else 403
    for num_reads in (1, 0):
        counter = Counter()
        assert_equal(real_statistics(PooledPixels(), counter.images, folders), computed)
        assert counter.num_reads == num_reads
    assert [len(list(folder.entries())) for folder in folders] == [0, 1] and not warnings()
    proxy.policy = lambda request: 403  # also not readable
    assert_equal(real_statistics(PooledPixels(), Counter().images, folders), computed)


def rewritten(**changes):
    """Returns a function of the content of a file that gives the content with other arrays."""

    def rewrite(content):
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file) | changes
        buffer = io.BytesIO()
        np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
        return buffer.getvalue()

    return rewrite


def compressed(content):
    buffer = io.BytesIO()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def zipped(content, features, compression=zipfile.ZIP_STORED):
    """Returns a zip file with this content of the first array."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("features.npy", features)
    return buffer.getvalue()


def flipped(content, index, mask=0x40):
    return content[:index] + bytes([content[index] ^ mask]) + content[index + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "text": lambda content: b"not an archive\n",
    "cut": lambda content: content[:-100],
    "cut in half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "one bit": lambda content: flipped(content, len(content) // 2),
    "header of another array": lambda content: zipped(content, b"\x93NUMPY\1\0\x76\0{" + b"[" * 0x75),
    "too large": lambda content: bytes(10**6) + content,  # readers of zip files skip what precedes it
    "compressed": compressed,
    "bomb": lambda content: zipped(content, bytes(2**24), zipfile.ZIP_DEFLATED),
    "a million members": lambda content: b"PK\1\2" * (len(content) // 4),
    "missing array": rewritten(squared_radii=None),
    "fewer images": rewritten(features=np.zeros((39, 12), np.float32)),
    "features of float64": rewritten(features=np.zeros((40, 12))),
    "Fortran order": rewritten(covariance=np.asfortranarray(np.arange(144.0).reshape(12, 12))),
    "NaN": rewritten(mean=np.full(12, np.nan)),
    "infinity": rewritten(real_vs_real=np.full(8, np.inf)),
    "huge covariance": rewritten(covariance=np.full((12, 12), 1e308)),
    "huge mean": rewritten(mean=np.full(12, -1e300)),
    "huge features": rewritten(features=np.full((40, 12), 3e38, np.float32)),
    "huge radii": rewritten(squared_radii=np.full(40, 1e31)),
    "objects": rewritten(real_vs_real=np.array([len] * 8, object)),
    "text values": rewritten(kernel_means=np.full(100, "x")),
    "one value": rewritten(kernel_means=np.float64(1.0)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_not_theirs_are_replaced(tmp_path, computed, warnings, damage):
    folder = locate(tmp_path)
    real_statistics(PooledPixels(), Counter().images, [folder])
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(DAMAGES[damage](content))
    counter = Counter()
    assert_equal(real_statistics(PooledPixels(), counter.images, [folder]), computed)
    assert counter.num_reads == 1
    assert [path.name in message and "\n" not in message for message in warnings()] == [True]
    assert path.read_bytes() == content


def test_values_are_those_that_were_written_or_refused(tmp_path):
    random = np.random.Generator(np.random.PCG64(4))
    file, arrays = locate(tmp_path / "file.npz"), {"a": random.normal(size=(9, 3)), "b": np.arange(4, dtype=np.float32)}
    statistics_file.write_arrays(file, arrays)
    content, num_refused = file.read_bytes(), 0
    layout = {name: (array.dtype.type, array.shape) for name, array in arrays.items()}
    for _ in range(300):
        damaged = flipped(content, int(random.integers(len(content))), int(random.integers(1, 256)))
        file.write_bytes(damaged[: int(random.integers(len(content)))] if random.random() < 0.1 else damaged)
        try:
            for name, array in statistics_file.read_arrays(file, layout).items():
                np.testing.assert_array_equal(array, arrays[name])
        except StorageError:
            num_refused += 1
    assert 200 < num_refused < 300  # some bits, such as those of the date, mean nothing


def test_a_directory_of_many_members_is_not_read(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as members:
        for index in range(2000):
            members.writestr(str(index), b"")
    file = locate(tmp_path / "file.npz")
    file.write_bytes(buffer.getvalue())
    monkeypatch.setattr(statistics_file.zipfile, "ZipFile", lambda *_: pytest.fail("the directory is read"))
    with pytest.raises(StorageError):
        statistics_file.read_arrays(file, {"a": (np.float64, (1000, 1000))})


def test_a_damaged_file_is_no_reason_to_ignore_the_next_folder(tmp_path, computed, warnings):
    first, second = locate(tmp_path / "first"), locate(tmp_path / "second")
    real_statistics(PooledPixels(), Counter().images, [second])
    (path,) = (tmp_path / "second").iterdir()
    first.parent.path.joinpath("first").mkdir()
    (tmp_path / "first" / path.name).write_bytes(b"")
    counter = Counter()
    assert_equal(real_statistics(PooledPixels(), counter.images, [first, second]), computed)
    assert counter.num_reads == 0 and len(warnings()) == 1


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink(path, path)], ids=["folder", "loop of links"])
def test_something_else_of_that_name_is_passed_over(tmp_path, computed, warnings, make):
    real_statistics(PooledPixels(), Counter().images, [locate(tmp_path / "other")])
    (path,) = (tmp_path / "other").iterdir()
    (tmp_path / "data").mkdir()
    make(tmp_path / "data" / path.name)
    counter, folders = Counter(), [locate(tmp_path / "data"), locate(tmp_path / "cache")]
    assert_equal(real_statistics(PooledPixels(), counter.images, folders), computed)
    assert counter.num_reads == 1 and warnings()


def test_what_a_killed_process_left_of_the_file_is_removed(tmp_path):
    folder, others = locate(tmp_path), [".other.npz.0123abcd", "notes.txt"]
    real_statistics(PooledPixels(), Counter().images, [folder])
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f".{path.name}.0123abcd")
    for name in others:
        (tmp_path / name).touch()
    real_statistics(PooledPixels(), Counter().images, [folder])
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, *others])


def test_images_that_became_fewer_are_refused():
    counter = Counter()
    with pytest.raises(DataError):
        real_statistics(PooledPixels(), dataclasses.replace(counter.images, num_images=41))


def test_features_that_are_not_finite_are_refused_and_not_stored(tmp_path):
    class Broken(PooledPixels):
        def __call__(self, images):
            features, logits = super().__call__(images)
            return features / 0.0, logits

    with pytest.raises(DataError):
        real_statistics(Broken(), Counter().images, [locate(tmp_path)])
    assert not list(tmp_path.iterdir())
