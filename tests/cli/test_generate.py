"""The `generate` command: what it writes for which flags, and what it refuses."""

import io
import json
import re
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_MLP, tiny_config, tiny_gan, tiny_model
from hostile import tree
from PIL import Image
from refusals import check_command_refusal

from trainer import __main__ as commands, task
from trainer.metrics.extraction import BLOCK_SIZE
from trainer.sampling.samples import Samples
from trainer.sampling.traversal import traversal_images
from trainer.storage import locate

ROOT = Path(__file__).parents[2]
MODELS = {
    "gan": lambda: tiny_gan(),
    "conditional": lambda: tiny_gan(model="conditional"),
    "infogan": lambda: tiny_model("infogan"),
    "cyclegan": lambda: tiny_model("cyclegan"),
}


@pytest.fixture(scope="module")
def gans():
    """A compiled model of each kind."""
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture
def restored(gans, monkeypatch, digits):
    """Replaces `restore` by a run at step 7, whose model is the name of its directory."""

    def restore(job_dir, checkpoint="best", recipe=None):
        dataset = "fashion_mnist" if job_dir == "conditional" else "digits"
        return tiny_config(dataset=dataset), gans[job_dir], types.SimpleNamespace(step=7)

    domains = digits.images[:20, 8:20, 8:20], digits.images[20:60, 8:20, 8:20]
    data = types.SimpleNamespace(real_images=lambda num_images: domains)
    monkeypatch.setattr("trainer.training.restore.restore", restore)
    monkeypatch.setattr("trainer.data.loading.load_training_data", lambda config: data)
    return gans


def argv(model, out, *flags):
    return ["trainer", "generate", f"--job_dir={model}", f"--out={out}", *flags]


def arrays(path):
    with np.load(path) as loaded:
        return [loaded[name] for name in loaded.files]


