"""Reuse of finished shards: only from the same pixels, wherever the source is and however its name is spelled."""

import io
import os
import shutil

import numpy as np
import pytest
from file_sets import write_folder, write_tar, write_zip
from PIL import Image
from refusals import check_refusal

from trainer.data.dataset_spec import SPEC_NAME
from trainer.data.prepare import convert, replica_watch, shard_commit
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.sharding import Part
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.errors import ConfigError
from trainer.storage import locate

METADATA = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}
NUM_IMAGES, NUM_SHARDS = 24, 4


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (NUM_IMAGES, 4, 4, 3)).astype(np.uint8)


def bitmaps(seed):
    """Returns image files of equal sizes by their names."""
    files = {}
    for number, image in enumerate(pixels(seed)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "BMP")
        files[f"{number:02}.bmp"] = buffer.getvalue()
    return files


def write_array(path, array):
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)
    return path


def ranges(tmp_path):
    array = np.linspace(0, 0.95, NUM_IMAGES * 16, dtype=np.float32).reshape(NUM_IMAGES, 4, 4)
    path = write_array(tmp_path / "f.npy", array)
    yield path, {"image_range": "-1..1"}
    yield path, {"image_range": "0..1"}


def fields(tmp_path):
    np.savez(tmp_path / "u.npz", x=pixels(1), z=pixels(2))
    yield tmp_path / "u.npz", {"image_field": "x"}
    yield tmp_path / "u.npz", {"image_field": "z"}


def splits(tmp_path):
    np.savez(tmp_path / "u.npz", x_train=pixels(1), x_test=pixels(2))
    yield tmp_path / "u.npz", {}
    yield tmp_path / "u.npz", {"split": ("test",)}


def arrays_in_two_folders(tmp_path):
    yield write_array(tmp_path / "a" / "x.npy", pixels(1)), {}
    yield write_array(tmp_path / "b" / "x.npy", pixels(2)), {}


def an_array_with_another_last_image(tmp_path):
    array = pixels(1)
    yield write_array(tmp_path / "x.npy", array), {}
    array[-1, -1, -1, -1] ^= 1
    yield write_array(tmp_path / "x.npy", array), {}


def two_folders(tmp_path):
    yield write_folder(tmp_path / "one" / "set", bitmaps(1)), {}
    yield write_folder(tmp_path / "two" / "set", bitmaps(2)), {}


def a_replaced_tar(tmp_path):
    yield write_tar(tmp_path / "x.tar", bitmaps(1)), {}
    yield write_tar(tmp_path / "x.tar", bitmaps(2)), {}


def a_zip_with_another_last_image(tmp_path):
    files = bitmaps(1)
    yield write_zip(tmp_path / "x.zip", files), {}
    files["23.bmp"] = bitmaps(2)["23.bmp"]
    yield write_zip(tmp_path / "x.zip", files), {}


def files_of_examples(tmp_path):
    files = {}
    for (name, first), second in zip(bitmaps(1).items(), bitmaps(2).values(), strict=True):
        files |= {name: first, name.replace(".", ".b."): second, name.replace("bmp", "cls"): b"0"}
    path = write_tar(tmp_path / "x.tar", files)
    yield path, {"image_field": "bmp"}
    yield path, {"image_field": "b.bmp"}


def prepare(path, options, out, part=None):
    conversion = ConversionOptions(num_processes=1, num_shards=NUM_SHARDS)
    with open_source(str(path), SourceOptions(**options)) as source:
        plan = plan_conversion(source, conversion)
        return convert.convert_part(
            source, plan, conversion, locate(str(out)), METADATA, lambda _: None, part or Part()
        )[1]


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.tfrecord"))}


@pytest.mark.parametrize(
    "readings",
    [
        *(ranges, fields, splits, arrays_in_two_folders, an_array_with_another_last_image, two_folders),
        *(a_replaced_tar, a_zip_with_another_last_image, files_of_examples),
    ],
)
def test_shards_of_other_pixels_are_not_reused(readings, tmp_path):
    made, out = readings(tmp_path), tmp_path / "out"
    prepare(*next(made), out, Part(1, 2))
    second = next(made)
    assert prepare(*second, out).num_kept == 0
    prepare(*second, tmp_path / "expected")
    assert contents(out) == contents(tmp_path / "expected")


