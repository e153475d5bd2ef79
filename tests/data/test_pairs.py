"""Pairs of an input and an image: preparation, reading, and refusals. The first pixel of each side is its number."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from refusals import check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.config import TrainConfig
from trainer.data import describe
from trainer.data.dataset_spec import read_dataset_spec
from trainer.data.loading import load, load_training_data, open_stream
from trainer.data.pipeline.chunk_schedule import choose_num_chunks
from trainer.data.tfrecord_writer import ShardWriter, write_prepared
from trainer.errors import ConfigError, DataError
from trainer.storage import locate

SIZE = 12
RNG = np.random.default_rng(0)


def picture(number, channels):
    """An image whose pixels are noise, except for the first one, which is `number` times 10."""
    pixels = RNG.integers(0, 256, (SIZE, SIZE, channels), np.uint8)
    pixels[0, 0] = 10 * number
    return pixels


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def make_folders(root, inputs="input", images="target", numbers=range(6), names="{}.png"):
    for number in numbers:
        save(root / inputs / names.format(number), picture(number, 1))
        save(root / images / names.format(number), picture(number, 3))
    return root


def prepare(source, out, *flags):
    flags = [f"--source={source}", f"--out={out}", "--num_workers=1", *flags]
    assert commands.main(["trainer", "prepare", *flags]) == 0
    return load(str(out))


def assert_paired(arrays, num_pairs=6):
    """Asserts that the number of each input is that of its image."""
    assert len(arrays.images) == num_pairs
    first = arrays.images[:, 0, 0]
    np.testing.assert_array_equal(first[:, :1].repeat(first.shape[1], axis=1), first)
    assert sorted(first[:, 0].tolist()) == [10 * number for number in range(num_pairs)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepare(make_folders(folder / "files"), folder / "set", "--paired", "--num_shards=2")
    return folder / "set"


def test_two_folders_become_records_of_an_input_and_an_image(pairs):
    arrays, info = load(str(pairs)), describe(str(pairs))
    assert_paired(arrays)
    assert (info.image_shape, info.input_channels, info.array_shape) == ((12, 12, 3), 1, (12, 12, 4))
    assert not (arrays.images[:, 1:, :, 0] == arrays.images[:, 1:, :, 1]).all()


@pytest.mark.parametrize(
    ("make", "flags", "is_swapped"),
    [
        (lambda root: make_folders(root, "A", "B"), ["--paired"], False),
        (lambda root: make_folders(root, "A", "B"), ["--paired", "--input=B"], True),
        (lambda root: make_folders(root, "sketches", "input"), ["--paired"], True),
        (lambda root: make_folders(root / "outer", names="night/{}.png"), ["--paired"], False),
        (lambda root: make_folders(root / "train"), ["--paired", "--split=train"], False),
    ],
    ids=["A and B", "input=B", "input is second", "inner folders", "split"],
)
def test_folders_of_other_names_are_pairs(tmp_path, make, flags, is_swapped):
    make(tmp_path / "files")
    arrays = prepare(tmp_path / "files", tmp_path / "set", *flags)
    assert_paired(arrays)
    assert arrays.info.input_channels == (3 if is_swapped else 1)


@pytest.mark.parametrize("names", ["{}.png", "night/{}.png"])
def test_folders_of_pairs_are_not_reported_as_classes(tmp_path, capsys, names):
    prepare(make_folders(tmp_path / "files", names=names), tmp_path / "set", "--paired")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records and {record["severity"] for record in records} == {"INFO"}


def test_names_may_differ_in_their_suffix_and_archives_are_read(tmp_path):
    make_folders(tmp_path)
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        for number in range(6):
            Image.open(tmp_path / f"input/{number}.png").save(tmp_path / f"{number}.bmp")
            archive.write(tmp_path / f"{number}.bmp", f"all/input/{number}.bmp")
            archive.write(tmp_path / f"target/{number}.png", f"all/target/{number}.png")
    assert_paired(prepare(tmp_path / "pairs.zip", tmp_path / "set", "--paired", "--num_workers=2"))


def test_names_may_have_another_form_of_unicode(tmp_path):
    make_folders(tmp_path / "files", numbers=[0], names="caf\u00e9{}.png")
    for name, other in (("caf\u00e90.png", "cafe\u03010.png"),):
        (tmp_path / "files/target" / name).rename(tmp_path / "files/target" / other)
    assert_paired(prepare(tmp_path / "files", tmp_path / "out", "--paired"), 1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_side_by_side_halves_are_pairs_and_keep_their_classes(tmp_path, side):
    sides = {}
    for number in range(6):
        halves = picture(number, 3), picture(number, 3)
        sides[10 * number] = halves
        save(tmp_path / "files" / "ab"[number % 2] / f"{number}.png", np.concatenate(halves, axis=1))
    arrays = prepare(tmp_path / "files", tmp_path / "set", "--paired=side_by_side", f"--input={side}")
    assert_paired(arrays)
    assert arrays.info.class_names == ("a", "b")
    for example in arrays.images:
        expected = sides[int(example[0, 0, 0])][:: 1 if side == "left" else -1]
        np.testing.assert_array_equal(example, np.concatenate(expected, axis=-1))


def test_an_input_of_one_value_is_a_part_of_a_pair(tmp_path):
    make_folders(tmp_path / "files")
    save(tmp_path / "files/input/3.png", np.full((SIZE, SIZE, 1), 30, np.uint8))
    assert_paired(prepare(tmp_path / "files", tmp_path / "set", "--paired"))


def test_a_bad_half_and_files_without_a_partner_are_left_out_if_allowed(tmp_path):
    files = make_folders(tmp_path / "files", numbers=range(8))
    (files / "input/7.png").write_bytes(b"damaged")
    (files / "target/6.png").unlink()
    assert_paired(prepare(files, tmp_path / "set", "--paired", "--max_bad_images=1"))


def test_streams_and_held_out_pairs_are_read_like_arrays(pairs):
    arrays = load(str(pairs), padding=2)
    stream = open_stream(TrainConfig(dataset=str(pairs), num_chunks=2, padding=2))
    assert stream.image_shape == arrays.images.shape[1:]
    np.testing.assert_array_equal(np.concatenate(list(stream.images())), arrays.images)
    config = TrainConfig(dataset=str(pairs), dataset_b=str(pairs), model="pix2pix")
    for chunks in (1, 2):
        data = load_training_data(config.override(num_chunks=chunks))
        inputs, images = data.real_images(4)
        assert (inputs.shape, images.shape) == ((4, 12, 12, 1), (4, 12, 12, 3))
        assert set(data.fingerprints) == {"data", "data_b"}
        np.testing.assert_array_equal(np.concatenate([inputs, images], -1), load(str(pairs)).images[:4])
        np.testing.assert_array_equal(next(data.image_blocks(4, 4)), images)


def test_memory_counts_inputs(pairs):
    spec = read_dataset_spec(locate(pairs))
    bytes_of_pairs = 6 * SIZE * SIZE * 4
    assert choose_num_chunks(spec, bytes_of_pairs / 2**20) == 1
    check_refusal(lambda: choose_num_chunks(spec, (bytes_of_pairs - 1) / 2**20), ConfigError, "data_memory_mib")


def test_inspect_shows_inputs_and_images(pairs, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert commands.main(["trainer", "inspect", f"--dataset={pairs}", "--verify", f"--contact_sheet={sheet}"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert (description["image_shape"], description["input_channels"]) == ([12, 12, 3], 1)
    assert (len(description["pixels"]["mean"]), len(description["input_pixels"]["mean"])) == (3, 1)
    rows = np.asarray(Image.open(sheet))[2:].reshape(2, 14, -1, 3)
    first = load(str(pairs)).images[0]
    np.testing.assert_array_equal(rows[0, :12, 2:14], first[..., :1].repeat(3, axis=-1))
    np.testing.assert_array_equal(rows[1, :12, 2:14], first[..., 1:])


def test_a_set_without_pairs_is_described_as_before(tmp_path):
    about = {"name": "x", "source": "", "license": "", "attribution": ""}
    spec = write_prepared(tmp_path, np.full((3, 4, 4, 1), 9, np.uint8), np.zeros(3, int), ["x"], **about)
    assert "input_channels" not in json.loads(spec.to_json()) and read_dataset_spec(locate(tmp_path)) == spec


def test_gray_versions_are_added_to_any_set_of_color_images():
    pairs, tinted = load("gray_to_color:tinted:digits"), load("tinted:digits")
    assert pairs.info.input_channels == 1 and pairs.info.image_shape == tinted.info.image_shape
    np.testing.assert_array_equal(pairs.images[:50, ..., 1:], tinted.images[:50])
    gray = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in tinted.images[:50]])
    assert np.abs(pairs.images[:50, ..., 0].astype(int) - gray).max() <= 1
    inverted = load("inverted:gray_to_color:tinted:digits")
    np.testing.assert_array_equal(inverted.images[:50], 255 - pairs.images[:50])


def remove(name):
    return lambda files: (files / name).unlink()


def add(name, channels=3, size=SIZE):
    return lambda files: save(files / name, np.zeros((size, SIZE, channels), np.uint8))


PAIRED = ["--paired"]
REFUSALS = {
    "no partner": (remove("target/3.png"), PAIRED, 1, ("input/3.png", "max_bad_images=0")),
    "no input": (remove("input/2.png"), PAIRED, 1, ("target/2.png", "max_bad_images=0")),
    "no pair": (
        lambda files: [(files / f"input/{n}.png").rename(files / f"input/x{n}.png") for n in range(6)],
        [*PAIRED, "--max_bad_images=99"],
        1,
        ("input/x0.png",),
    ),
    "name twice": (add("input/3.bmp"), PAIRED, 1, ("input/3.png", "input/3.bmp")),
    "three folders": (add("extra/1.png"), PAIRED, 1, ("extra", "input", "target")),
    "one folder": (lambda files: [(files / f"input/{n}.png").unlink() for n in range(6)], PAIRED, 1, ("target", "two")),
    "unknown folder": (None, [*PAIRED, "--input=other"], 2, ("input", "other", "target")),
    "unknown half": (None, ["--paired=side_by_side", "--input=top"], 2, ("input", "top", "left", "right")),
    "another size": (add("input/0.png", size=20), PAIRED, 1, ("input/0.png", "20", "12")),
    "another ratio": (add("input/0.png", size=20), [*PAIRED, "--image_size=8"], 1, ("input/0.png", "20", "resize")),
    "damaged half": (lambda files: (files / "input/1.png").write_bytes(b"x"), PAIRED, 1, ("input/1.png",)),
    "input without pairs": (None, ["--input=A"], 2, ("input", "A", "paired")),
    "channels without pairs": (None, ["--input_channels=1"], 2, ("input_channels", "1", "paired")),
    "two domains": (None, [*PAIRED, "--source_b=x"], 2, ("source_b", "paired")),
    "statistics": (None, [*PAIRED, "--statistics"], 2, ("statistics", "paired")),
    "bits of alpha": (None, ["--channels=4", "--bits=4"], 2, ("bits=4", "channels")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_pairs_that_do_not_fit_are_refused(tmp_path, capsys, name):
    change, flags, code, mentions = REFUSALS[name]
    files = make_folders(tmp_path / "files")
    if change is not None:
        change(files)
    argv = ["prepare", f"--source={files}", f"--out={tmp_path / 'set'}", "--num_workers=1", *flags]
    check_command_refusal(commands.main, ["trainer", *argv], capsys, code, *mentions)
    assert not (tmp_path / "set/dataset.json").exists()


def test_a_file_that_has_no_two_halves_is_refused(tmp_path, capsys):
    save(tmp_path / "files/0.png", picture(0, 3)[:, :11])
    argv = [f"--source={tmp_path / 'files'}", f"--out={tmp_path / 'set'}", "--paired=side_by_side", "--num_workers=1"]
    check_command_refusal(commands.main, ["trainer", "prepare", *argv], capsys, 1, "0.png", "11")


def test_records_without_an_input_are_refused(pairs, tmp_path):
    spec = read_dataset_spec(locate(pairs))
    (tmp_path / "set").mkdir()
    writer = ShardWriter(tmp_path / "set/images-00000.tfrecord")
    writer.add(_png(picture(0, 3)), label=0)
    shard = writer.finish()
    fields = json.loads(spec.to_json()) | {"num_examples": 1, "class_counts": [1], "shards": [vars(shard)]}
    (tmp_path / "set/dataset.json").write_text(json.dumps(fields))
    check_refusal(lambda: load(str(tmp_path / "set")), DataError, "input", shard.file)
    for channels in (2, 5, "1"):
        (tmp_path / "set/dataset.json").write_text(json.dumps(fields | {"input_channels": channels}))
        check_refusal(lambda: load(str(tmp_path / "set")), DataError, "input_channels", str(channels))


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("prefix", ["stacked:", "tinted:", "gray_to_color:"])
def test_transforms_of_images_are_refused_for_pairs(pairs, prefix):
    check_refusal(lambda: describe(f"{prefix}{pairs}"), ConfigError, prefix, "pairs")


def test_held_out_pairs_of_another_shape_are_refused(pairs):
    config = TrainConfig(dataset="digits", dataset_b=str(pairs), model="cyclegan", num_chunks=1)
    check_refusal(lambda: load_training_data(config), ConfigError, f"dataset_b={pairs}", "pairs")
    config = TrainConfig(dataset=str(pairs), dataset_b="gray_to_color:tinted:digits", model="pix2pix", num_chunks=1)
    check_refusal(lambda: load_training_data(config), ConfigError, "dataset_b", "28", "12")


# Alpha.


def test_straight_alpha_is_kept(tmp_path):
    pixels = np.stack([picture(number, 4) for number in range(3)])
    for number, image in enumerate(pixels):
        save(tmp_path / f"files/{number}.png", image)
    arrays = prepare(tmp_path / "files", tmp_path / "set", "--channels=4")
    assert arrays.info.image_shape == (SIZE, SIZE, 4)
    order = [int(np.argwhere((pixels == image).all(axis=(1, 2, 3)))[0, 0]) for image in arrays.images]
    assert sorted(order) == [0, 1, 2]
    prepare(tmp_path / "files", tmp_path / "small", "--channels=4", "--image_size=6")
    assert describe(str(tmp_path / "small")).image_shape == (6, 6, 4)


def test_transparent_pixels_do_not_bleed_into_others_when_an_image_is_resized(tmp_path):
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    pixels[..., 0] = 255  # red, and transparent
    pixels[:, ::2] = (0, 255, 0, 255)  # green, and opaque
    save(tmp_path / "files/0.png", pixels)
    (image,) = prepare(tmp_path / "files", tmp_path / "set", "--channels=4", "--image_size=6").images
    is_visible = image[..., 3] > 0
    assert is_visible.any() and image[is_visible][:, 0].max() == 0


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "I;16", "CMYK"])
def test_images_without_alpha_become_opaque(tmp_path, mode):
    gray = Image.fromarray(picture(1, 1)[..., 0])
    (tmp_path / "files").mkdir()
    if mode == "I;16":
        Image.fromarray(picture(1, 1)[..., 0].astype(np.uint16) * 257).save(tmp_path / "files/0.png")
    else:
        gray.convert(mode).save(tmp_path / f"files/0.{'tif' if mode == 'CMYK' else 'png'}")
    (image,) = prepare(tmp_path / "files", tmp_path / "set", "--channels=4").images
    assert (image[..., 3] == 255).all()
