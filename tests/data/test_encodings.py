"""Datasets of JPEG and WebP images: accuracy, reproducible bytes, and everything that reads them."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from pictures import digests
from PIL import Image

from trainer import __main__ as commands
from trainer.config import TrainConfig
from trainer.data.dataset_spec import read_dataset_spec
from trainer.data.image_encodings import ENCODINGS
from trainer.data.loading import load, load_training_data, open_stream
from trainer.data.prepare import decoding
from trainer.data.prepare.pixels import Target
from trainer.data.tfrecord_reader import batch_decoder
from trainer.storage import locate

NUM_IMAGES, HEIGHT, WIDTH = 12, 20, 25
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
FORMS = [("jpeg", 1), ("jpeg", 3), ("webp", 1), ("webp", 3), ("webp", 4)]


def pixels(number, channels):
    """Returns a smooth image, uint8 [H, W, C], whose brightness increases with its number."""
    planes = [20 * number + ROWS, 5 * ROWS + number, 200 - 3 * COLUMNS - 5 * number, 255 - 9 * COLUMNS]
    return np.stack(planes[:channels], axis=-1).clip(0, 255).astype(np.uint8)


def write_pictures(folder, channels):
    for number in range(NUM_IMAGES):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels(number, channels)
        Image.fromarray(image[..., 0] if channels == 1 else image).save(path)
    return folder


def prepare(source, out, *flags):
    flags = [f"--source={source}", f"--out={out}", "--num_workers=1", "--num_shards=2", *flags]
    assert commands.main(["trainer", "prepare", *flags]) == 0
    return out


def encoded_images(out, feature="image"):
    files = sorted(map(str, out.glob("*.tfrecord")))
    records = map(tf.train.Example.FromString, tf.data.TFRecordDataset(files).as_numpy_iterator())
    return [record.features.feature[feature].bytes_list.value[0] for record in records]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A dataset of each encoding and number of channels."""
    root = tmp_path_factory.mktemp("encodings")
    folders = {}
    for encoding, channels in FORMS:
        source = write_pictures(root / f"pictures{channels}", channels)
        flags = [f"--encoding={encoding}", f"--channels={channels}"]
        folders[encoding, channels] = prepare(source, root / f"{encoding}{channels}", *flags)
    return folders


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_images_have_the_pixels_of_the_source_and_of_pillow(sets, form):
    out, (encoding, channels) = sets[form], form
    arrays = load(str(out))
    images, expected = arrays.images.astype(int), np.stack([pixels(number, channels) for number in range(NUM_IMAGES)])
    numbers = [int(np.abs(expected - image).mean(axis=(1, 2, 3)).argmin()) for image in images]
    assert sorted(numbers) == list(range(NUM_IMAGES))
    assert [number % 2 for number in numbers] == arrays.labels.tolist()
    errors = np.abs(images - expected[numbers])
    assert errors.mean() < 2.5 and not errors[..., 3:].any()
    mode = {1: "RGB" if encoding == "webp" else "L", 3: "RGB", 4: "RGBA"}[channels]
    for image, content in zip(images, encoded_images(out), strict=True):
        picture = Image.open(io.BytesIO(content))
        assert (picture.format, picture.mode) == (encoding.upper(), mode)
        decoded = np.asarray(picture).reshape(HEIGHT, WIDTH, -1)
        np.testing.assert_array_equal(decoded[..., :channels], image)


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_a_set_states_its_encoding_in_a_version_that_earlier_readers_refuse(sets, encoding):
    description = json.loads((sets[encoding, 3] / "dataset.json").read_text())
    assert (description["format_version"], description["encoding"]) == (2, encoding)
    assert description["options"]["quality"] == 95
    assert read_dataset_spec(locate(sets[encoding, 3])).encoding == encoding


def test_a_set_of_pngs_is_described_as_before(tmp_path):
    source = write_pictures(tmp_path / "pictures", 3)
    description = json.loads((prepare(source, tmp_path / "out") / "dataset.json").read_text())
    assert description["format_version"] == 1
    assert not {"encoding", "quality"} & {*description, *description["options"]}


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_bytes_depend_on_the_quality_and_not_on_processes(sets, encoding, tmp_path):
    source = write_pictures(tmp_path / "pictures", 3)
    flags = [f"--encoding={encoding}", "--name=set"]
    stated = prepare(source, tmp_path / "stated", *flags, "--quality=95", "--num_workers=2")
    lower = prepare(source, tmp_path / "lower", *flags, "--quality=40")
    shards = [digests(out) | {"dataset.json": ""} for out in (sets[encoding, 3], stated, lower)]
    assert shards[0] == shards[1] != shards[2]
    assert sum(map(len, encoded_images(lower))) < sum(map(len, encoded_images(stated)))


