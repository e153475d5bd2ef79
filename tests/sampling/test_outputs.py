"""Files of generated images: complete or absent, readable, and never in place of other files."""

import io
import subprocess
import weakref
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image
from refusals import check_refusal

from trainer.errors import ConfigError, DataError, StorageError
from trainer.sampling import outputs
from trainer.sampling.animation import check_encoder, check_num_pixels, write_animation
from trainer.storage import locate

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3)).astype(np.uint8)
SEEDS = np.array([3, 0, 12, 5, 99_999_999, 7, 8])
NAMES = outputs.image_names(SEEDS, None)


def blocks():
    yield from (IMAGES[:3], IMAGES[3:])


def interrupted():
    yield IMAGES[:3]
    raise KeyboardInterrupt


def write_folder(out, images=None):
    outputs.check_folder(out, NAMES)
    outputs.write_folder(out, outputs.image_files(images or blocks(), NAMES))


def files(out):
    return sorted(entry.name for entry in out.entries())


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A folder on the disk or a bucket."""
    return locate(tmp_path if request.param == "disk" else request.getfixturevalue("bucket"))


def test_names_have_the_seed_and_the_label_and_sort_by_seed():
    assert NAMES[0] == "seed-00000003.png"
    assert outputs.image_names(SEEDS[:2], np.array([4, 11], np.int32)) == [
        "seed-00000003-label-4.png",
        "seed-00000000-label-11.png",
    ]
    assert [NAMES[index] for index in np.argsort(SEEDS)] == sorted(NAMES)


def test_a_folder_has_one_png_per_image(place):
    out = place / "samples"
    write_folder(out)
    assert files(out) == sorted(NAMES)
    for name, image in zip(NAMES, IMAGES, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO((out / name).read_bytes()))), image)


def test_an_archive_has_the_files_of_the_folder_and_always_the_same_bytes(place):
    contents = []
    for name in ("a.zip", "b.zip"):
        outputs.write_archive(place / name, blocks(), NAMES)
        contents.append((place / name).read_bytes())
    assert contents[0] == contents[1]
    with zipfile.ZipFile(io.BytesIO(contents[0])) as archive:
        assert archive.namelist() == NAMES
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(archive.read(NAMES[4])))), IMAGES[4])


@pytest.mark.parametrize("labels", [None, np.arange(7, dtype=np.int32)], ids=["no labels", "labels"])
def test_arrays_have_the_images_and_labels(place, labels):
    outputs.write_arrays(place / "x.npz", blocks(), 7, labels)
    outputs.write_arrays(place / "x.npy", blocks(), 7, labels)
    np.testing.assert_array_equal(np.load(io.BytesIO((place / "x.npy").read_bytes())), IMAGES)
    with np.load(io.BytesIO((place / "x.npz").read_bytes())) as arrays:
        np.testing.assert_array_equal(arrays["x"], IMAGES)
        assert arrays.files == (["x"] if labels is None else ["x", "y"])


def test_extensions_in_upper_case_have_the_same_meaning(place):
    for name in ("x.npy", "X.NPY"):
        outputs.write_arrays(place / name, blocks(), 7, None)
    assert (place / "x.npy").read_bytes() == (place / "X.NPY").read_bytes()
    for name in ("x.webp", "X.WEBP"):
        write_animation(place / name, blocks())
    assert (place / "x.webp").read_bytes() == (place / "X.WEBP").read_bytes()


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_are_never_in_memory_all_at_once(tmp_path, name):
    def images():
        for image in IMAGES:
            block = image[np.newaxis].copy()
            living.append(weakref.ref(block))
            assert sum(reference() is not None for reference in living) <= 3
            yield block

    living = []
    outputs.write_arrays(locate(tmp_path / name), images(), len(IMAGES), None)
    with open(tmp_path / name, "rb") as file:
        loaded = np.load(file)
        np.testing.assert_array_equal(loaded if name == "x.npy" else loaded["x"], IMAGES)


WRITERS = {
    "folder": lambda place, images: write_folder(place / "samples", images),
    "zip": lambda place, images: outputs.write_archive(place / "x.zip", images, NAMES),
    "npz": lambda place, images: outputs.write_arrays(place / "x.npz", images, 7, None),
    "npy": lambda place, images: outputs.write_arrays(place / "x.npy", images, 7, None),
    "png": lambda place, images: outputs.write_grid(place / "x.png", images, 7, 3),
    "gif": lambda place, images: write_animation(place / "x.gif", images),
    "webp": lambda place, images: write_animation(place / "x.webp", images),
    "mp4": lambda place, images: write_animation(place / "x.mp4", images),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_left_of_an_interrupted_command(kind, place):
    if kind == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(KeyboardInterrupt):
        WRITERS[kind](place, interrupted())
    assert list(place.entries()) == []
    WRITERS[kind](place, blocks())
    before = {name: (place / name).read_bytes() for name in files(place)}
    with pytest.raises(KeyboardInterrupt):
        WRITERS[kind](place, interrupted())
    assert {name: (place / name).read_bytes() for name in files(place)} == before


def test_files_of_a_killed_command_do_not_disturb_the_next_one(tmp_path):
    (tmp_path / "samples/.partial").mkdir(parents=True)
    (tmp_path / "samples/.partial/seed-00000001.png").write_bytes(b"half")
    write_folder(locate(tmp_path / "samples"))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == sorted(NAMES)


def test_a_folder_with_the_same_names_is_written_again(place):
    (place / f"samples/{NAMES[0]}").write_bytes(b"old")
    (place / "samples/.hidden").write_bytes(b"")
    write_folder(place / "samples")
    assert (place / f"samples/{NAMES[0]}").read_bytes() != b"old"


@pytest.mark.parametrize("other", ["notes.txt", "seed-00000004.png", "seed-3.png", "below/x.png"])
def test_a_folder_with_other_files_is_refused_and_kept(place, other):
    (place / f"samples/{other}").write_bytes(b"mine")
    check_refusal(lambda: write_folder(place / "samples"), ConfigError, "out=", "samples", other)
    assert files(place / "samples") == [other]


def test_a_file_in_place_of_a_folder_is_refused(place):
    (place / "samples").write_bytes(b"mine")
    check_refusal(lambda: write_folder(place / "samples"), ConfigError, "out=", "samples")


def test_a_grid_that_no_program_shows_is_refused_before_it_is_made(tmp_path):
    def one_block():
        yield IMAGES
        raise AssertionError("the second block was generated")

    act = lambda: outputs.write_grid(locate(tmp_path / "x.png"), one_block(), 3_000_000, 1000)  # noqa: E731
    check_refusal(act, DataError, "3,000,000", "90,000,000")


def frames_in(content):
    with Image.open(io.BytesIO(content)) as animation:
        assert animation.info["loop"] == 0
        for index in range(animation.n_frames):
            animation.seek(index)
            frame = np.asarray(animation.convert("RGB"))
            assert animation.info["duration"] == 40
            yield frame


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_has_all_frames_and_is_enlarged(place, name, channels):
    smooth = np.linspace(0, 255, 6 * 5 * channels).reshape(1, 6, 5, channels)
    images = np.concatenate([smooth + shift for shift in range(0, 60, 10)]).clip(0, 255).astype(np.uint8)
    write_animation(place / name, iter([images[:4], images[4:]]))
    frames = list(frames_in((place / name).read_bytes()))
    assert len(frames) == 6 and frames[0].shape == (6 * 26, 5 * 26, 3)
    expected = np.broadcast_to(images, (6, 6, 5, 3))
    small = np.stack(frames)[:, ::26, ::26].astype(int)
    assert np.abs(small - expected).max() <= (8 if channels == 3 and name.endswith("gif") else 0)  # a palette


def test_images_of_128_pixels_or_more_keep_their_size(tmp_path):
    write_animation(locate(tmp_path / "x.webp"), iter([np.zeros((2, 128, 130, 3), np.uint8)]))
    with Image.open(tmp_path / "x.webp") as animation:
        assert animation.size == (130, 128)


@pytest.mark.parametrize(("num_frames", "side"), [(475, 1024), (1900, 512), (15_000, 28), (15_000, 181)])
def test_a_gif_or_webp_that_takes_too_much_memory_is_refused(num_frames, side):
    for name in ("x.gif", "x.webp"):
        check_num_pixels(locate(name), num_frames, side, side)
        many = 10 * num_frames
        check_refusal(lambda: check_num_pixels(locate(name), many, side, side), ConfigError, name, f"{many:,}", ".mp4")  # noqa: B023
    check_num_pixels(locate("x.mp4"), many, side, side)


def test_an_mp4_without_its_encoder_is_refused_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_refusal(lambda: check_encoder(locate("x.mp4")), ConfigError, "x.mp4", "imageio-ffmpeg", "gan-trainer[video]")
    check_encoder(locate("x.gif"))


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (33, 45, 3), (129, 131, 3)])
def test_an_mp4_has_all_frames(place, height, width, channels, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    images = np.full((10, height, width, channels), 100, np.uint8)
    write_animation(place / "x.mp4", iter([images[:5], images[5:]]))
    place.download({"x.mp4": tmp_path / "copy.mp4"})
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "copy.mp4"), "-f", "rawvideo", "-pix_fmt", "gray"]
    decoded = subprocess.run([*command, "-"], capture_output=True, check=True)
    factor = max(1, -(-128 // min(height, width)))
    size = height * factor + height * factor % 2, width * factor + width * factor % 2
    assert f"{size[1]}x{size[0]}" in decoded.stderr.decode() and "25 fps" in decoded.stderr.decode()
    frames = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, *size)
    assert len(frames) == 10 and np.abs(frames.astype(int) - 100).max() <= 4


def test_a_video_that_ffmpeg_cannot_write_is_refused(monkeypatch, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    for program in ("false", "/bin/cat"):  # /bin/cat: unknown options, text on standard error
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda program=program: program)
        frames = iter([np.zeros((50, 128, 128, 3), np.uint8)])
        check_refusal(partial(write_animation, locate(tmp_path / "x.mp4"), frames), StorageError, "ffmpeg")
        assert list(tmp_path.iterdir()) == []