def test_everything_is_written_to_a_disk_or_a_bucket(restored, bucket, tmp_path, capsys):
    outputs = {
        "grid.png": ["--num_images=4"],
        "samples.npz": ["--num_images=4"],
        "samples.npy": ["--num_images=4"],
        "samples.zip": ["--num_images=4"],
        "samples": ["--num_images=4"],
        "walk.gif": ["--walk=0.4", "--num_images=4"],
    }
    for place in (tmp_path, bucket):
        for name, flags in outputs.items():
            assert commands.main(argv("gan", f"{place}/{name}", *flags)) == 0
            printed = capsys.readouterr().out
            assert all(fact in printed for fact in ("4", "7", f"{place}/{name}"))
        with Image.open(io.BytesIO((locate(place) / "grid.png").read_bytes())) as grid:
            assert grid.size == (62, 62)
        assert len(list((locate(place) / "samples").entries())) == 4
        assert np.load(io.BytesIO((locate(place) / "samples.npy").read_bytes())).shape == (4, 28, 28, 1)
        names = [entry.name for entry in locate(place).entries()]
        assert len(names) == 5 + 4, names


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("boot", None),
        ("ankle boot", [9, 9, 9, 9]),
        ("3", [3, 3, 3, 3]),
        ("03", [3, 3, 3, 3]),
        ("10", None),
        ("coat,9", [4, 9, 4, 9]),
        ("ankle boot , 0 ,coat", [9, 0, 4, 9]),
        ("coat,", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("flag", ["label", "labels"])
def test_labels_are_names_or_numbers_of_classes(restored, tmp_path, capsys, flag, label, expected):
    arguments = argv("conditional", f"{tmp_path}/x.npz", "--num_images=4", f"--{flag}={label}")
    if expected is None:
        check_command_refusal(commands.main, arguments, capsys, 2, f"label='{label.rpartition(',')[2]}'")
    else:
        assert commands.main(arguments) == 0 and arrays(tmp_path / "x.npz")[1].tolist() == expected


@pytest.mark.parametrize(
    "out", ["checkpoints/step-00000099/", "checkpoints/x.png", "samples/step-00000009.png", "model/", "neighbors.png"]
)
def test_an_output_among_the_files_of_the_run_is_refused(restored, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "gan")
    for folder in ("checkpoints", "samples", "other"):
        (tmp_path / "gan" / folder).mkdir(parents=True)
    for root in ("gan", str(tmp_path / "gan"), "link"):
        check_command_refusal(commands.main, argv("gan", f"{root}/{out}"), capsys, 2, out.partition("/")[0])
    assert commands.main(argv("gan", "gan/other/x.png", "--num_images=2")) == 0


@pytest.mark.parametrize(("label", "expected"), [("03", 3), ("0,5", 5), ("coat", None), ("10", None)])
def test_codes_have_numbers_only(restored, tmp_path, capsys, label, expected):
    arguments = argv("infogan", f"{tmp_path}/x.npz", "--num_images=4", f"--labels={label}")
    if expected is None:
        check_command_refusal(commands.main, arguments, capsys, 2, f"label='{label}'")
    else:
        assert commands.main(arguments) == 0 and arrays(tmp_path / "x.npz")[1][1] == expected


@pytest.mark.parametrize("model", ["gan", "conditional", "infogan", "cyclegan"])
def test_images_and_labels_are_those_of_sample_whatever_the_seeds(restored, tmp_path, model):
    assert commands.main(argv(model, f"{tmp_path}/all.npz", "--num_images=20")) == 0
    assert commands.main(argv(model, f"{tmp_path}/some.npz", "--seeds=12,3-5")) == 0
    everything, some = arrays(tmp_path / "all.npz"), arrays(tmp_path / "some.npz")
    expected = restored[model].sample(20)
    for written, chosen, sampled in zip(everything, some, expected, strict=False):
        np.testing.assert_array_equal(written, sampled)
        assert np.abs(chosen.astype(int) - sampled[[12, 3, 4, 5]]).max() <= 1
    assert len(everything) == (1 if expected[1] is None else 2)


def test_a_folder_has_the_images_that_evaluate_measures(restored, tmp_path):
    assert commands.main(argv("conditional", f"{tmp_path}/samples/", "--seeds=0-999")) == 0
    assert commands.main(argv("conditional", f"{tmp_path}/samples.zip", "--num_images=1000")) == 0
    # pytorch-fid and torch-fidelity read a folder in this way.
    paths = sorted((tmp_path / "samples").glob("*.png"))
    images = np.stack([np.array(Image.open(path)) for path in paths])[..., np.newaxis]
    (measured,), labels = restored["conditional"].sample_features(1000, lambda images: (tf.identity(images),))
    np.testing.assert_array_equal(images, measured)
    assert [int(path.stem.rpartition("-")[2]) for path in paths] == labels.tolist()
    assert len(list((tmp_path / "samples").iterdir())) == 1000
    with zipfile.ZipFile(tmp_path / "samples.zip") as archive:
        assert all(archive.read(path.name) == path.read_bytes() for path in paths)


def test_grids_of_classes_have_a_column_per_class(restored, tmp_path):
    for flags, width in (
        (["--num_images=12"], 10),
        (["--seeds=0-11"], 10),
        (["--num_images=12", "--labels=0,3"], 4),
        (["--num_images=12", "--label=3"], 4),
    ):
        assert commands.main(argv("conditional", f"{tmp_path}/x.png", *flags)) == 0
        with Image.open(tmp_path / "x.png") as grid:
            assert grid.width == width * 30 + 2


@pytest.mark.parametrize("out", ["outputs/", "outputs.zip"])
def test_images_of_the_user_are_translated_under_their_names(restored, tmp_path, digits, out):
    images = digits.images[:52, 8:20, 8:20]
    for number, image in enumerate(images):
        (tmp_path / "files/inner").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / f"files/inner/{number:02d}.bmp")
    assert commands.main(argv("cyclegan", f"{tmp_path}/{out}", f"--images={tmp_path}/files")) == 0
    if out.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / out) as archive:
            archive.extractall(tmp_path / "outputs")
    written = sorted((tmp_path / "outputs").glob("*"))
    assert [path.name for path in written] == [f"{number:02d}.png" for number in range(52)]
    expected = restored["cyclegan"].translate(images)[..., 0]
    for path, image in zip(written, expected, strict=True):
        assert np.abs(np.asarray(Image.open(path)).astype(int) - image).max() <= 1