def test_metadata_is_left_out(tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "secret"
    for name in ("1.jpg", "2.webp", "3.png"):
        Image.fromarray(pixels(len(name), 3)).save(source / name, exif=exif, comment=b"secret")
    for encoding in ("jpeg", "webp"):
        out = prepare(source, tmp_path / encoding, f"--encoding={encoding}")
        assert not any(b"secret" in image or b"EXIF" in image.upper() for image in encoded_images(out))


def test_an_opaque_alpha_and_colors_of_transparent_pixels_stay(tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    for name, alpha in {"opaque": 255, "transparent": 0}.items():
        image = pixels(3, 4)
        image[..., 3] = alpha
        image[0, 0, 3] = 255
        Image.fromarray(image).save(source / f"{name}.png")
    images = load(str(prepare(source, tmp_path / "out", "--channels=4", "--encoding=webp"))).images
    assert sorted(images[..., 3].mean(axis=(1, 2)).round().tolist()) == [1, 255]
    assert np.abs(images[..., :3].astype(int) - pixels(3, 3)).mean() < 4


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_pairs_have_one_encoding(encoding, tmp_path):
    for side, channels in {"input": 1, "target": 3}.items():
        for number in range(4):
            path = tmp_path / "pairs" / side / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = pixels(3 * number, channels)
            Image.fromarray(image[..., 0] if channels == 1 else image).save(path)
    out = prepare(tmp_path / "pairs", tmp_path / "out", "--paired", f"--encoding={encoding}")
    for feature in ("input", "image"):
        assert {Image.open(io.BytesIO(image)).format for image in encoded_images(out, feature)} == {encoding.upper()}
    images = load(str(out)).images.astype(int)
    assert images.shape == (4, HEIGHT, WIDTH, 4)
    expected = [np.concatenate([pixels(3 * number, 1), pixels(3 * number, 3)], -1) for number in range(4)]
    order = images[:, 0, 0, 0].argsort()
    assert np.abs(images[order] - np.stack(expected)).mean() < 2.5


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_streams_and_derived_sets_have_the_same_images(sets, encoding):
    out = str(sets[encoding, 3])
    images = load(out).images
    stream = open_stream(TrainConfig(dataset=out, num_chunks=2))
    np.testing.assert_array_equal(np.concatenate(list(stream.images())), images)
    chunks = np.concatenate([stream.load_examples(visit, 6, lambda labels: np.arange(6))[0] for visit in (0, 1)])
    assert sorted(map(bytes, chunks)) == sorted(map(bytes, images))
    np.testing.assert_array_equal(load(f"inverted:{out}").images, 255 - images)
    assert load(f"tinted:{sets[encoding, 1]}").images.shape == (NUM_IMAGES, HEIGHT, WIDTH, 3)
    real_images = load_training_data(TrainConfig(dataset=out)).real_images(5)[0]
    np.testing.assert_array_equal(real_images, images[:5])


def test_inspect_prints_the_encoding_and_verifies(sets, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    for encoding, channels in FORMS:
        arguments = [f"--dataset={sets[encoding, channels]}", "--verify", f"--contact_sheet={sheet}"]
        assert commands.main(["trainer", "inspect", *arguments]) == 0
        description = json.loads(capsys.readouterr().out)
        assert (description["encoding"], description["pixels"]["images"]) == (encoding, NUM_IMAGES)
    assert commands.main(["trainer", "inspect", "--dataset=digits"]) == 0
    assert json.loads(capsys.readouterr().out)["encoding"] == "png"


def test_an_interrupted_preparation_makes_shards_of_another_encoding_again(tmp_path):
    source = write_pictures(tmp_path / "pictures", 3)
    expected = digests(prepare(source, tmp_path / "expected", "--encoding=webp", "--quality=60", "--name=set"))
    for old in ("--encoding=png", "--encoding=jpeg", "--encoding=webp"):
        out = tmp_path / old
        prepare(source, out, old, "--name=set", "--replica=1", "--num_replicas=2")  # one of two shards
        assert len(list(out.glob("*.tfrecord"))) == 1
        prepare(source, out, "--encoding=webp", "--quality=60", "--name=set")
        assert digests(out) == expected


def test_small_images_are_divided_into_shards_by_their_encoded_size(tmp_path):
    source = write_pictures(tmp_path / "pictures", 3)
    flags = [f"--source={source}", "--image_size=2,2", "--shard_mib=0.001", "--encoding=jpeg", "--num_workers=1"]
    assert commands.main(["trainer", "prepare", *flags, f"--out={tmp_path}/out"]) == 0
    shards = read_dataset_spec(locate(tmp_path / "out")).shards
    assert len(shards) > 1 and max(shard.num_bytes for shard in shards) < 3 * 1049


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_image_is_smaller_than_the_bound_of_its_encoding(form):
    encoding, channels = form
    flat = np.full((512, 512, channels), 99, np.uint8)
    target = Target(512, 512, channels, "none", allows_constant=True, encoding=encoding, quality=1)
    image = decoding.encode(target, flat).image
    assert flat.size <= ENCODINGS[encoding].max_pixel_bytes_per_byte * len(image)
    decoded = batch_decoder(encoding, channels)(tf.constant([image])).numpy()
    assert decoded.shape == (1, *flat.shape) and np.ptp(decoded[..., :3]) <= 2
