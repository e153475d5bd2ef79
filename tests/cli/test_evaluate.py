"""The `evaluate` command on images that the tests make, with a small extractor in place of a network."""

import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_MLP
from PIL import Image
from refusals import check_command_refusal

import trainer.__main__ as commands
from trainer import metrics, task
from trainer.data.compared_images import read_compared_sets
from trainer.data.tfrecord_writer import write_prepared
from trainer.storage import locate

SIZE = 16
NAMES = ("frechet", "kid", "kid_std", "precision", "recall", "density", "coverage")


class TinyExtractor:
    """Means of 4x4 patches of the gray image, which take no training."""

    name, sha256, feature_size, frechet_name = "photos", "ab" * 32, 16, "frechet"

    def __call__(self, images):
        gray = tf.reduce_mean(tf.cast(images, tf.float32)[..., :3], axis=-1, keepdims=True)
        features = tf.reshape(tf.image.resize(gray, (4, 4), antialias=True), (-1, 16)) / 64.0
        return features, features[:, :10]


@pytest.fixture(autouse=True)
def tiny_extractor(monkeypatch, tmp_path):
    """Replaces the network of the suite `photos`, and keeps the cache of the user out of the tests."""
    original = metrics.get_extractor
    monkeypatch.setattr(
        metrics, "get_extractor", lambda name, *more: TinyExtractor() if name == "photos" else original(name, *more)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pictures(seed, num=40, size=SIZE, channels=3):
    """Images of two colors, smooth enough for the tiny extractor to tell them apart."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (num, 4, 4, channels)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, size // 4, 1), size // 4, 2)


def write_folder(folder, images, mode=None, suffix="png"):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(folder / f"{index:03d}.{suffix}")
    return folder


def write_dataset(folder, images, resize="none"):
    labels = np.zeros(len(images), np.int64)
    write_prepared(folder, images, labels, ("all",), name="set", source="test", license="", attribution="")
    spec = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(spec | {"options": {} if resize is None else {"resize": resize}}))
    return folder


def evaluate(capsys, *flags):
    capsys.readouterr()
    code = commands.main(["trainer", "evaluate", *map(str, flags)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def measured(capsys, *flags):
    return json.loads(evaluate(capsys, *flags))


def as_folder(folder, images):
    return write_folder(folder / "flat", images)


def as_class_folders(folder, images):
    write_folder(folder / "classes/a", images[::2])
    write_folder(folder / "classes/b", images[1::2])
    return folder / "classes"


def as_zip(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for index, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            archive.writestr(f"{index:03d}.png", buffer.getvalue())
    return folder / "images.zip"


def as_npz(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "images.npz", x=images, y=np.arange(len(images), dtype=np.int32) % 3)
    return folder / "images.npz"


def as_npy(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    return folder / "images.npy"


def as_dataset(folder, images):
    return write_dataset(folder / "prepared", images)


SOURCES = [as_folder, as_class_folders, as_zip, as_npz, as_npy, as_dataset]


@pytest.fixture
def reference(tmp_path, capsys):
    """A prepared set, and the metrics of other images against it, both as datasets."""
    against = write_dataset(tmp_path / "reference", pictures(0))
    images = write_dataset(tmp_path / "fakes", pictures(1))
    return against, measured(capsys, f"--images={images}", f"--against={against}", "--metrics=photos")


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_the_same_images_have_the_same_metrics_from_every_source(write, reference, tmp_path, capsys):
    against, expected = reference
    result = measured(
        capsys, f"--images={write(tmp_path / 'a', pictures(1))}", f"--against={against}", "--metrics=photos"
    )
    assert set(result["metrics"]) == {f"{name}_photos_40" for name in NAMES}
    for name, value in expected["metrics"].items():
        if not name.startswith("kid"):  # whose subsets are other ones in another order, unless they are all images
            assert result["metrics"][name] == pytest.approx(value, rel=1e-6), name
    assert result["real_vs_real"] == expected["real_vs_real"]
    assert result["protocol"] == expected["protocol"]
    assert result["protocol"]["weights_sha256"] == "ab" * 32
    assert (result["protocol"]["num_images"], result["protocol"]["num_real_images"]) == (40, 40)


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_equal_sets_have_distance_zero_whatever_their_source(write, tmp_path, capsys):
    images, against = write(tmp_path / "a", pictures(0)), as_folder(tmp_path / "b", pictures(0))
    result = measured(capsys, f"--images={images}", f"--against={against}", "--metrics=photos")["metrics"]
    assert result["frechet_photos_40"] == pytest.approx(0.0, abs=1e-6)
    assert all(result[f"{name}_photos_40"] == 1.0 for name in ("precision", "recall", "coverage"))


def test_images_in_a_bucket_are_measured(bucket, tmp_path, capsys):
    folder = as_folder(tmp_path, pictures(1))
    locate(f"{bucket}/images").upload(folder, [path.name for path in folder.iterdir()])
    against = as_dataset(tmp_path, pictures(0))
    remote = measured(capsys, f"--images={bucket}/images", f"--against={against}", "--metrics=photos")
    local = measured(capsys, f"--images={folder}", f"--against={against}", "--metrics=photos")
    assert remote["metrics"] == local["metrics"]
    prepared = locate(f"{bucket}/set")
    prepared.upload(against, [path.name for path in against.iterdir() if path.is_file()])
    out = f"{bucket}/neighbors.png"
    flags = f"--against={prepared}", "--metrics=photos", "--neighbors=2", f"--out={out}"
    both = measured(capsys, f"--images={bucket}/images", *flags)
    assert both["metrics"] == local["metrics"] and locate(out).exists()
    assert any(entry.name.endswith(".npz") for entry in (prepared / "statistics").entries())


@pytest.mark.parametrize("labels", [None, [["000.png", 3]]], ids=["no labels", "labels of one image"])
def test_a_description_of_another_program_beside_the_images_makes_no_dataset(labels, tmp_path, capsys):
    images = as_folder(tmp_path, pictures(1))
    against = as_dataset(tmp_path, pictures(0))
    flags = f"--images={images}", f"--against={against}", "--metrics=photos"
    expected = measured(capsys, *flags)["metrics"]
    (images / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert measured(capsys, *flags)["metrics"] == expected


def resizes(result):
    return result["protocol"]["resize_of_images"], result["protocol"]["resize_of_against"]


def test_images_of_the_right_size_are_not_resampled_and_others_are(tmp_path, capsys):
    against = write_dataset(tmp_path / "set", pictures(0), resize="stretch")
    small, large = as_folder(tmp_path / "a", pictures(1)), as_folder(tmp_path / "b", pictures(1, size=4 * SIZE))
    flags = f"--against={against}", "--metrics=photos"
    unchanged = measured(capsys, f"--images={small}", *flags)
    assert resizes(unchanged) == ("none", "stretch")
    same = measured(capsys, f"--images={small}", *flags, f"--image_size={SIZE}")
    assert same["metrics"] == unchanged["metrics"]
    resized = measured(capsys, f"--images={large}", *flags, f"--image_size={SIZE}")
    assert resizes(resized) == ("stretch", "stretch")
    chosen = measured(capsys, f"--images={large}", *flags, f"--image_size={SIZE}", "--resize=crop")
    assert resizes(chosen) == ("crop", "stretch")


def test_an_unknown_method_of_resizing_is_not_stated(tmp_path, capsys):
    images = write_dataset(tmp_path / "a", pictures(1), resize="fit")
    against = write_dataset(tmp_path / "merged", pictures(0), resize=None)
    result = measured(capsys, f"--images={images}", f"--against={against}", "--metrics=photos")
    assert "resize_of_against" not in result["protocol"] and result["protocol"]["resize_of_images"] == "fit"
    assert [compared.resize for compared in read_compared_sets("digits", "digits", tmp_path)] == ["none", "none"]


def test_a_dataset_with_a_prefix_may_have_any_path(tmp_path, capsys):
    against = write_dataset(tmp_path / "set", pictures(0))
    inverted = write_dataset(tmp_path / "inverted", 255 - pictures(0))
    images = as_folder(tmp_path, pictures(1))
    flags = f"--images={images}", "--metrics=photos"
    expected = measured(capsys, f"--against={inverted}", *flags)
    assert measured(capsys, f"--against=inverted:{against}", *flags)["metrics"] == expected["metrics"]


def test_gray_and_constant_images_are_measured(tmp_path, capsys):
    gray = pictures(1, channels=1)
    gray[:25] = 7  # of a collapsed generator
    images = write_folder(tmp_path / "gray", gray)
    flags = f"--images={images}", f"--against={as_dataset(tmp_path, pictures(0))}", "--metrics=photos"
    assert commands.main(["trainer", "evaluate", *flags]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["metrics"]["frechet_photos_40"] > 0
    assert "--bits" not in printed.err  # advice for the command prepare


def test_the_suite_of_digits_is_chosen_for_digits(tmp_path, capsys, digits):
    np.savez(tmp_path / "x.npz", x=digits.images[100:160])
    result = measured(capsys, f"--images={tmp_path / 'x.npz'}", "--against=digits")
    assert "frechet_digits_60" in result["metrics"] and result["protocol"]["metrics"] == "digits"


@pytest.mark.parametrize("count", [12, 30])
def test_fewer_images_can_be_measured(count, tmp_path, capsys):
    images, against = as_dataset(tmp_path / "a", pictures(1)), as_dataset(tmp_path / "b", pictures(0))
    flags = f"--images={images}", f"--against={against}", "--metrics=photos", f"--num_metric_samples={count}"
    protocol = measured(capsys, *flags, "--inception_score")
    assert f"inception_score_photos_{count}" in protocol["metrics"]
    assert protocol["protocol"]["num_real_images"] == count


def test_the_table_has_all_values(tmp_path, capsys):
    images, against = as_folder(tmp_path / "a", pictures(1)), as_dataset(tmp_path / "b", pictures(0))
    flags = f"--images={images}", f"--against={against}", "--metrics=photos"
    result, table = measured(capsys, *flags), evaluate(capsys, *flags, "--format=table")
    assert all(len(line) <= 100 or str(tmp_path) in line for line in table.splitlines())
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if "_photos_40" in line}
    assert rows == {
        name: [f"{value:.4g}", f"{result['real_vs_real'][name]:.4g}"] for name, value in result["metrics"].items()
    }
    assert "{" not in table and str(images) in table and "ab" * 32 in table


def test_copies_are_found_and_shown(tmp_path, capsys):
    real, fakes = pictures(0, num=200), pictures(1, num=60)
    fakes[:20] = real[50:70]
    images, against = as_dataset(tmp_path / "a", fakes), as_dataset(tmp_path / "b", real)
    out = tmp_path / "neighbors.png"
    flags = f"--images={images}", f"--against={against}", "--metrics=photos", "--neighbors=4", f"--out={out}"
    result = measured(capsys, *flags)
    neighbors = result["neighbors"]
    assert neighbors["num_training_images"] == 60  # the number of real images that the metrics compare with
    assert neighbors["picture"] == str(out) and neighbors["num_close"] >= 10
    assert neighbors["share_close"] == neighbors["num_close"] / 60
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    cell = 64
    assert pixels.shape[0] > 4 * cell and pixels.shape[1] > 6 * cell
    sample, nearest = pixels[2 : 2 + cell, 2 : 2 + cell], pixels[2 : 2 + cell, 4 + cell : 4 + 2 * cell]
    np.testing.assert_array_equal(sample, np.repeat(np.repeat(fakes[0], 4, 0), 4, 1))
    np.testing.assert_array_equal(sample, nearest)  # real[50] is among the first 60


def test_the_advice_to_search_all_training_images_can_be_followed(run, tmp_path, capsys):
    images, against = as_dataset(tmp_path / "a", pictures(1, num=20)), run.parent / "set"
    out = f"--out={tmp_path / 'x.png'}"
    for flags, advice in (
        ([f"--images={images}", f"--against={against}"], "40 images"),
        ([f"--job_dir={run}", "--num_metric_samples=20"], "--num_metric_samples=40"),
    ):
        argv = ["trainer", "evaluate", *flags, "--metrics=photos", "--neighbors=2", out]
        assert commands.main(argv) == 0
        error = capsys.readouterr().err
        assert advice in error and ("num_metric_samples" in error) == ("num_metric_samples" in advice)


def test_held_out_images_are_not_reported_as_copies(tmp_path, capsys):
    every = pictures(0, num=400)
    images, against = as_dataset(tmp_path / "a", every[200:]), as_dataset(tmp_path / "b", every[:200])
    flags = f"--images={images}", f"--against={against}", "--metrics=photos", "--neighbors=4"
    assert measured(capsys, *flags, f"--out={tmp_path / 'x.png'}")["neighbors"]["share_close"] < 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a finished run on images of a prepared set."""
    folder = tmp_path_factory.mktemp("runs")
    dataset = write_dataset(folder / "set", pictures(0))
    options = json.dumps(TINY_MLP)
    flags = ["--recipe=vanilla", f"--architecture_options={options}", "--latent_dim=8", "--global_batch_size=16"]
    flags += ["--jit_compile=off", "--strategy=one_device", "--metrics=none", "--steps=2", "--noexport_model"]
    assert task.main(["task", f"--job_dir={folder / 'run'}", f"--dataset={dataset}", *flags]) == 0
    return folder / "run"


def test_a_run_is_measured_with_the_same_keys_and_its_protocol(run, tmp_path, capsys):
    flags = f"--job_dir={run}", "--metrics=photos", "--num_metric_samples=50"
    result = measured(capsys, *flags)
    assert {"step", "metrics", "real_vs_real", "protocol"} == set(result)
    assert result["step"] == 2 and set(result["metrics"]) == {f"{name}_photos_50" for name in NAMES}
    expected = {"metrics": "photos", "num_images": 50, "num_real_images": 40, "image_shape": [16, 16, 3]}
    assert expected.items() <= result["protocol"].items()
    assert (run.parent / "set/statistics").is_dir()
    shown = measured(capsys, *flags, "--neighbors=3", f"--out={tmp_path / 'x.png'}")
    assert shown["metrics"] == pytest.approx(result["metrics"]) and shown["neighbors"]["num_training_images"] == 40


def test_samples_in_a_file_have_the_metrics_of_their_run(run, tmp_path, capsys):
    from_run = measured(capsys, f"--job_dir={run}", "--metrics=photos", "--num_metric_samples=50")["metrics"]
    samples = tmp_path / "samples.npz"
    generate = ["trainer", "generate", f"--job_dir={run}", "--num_images=50", f"--out={samples}"]
    assert commands.main(generate) == 0
    in_file = measured(capsys, f"--images={samples}", f"--against={run.parent / 'set'}", "--metrics=photos")["metrics"]
    assert in_file["frechet_photos_50"] == pytest.approx(from_run["frechet_photos_50"], rel=1e-5)
    assert in_file["recall_photos_50"] == from_run["recall_photos_50"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write_folder(folder / "images", pictures(1))
    write_folder(folder / "few", pictures(1, num=11))
    write_folder(folder / "large", pictures(1, size=32))
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts/a.txt").write_text("no image")
    write_dataset(folder / "set", pictures(0))
    write_dataset(folder / "set32", pictures(0, size=32))
    write_dataset(folder / "set11", pictures(0, num=11))
    return folder


@pytest.mark.parametrize(
    ("flags", "exit_code", "mentions"),
    [
        ([], 2, ("--job_dir", "--images")),
        (["--job_dir=run", "--images={}/images", "--against={}/set"], 2, ("--job_dir", "--images")),
        (["--images={}/images"], 2, ("--images", "--against")),
        (["--job_dir=run", "--against={}/set"], 2, ("--against", "--job_dir")),
        (["--job_dir=run", "--image_size=8"], 2, ("--image_size", "--job_dir")),
        (["--images={}/images", "--against={}/set", "--checkpoint=best"], 2, ("--checkpoint", "--images")),
        (["--images={}/images", "--against={}/set", "--resize=fit"], 2, ("--resize", "fit", "--image_size")),
        (["--images={}/images", "--against={}/set", "--image_size=x"], 2, ("image_size", "x")),
        (["--images={}/images", "--against={}/set", "--neighbors=3"], 2, ("--neighbors", "--out")),
        (["--images={}/images", "--against={}/set", "--out=x.png"], 2, ("--neighbors", "--out")),
        (["--images={}/images", "--against={}/set", "--neighbors=3", "--out=x.jpg"], 2, ("out", "x.jpg", ".png")),
        (["--images={}/images", "--against={}/set", "--neighbors=0", "--out=x.png"], 2, ("neighbors", "0")),
        (["--images={}/images", "--against={}/set", "--neighbors=201", "--out=x.png"], 2, ("neighbors", "201", "200")),
        (["--images={}/images", "--against={}/set", "--metrics=cycle"], 2, ("metrics", "cycle")),
        (["--images={}/images", "--against={}/set", "--metrics=none"], 2, ("metrics", "none")),
        (["--images={}/images", "--against={}/set", "--metrics=photo"], 2, ("metrics", "photo", "photos")),
        (["--images={}/images", "--against={}/set", "--format=xml"], 2, ("format", "xml", "json")),
        (
            ["--images={}/images", "--against={}/set", "--metrics=digits", "--neighbors=3", "--out={}/x.png"],
            2,
            ("--neighbors", "digits", "photos"),
        ),
        (["--images={}/missing", "--against={}/missing", "--metrics=inception"], 2, ("inception",)),
        (
            ["--images={}/missing", "--against={}/missing", "--inception_weights={}/images/000.png"],
            1,
            ("{}/images/000.png",),
        ),
        (
            ["--images={}/images", "--against={}/set", "--metrics=digits", "--inception_score"],
            2,
            ("inception_score", "digits"),
        ),
        (["--images={}/empty", "--against={}/set"], 1, ("{}/empty",)),
        (["--images={}/texts", "--against={}/set"], 1, ("{}/texts", "no images")),
        (["--images={}/missing", "--against={}/set"], 1, ("{}/missing",)),
        (["--images={}/images", "--against={}/missing"], 1, ("{}/missing",)),
        (["--images=s3://bucket/x", "--against={}/set"], 2, ("s3://bucket/x",)),
        (["--images={}/few", "--against={}/set"], 1, ("{}/few", "11", "12")),
        (["--images={}/images", "--against={}/set11"], 1, ("{}/set11", "11", "12")),
        (["--images={}/large", "--against={}/set"], 1, ("32×32", "16×16", "--image_size")),
        (["--images={}/images", "--against={}/large"], 1, ("16×16", "32×32", "--image_size")),
        (["--images={}/set32", "--against={}/set"], 2, ("{}/set", "32×32", "16×16")),
        (["--images={}/images", "--against={}/set", "--image_size=32"], 2, ("{}/set", "16×16", "32×32")),
        (
            ["--images={}/images", "--against={}/set", "--num_metric_samples=41"],
            1,
            ("num_metric_samples", "41", "40", "{}/images"),
        ),
        (["--images={}/images", "--against={}/set", "--num_metric_samples=3"], 2, ("num_metric_samples", "3", "12")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_and_images_are_refused(flags, exit_code, mentions, sets, capsys):
    argv = ["trainer", "evaluate", *(flag.format(sets) for flag in flags)]
    check_command_refusal(commands.main, argv, capsys, exit_code, *(mention.format(sets) for mention in mentions))
    assert not (sets / "x.png").exists()