@pytest.mark.parametrize(
    ("files", "mentions"),
    [({"a/1.png": b"x", "b/1.png": b"x"}, ("a/1.png", "b/1.png")), ({"1.png": b"x"}, ("1.png",)), ({}, ("files",))],
    ids=["equal names", "damaged", "none"],
)
def test_images_that_cannot_be_translated_are_refused(restored, tmp_path, capsys, files, mentions):
    for name, content in files.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    flags = argv("cyclegan", f"{tmp_path}/out/", f"--images={tmp_path}/files")
    check_command_refusal(commands.main, flags, capsys, 1, *mentions)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("images", "out"),
    [
        ("files", "files/"),
        ("files", "link/"),
        ("nested", "nested/inner/"),
        ("files.csv", "files/"),
        ("files.zip", "files.zip"),
    ],
)
def test_translations_do_not_replace_their_images(restored, tmp_path, digits, capsys, images, out):
    for folder in ("files", "nested/inner"):
        (tmp_path / folder).mkdir(parents=True)
        for number, image in enumerate(digits.images[:2, 8:20, 8:20, 0]):
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "link").symlink_to("files")
    (tmp_path / "files.csv").write_text("path,label\nfiles/0.png,a\nfiles/1.png,b\n")
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.write(tmp_path / "files/0.png", "0.png")
    before = tree(tmp_path)
    flags = argv("cyclegan", f"{tmp_path}/{out}", f"--images={tmp_path}/{images}")
    check_command_refusal(commands.main, flags, capsys, 2, "out", "images")
    assert tree(tmp_path) == before


def test_members_of_an_archive_are_not_files_beside_it(restored, tmp_path, digits):
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive, archive.open("val/one.png", "w") as file:
        Image.fromarray(digits.images[0, 8:20, 8:20, 0]).save(file, "png")
    assert commands.main(argv("cyclegan", f"{tmp_path}/val/", f"--images={tmp_path}/val.zip")) == 0
    assert [path.name for path in (tmp_path / "val").iterdir()] == ["one.png"]


def test_a_cyclegan_translates_its_images(restored, tmp_path, digits):
    assert commands.main(argv("cyclegan", f"{tmp_path}/x.npz")) == 0
    assert commands.main(argv("cyclegan", f"{tmp_path}/samples/", "--seeds=19,3")) == 0
    (images,) = arrays(tmp_path / "x.npz")
    np.testing.assert_array_equal(images, restored["cyclegan"].translate(digits.images[:20, 8:20, 8:20], "b"))
    for seed in (19, 3):
        image = np.asarray(Image.open(tmp_path / f"samples/seed-{seed:08d}.png"))
        np.testing.assert_array_equal(image, images[seed, ..., 0])


def test_a_traversal_has_a_row_per_code_and_category(restored, tmp_path):
    for flags, rows in (([], 2 * 10), (["--seeds=3,5", "--labels=0,4"], 2 * 2 * 2)):
        assert commands.main(argv("infogan", f"{tmp_path}/x.png", "--traversal", *flags)) == 0
        with Image.open(tmp_path / "x.png") as grid:
            assert grid.size == (10 * 14 + 2, rows * 14 + 2)


def test_the_images_of_a_traversal_do_not_depend_on_the_blocks(restored):
    gan, samples = restored["infogan"], Samples(np.array([7, 3, 60]), None)
    blocks, count = traversal_images(gan, samples, [4, 0, 1])
    inputs = [gan.traversal(latents[np.newaxis], np.array([4, 0, 1]), 10) for latents in samples.latents(gan)]
    latents, labels = (np.concatenate(parts) for parts in zip(*inputs, strict=True))
    assert count == len(latents) == 180
    np.testing.assert_array_equal(np.concatenate(list(blocks)), gan.images_from(latents, labels))


def test_a_walk_visits_an_image_per_second_by_default(restored, tmp_path, capsys):
    assert commands.main(argv("gan", f"{tmp_path}/x.webp", "--walk=3.2")) == 0
    assert "3 images" in capsys.readouterr().out
    with Image.open(tmp_path / "x.webp") as animation:
        assert animation.n_frames == 80