def test_the_chief_waits_for_a_shard_of_another_machine_whose_image_was_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_commit, "_POLL_SECS", 0.02)
    monkeypatch.setattr(replica_watch, "_SECS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(replica_watch, "_MAX_MISMATCH_SECS", 0.1)
    files, out = bitmaps(1), tmp_path / "out"
    source = write_folder(tmp_path / "set", files)
    with open_source(str(source)) as opened:
        last = opened.items[plan_conversion(opened, ConversionOptions(num_shards=NUM_SHARDS)).indices[-1]].name
    prepare(source, {}, out, Part(1, 2))
    write_folder(source, {last: bitmaps(2)[last]})
    check_refusal(lambda: prepare(source, {}, out, Part(0, 2)), ConfigError, "replica=1")
    assert prepare(source, {}, out, Part(1, 2)).num_kept == 1
    prepare(source, {}, out, Part(0, 2))
    prepare(source, {}, tmp_path / "expected")
    assert contents(out) == contents(tmp_path / "expected")


def write_table(path, files):
    write_folder(path.parent, files)
    path.write_text("path\n" + "\n".join(files))
    return path


@pytest.mark.parametrize(
    ("write", "name"), [(write_folder, "set"), (write_tar, "x.tar"), (write_tar, "x.tar.gz"), (write_table, "x/x.csv")]
)
def test_a_shard_is_made_again_if_one_of_its_images_is_replaced(write, name, tmp_path):
    files, out = bitmaps(1), tmp_path / "out"
    source = write(tmp_path / name, files)
    with open_source(str(source)) as opened:
        last = opened.items[plan_conversion(opened, ConversionOptions(num_shards=NUM_SHARDS)).indices[-1]].name
    prepare(source, {}, out, Part(1, 2))
    files[last] = bitmaps(2)[last]
    times = source.stat()
    write(tmp_path / name, files)
    for path in (source, source / last):
        if path.exists():
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert prepare(source, {}, out).num_kept == NUM_SHARDS // 2 - 1
    prepare(source, {}, tmp_path / "expected")
    assert contents(out) == contents(tmp_path / "expected")


@pytest.mark.parametrize("is_remote", [False, True])
def test_the_dataset_of_several_machines_is_not_taken_for_that_of_other_images(is_remote, tmp_path, request):
    root = locate(request.getfixturevalue("bucket") if is_remote else str(tmp_path / "local"))

    def write(files):
        root.upload(
            write_folder(tmp_path / "set", {f"set/{name}": content for name, content in files.items()}),
            [*(f"set/{name}" for name in files)],
        )

    files = bitmaps(1)
    write(files)
    for index in (1, 0):
        prepare(root / "set", {}, root / "out", Part(index, 2))
    before = (root / "out" / SPEC_NAME).read_bytes()
    assert prepare(root / "set", {}, root / "out", Part(0, 2)).total == 0  # a restarted machine
    write(files | {"00.bmp": bitmaps(2)["00.bmp"]} if is_remote else bitmaps(2))
    for part in (Part(0, 2), Part(1, 2)):
        check_refusal(lambda part=part: prepare(root / "set", {}, root / "out", part), ConfigError, "out=")
    assert (root / "out" / SPEC_NAME).read_bytes() == before


def test_shards_of_a_bucket_are_reused_without_reading_their_images_again(bucket, tmp_path, monkeypatch):
    remote = locate(bucket) / "set"
    remote.upload(write_folder(tmp_path / "set", bitmaps(1)), [*bitmaps(1)])
    prepare(remote, {}, tmp_path / "out", Part(1, 2))
    with open_source(str(remote)) as source:
        plan = plan_conversion(source, ConversionOptions(num_shards=NUM_SHARDS))
        monkeypatch.setattr(source, "read", lambda index: pytest.fail("an image is read"))
        conversion = convert.PartConversion(
            source, plan, ConversionOptions(), locate(str(tmp_path / "out")), Part(1, 2), lambda _: None
        )
        assert sorted(conversion.read_finished()) == [1, 3]


def spellings_of_a_folder(tmp_path):
    path = write_folder(tmp_path / "a", bitmaps(1))
    yield path, {}
    yield f"{os.path.relpath(path)}/", {}
    yield shutil.copytree(path, tmp_path / "mount" / "a"), {}


def spellings_of_an_array(tmp_path):
    path = write_array(tmp_path / "x.npy", pixels(1) / 255)
    yield path, {}
    yield os.path.relpath(path), {"image_range": "0..1"}
    (tmp_path / "mount").mkdir()
    yield shutil.copy(path, tmp_path / "mount" / "x.npy"), {}


@pytest.mark.parametrize("spellings", [spellings_of_a_folder, spellings_of_an_array])
def test_shards_of_the_same_pixels_are_reused_wherever_the_source_is(spellings, tmp_path):
    first, *others = spellings(tmp_path)
    for number, other in enumerate(others):
        prepare(*first, tmp_path / str(number), Part(1, 2))
        assert prepare(*other, tmp_path / str(number)).num_kept == NUM_SHARDS // 2