def test_a_walk_that_takes_too_much_memory_is_refused_before_it_is_measured(restored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("trainer.sampling.animation._MAX_PIXELS", 79 * 132 * 132)
    monkeypatch.setattr("trainer.sampling.walk.frame_positions", lambda *_: pytest.fail("the walk is measured"))
    command = argv("gan", f"{tmp_path}/x.gif", "--walk=3.2")
    check_command_refusal(commands.main, command, capsys, 2, "x.gif", "80", ".mp4")


@pytest.mark.parametrize(
    ("model", "out", "flags", "code"),
    [
        ("gan", "x.png", ["--num_images=100000"], 1),
        ("infogan", "x.png", ["--traversal", "--num_images=100000"], 1),
        ("gan", "x.gif", ["--walk=400", "--num_images=10000"], 2),
    ],
    ids=["grid", "traversal", "walk"],
)
def test_a_file_that_would_be_too_large_is_refused_after_at_most_one_block(
    restored, tmp_path, monkeypatch, capsys, model, out, flags, code
):
    def latents_of(indices, **arguments):
        assert len(indices) <= BLOCK_SIZE, "the latents of all images are computed"
        return type(gan).latents_of(gan, indices, **arguments)

    gan = restored[model]
    monkeypatch.setattr(gan, "latents_of", latents_of)
    monkeypatch.setattr("trainer.sampling.animation._MAX_PIXELS", 79 * 132 * 132)
    check_command_refusal(commands.main, argv(model, f"{tmp_path}/{out}", *flags), capsys, code, "000")


def test_a_projection_writes_its_three_files(restored, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.sampling.projection.NUM_STEPS", 3)
    Image.effect_noise((50, 31), 40).save(tmp_path / "photo.jpg")
    flags = [f"--init_image={tmp_path}/photo.jpg"]
    assert commands.main(argv("gan", f"{tmp_path}/found", *flags)) == 0
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        *("latent.npz", "reconstruction.png", "progress.png")
    }


@pytest.mark.parametrize(
    ("model", "out", "flags", "code", "mentions"),
    [
        ("gan", "x.jpg", [], 2, ("out", "x.jpg", ".png", ".zip", ".npz", ".npy", "folder")),
        ("gan", ".png", [], 2, ("out", ".png")),
        ("gan", ".npz", [], 2, ("out", ".npz")),
        ("gan", "nowhere/x", [], 2, ("out", "nowhere")),
        ("gan", "file", [], 2, ("out", "file")),
        ("gan", "file/", [], 2, ("out", "file")),
        ("gan", "file/x", [], 2, ("out", "file")),
        ("gan", "full", [], 2, ("out", "full", "mine.txt")),
        ("gan", "x.gif", [], 2, ("out", "x.gif", "--walk")),
        ("gan", "x.mp4", [], 2, ("out", "x.mp4", "--walk")),
        ("gan", "x.png", ["--walk=2"], 2, ("x.png", "--walk", ".gif", ".webp", ".mp4")),
        ("gan", "x.tif", ["--walk=2"], 2, ("x.tif", "--walk", ".gif", ".webp", ".mp4")),
        ("infogan", "x.npz", ["--traversal"], 2, ("x.npz", "--traversal", ".png")),
        ("gan", "x.png", ["--init_image=p.png"], 2, ("x.png", "--init_image", "folder")),
        ("gan", "folder/", ["--walk=2"], 2, ("folder", "walk")),
        ("infogan", "x.npz", ["--traversal"], 2, ("x.npz", ".png")),
        ("gan", "x.gif", ["--walk=0"], 2, ("walk", "0.0")),
        ("gan", "x.gif", ["--walk=-2"], 2, ("walk", "-2")),
        ("gan", "x.gif", ["--walk=nan"], 2, ("walk", "nan")),
        ("gan", "x.gif", ["--walk=inf"], 2, ("walk", "inf")),
        ("gan", "x.gif", ["--walk=601"], 2, ("walk", "601")),
        ("gan", "x.gif", ["--walk=ten"], 2, ("walk", "ten")),
        ("gan", "x.gif", ["--walk=2", "--seeds=7"], 2, ("1 image", "50")),
        ("gan", "x.gif", ["--walk=2", "--num_images=51"], 2, ("51 images", "50")),
        ("gan", "x.gif", ["--walk=2", "--traversal"], 2, ("walk", "traversal")),
        ("gan", "x", ["--init_image=p.png", "--walk=2"], 2, ("walk", "init_image")),
        ("gan", "x.png", ["--traversal"], 2, ("traversal", "GAN")),
        ("conditional", "x.png", ["--traversal"], 2, ("traversal", "ConditionalGAN")),
        ("gan", "x.png", ["--seeds=3-1"], 2, ("seeds", "3-1")),
        ("gan", "x.png", ["--seeds=1,two"], 2, ("seeds", "two")),
        ("gan", "x.png", ["--seeds="], 2, ("seeds",)),
        ("gan", "x.png", ["--seeds=1", "--num_images=3"], 2, ("seeds", "num_images")),
        ("gan", "x.png", ["--num_images=0"], 2, ("num_images", "0")),
        ("gan", "x.png", ["--num_images=10000001"], 2, ("num_images", "10000001")),
        ("gan", "x.png", ["--num_images=100000"], 1, ("100,000",)),
        ("gan", "x.png", ["--truncation=1.5"], 2, ("truncation", "1.5")),
        ("gan", "x.png", ["--truncation=-0.1"], 2, ("truncation", "-0.1")),
        ("gan", "x.png", ["--truncation=nan"], 2, ("truncation", "nan")),
        ("gan", "x.png", ["--labels=3"], 1, ("labels", "3", "no classes")),
        ("gan", "x.png", ["--labels=3,4"], 1, ("labels", "3,4", "no classes")),
        ("gan", "x", ["--init_image=p.png", "--seeds=3"], 2, ("seeds", "init_image")),
        ("gan", "x", ["--init_image=p.png", "--num_images=3"], 2, ("num_images", "init_image")),
        ("gan", "x", ["--init_image=p.png", "--truncation=0.5"], 2, ("truncation", "init_image")),
        ("gan", "x", ["--init_image=p.png"], 1, ("p.png",)),
        ("gan", "x", ["--init_image=file"], 1, ("init_image", "file")),
        ("gan", "full", ["--init_image=file"], 2, ("out", "full", "mine.txt")),
        ("cyclegan", "x.png", ["--num_images=21"], 1, ("num_images=21", "20")),
        ("cyclegan", "x.png", ["--seeds=3,20"], 1, ("20",)),
        ("cyclegan", "x.png", ["--truncation=0.5"], 2, ("truncation", "CycleGAN")),
        ("cyclegan", "x.gif", ["--walk=2"], 2, ("walk", "CycleGAN")),
        ("cyclegan", "x.png", ["--traversal"], 2, ("traversal", "CycleGAN")),
        ("cyclegan", "x", ["--init_image=file"], 2, ("init_image", "CycleGAN")),
        ("cyclegan", "x.png", ["--labels=3"], 1, ("labels", "3", "no classes")),
        ("cyclegan", "x", ["--images=f", "--seeds=3"], 2, ("seeds", "images")),
        ("cyclegan", "x.png", ["--images=f"], 2, ("out", "x.png", "images")),
        ("cyclegan", "x", ["--images=f", "--labels=3"], 2, ("labels", "images")),
        ("gan", "x", ["--images=f"], 2, ("images", "f", "GAN")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    restored, tmp_path, monkeypatch, capsys, model, out, flags, code, mentions
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("text")
    before = sorted(tmp_path.rglob("*"))
    check_command_refusal(commands.main, argv(model, out, *flags), capsys, code, *mentions)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_mp4_without_its_encoder_is_refused_before_the_run_is_read(restored, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = argv("missing", f"{tmp_path}/x.mp4", "--walk=2")
    check_command_refusal(commands.main, arguments, capsys, 2, "x.mp4", "pip install 'gan-trainer[video]'")


def test_the_example_in_the_docs_runs(restored):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/generate.md").read_text(), re.DOTALL)
    names: dict[str, np.ndarray] = {}
    exec(compile(example.replace("runs/photos", "gan"), "docs/generate.md", "exec"), names)
    assert names["images"].shape == (2, 28, 28, 1)


def test_a_folder_may_have_a_point_in_its_name(restored, tmp_path):
    (tmp_path / "v1.5").mkdir()
    for out in ("v1.5", "v1.6/", ".hidden"):
        assert commands.main(argv("gan", f"{tmp_path}/{out}", "--seeds=2")) == 0
        assert [path.name for path in (tmp_path / out).iterdir()] == ["seed-00000002.png"]


def test_a_bucket_that_has_other_files_is_refused(restored, bucket, capsys):
    (locate(bucket) / "samples/notes.txt").write_bytes(b"mine")
    arguments = argv("gan", f"{bucket}/samples", "--num_images=2")
    check_command_refusal(commands.main, arguments, capsys, 2, f"{bucket}/samples", "notes.txt")


@pytest.mark.slow
def test_a_walk_of_a_trained_run_closes_without_a_jump(tmp_path):
    flags = [f"--architecture_options={json.dumps(TINY_MLP)}", "--latent_dim=8", "--steps=40", "--noexport_model"]
    flags += ["--global_batch_size=16", "--metrics=none", "--sample_every_steps=0", "--strategy=one_device"]
    assert task.main(["task", f"--job_dir={tmp_path}/run", "--recipe=vanilla", *flags]) == 0
    assert commands.main(argv(f"{tmp_path}/run", f"{tmp_path}/walk.webp", "--walk=3", "--seeds=0-4")) == 0
    frames = []
    with Image.open(tmp_path / "walk.webp") as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            frames.append(np.asarray(animation.convert("L")).astype(float))
    steps = [np.abs(frame - following).mean() for frame, following in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert len(steps) == 75 and steps[-1] <= 1.2 * np.median(steps)
