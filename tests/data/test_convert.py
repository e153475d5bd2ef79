"""Conversion of a source to a prepared dataset: reproducible bytes, complete or absent, and named bad images."""

import io
import json
import os
import re
import zipfile

import numpy as np
import pytest
from pictures import digests
from PIL import Image
from refusals import check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.cli import progress
from trainer.data.loading import load
from trainer.data.prepare import convert
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.sources import open_source
from trainer.errors import ConfigError, DataError
from trainer.storage import locate

METADATA = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}


def picture(number, size=(6, 6)):
    """Returns a PNG whose first pixel is its number."""
    array = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
    array[0, 0] = number
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        path = tmp_path / "pictures" / "abcd"[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "pictures"


def convert_folder(folder, out, on_progress=lambda progress: None, **options):
    options = ConversionOptions(**({"num_processes": 1} | options))
    with open_source(str(folder)) as source:
        plan = plan_conversion(source, options)
        return convert.convert(source, plan, options, locate(str(out)), METADATA, on_progress)


def numbers(arrays):
    return arrays.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_not_replaced_by_the_description(make, folder, tmp_path, capsys):
    path = tmp_path / "out/dataset.json"
    path.parent.mkdir()
    make(path)
    mode = path.lstat().st_mode
    argv = ["trainer", "prepare", f"--source={folder}", f"--out={tmp_path}/out", "--num_workers=1"]
    check_command_refusal(commands.main, argv, capsys, 1, str(path))
    assert path.lstat().st_mode == mode and list(path.parent.iterdir()) == [path]


def test_every_image_is_in_the_dataset_once_with_its_class(folder, tmp_path):
    spec, progress = convert_folder(folder, tmp_path / "out", shard_mib=0.001)
    arrays = load(str(tmp_path / "out"))
    assert sorted(numbers(arrays)) == list(range(40)) and numbers(arrays)[:10] != list(range(10))
    assert all(label == number % 4 for number, label in zip(numbers(arrays), arrays.labels, strict=True))
    assert (spec.class_names, spec.class_counts) == (("a", "b", "c", "d"), (10,) * 4)
    assert (spec.image_shape, spec.num_examples, progress.done) == ((6, 6, 3), 40, 40)
    assert len(spec.shards) > 3 and sum(shard.num_examples for shard in spec.shards) == 40
    first = Image.open(folder / "a" / "0.png")
    assert (arrays.images[numbers(arrays).index(0)] == np.asarray(first)).all()


def test_the_bytes_do_not_depend_on_the_number_of_processes(folder, tmp_path):
    for num_processes in (1, 2, 3):
        convert_folder(folder, tmp_path / str(num_processes), num_processes=num_processes, shard_mib=0.002)
    assert digests(tmp_path / "1") == digests(tmp_path / "2") == digests(tmp_path / "3")


def test_a_limit_selects_evenly_and_classes_keep_the_given_order(folder, tmp_path):
    spec, _ = convert_folder(folder, tmp_path / "few", limit=8)
    assert spec.class_counts == (2, 2, 2, 2)
    spec, _ = convert_folder(folder, tmp_path / "some", classes=("c", "a"))
    assert (spec.class_names, spec.class_counts) == (("c", "a"), (10, 10))
    arrays = load(str(tmp_path / "some"))
    assert {(number % 4, label) for number, label in zip(numbers(arrays), arrays.labels, strict=True)} == {
        (2, 0),
        (0, 1),
    }


def test_bad_images_are_named_and_end_the_conversion_unless_allowed(folder, tmp_path):
    (folder / "a" / "cut.png").write_bytes(picture(3)[:-60])
    (folder / "b" / "empty.png").write_bytes(b"")
    (folder / "c" / "large.png").write_bytes(picture(7, (9, 6)))
    with pytest.raises(DataError, match=r"\.png.* --max_bad_images=1\b"):
        convert_folder(folder, tmp_path / "out", max_bad_images=1)
    assert not (tmp_path / "out" / "dataset.json").exists()
    spec, progress = convert_folder(folder, tmp_path / "out", max_bad_images=3)
    problems = dict(progress.bad_images)
    assert set(problems) == {"a/cut.png", "b/empty.png", "c/large.png"} and len(set(problems.values())) == 3
    assert all(fact in problems["c/large.png"] for fact in ("9×6", "6×6", "--image_size", "--resize"))
    assert spec.num_examples == 40 and len(load(str(tmp_path / "out")).images) == 40


def test_a_truncated_gif_among_the_first_images_is_named(folder, tmp_path):
    gif = io.BytesIO()
    Image.open(io.BytesIO(picture(3, (64, 64)))).save(gif, "GIF")
    (folder / "a" / "cut.gif").write_bytes(gif.getvalue()[:-300])
    check_refusal(lambda: convert_folder(folder, tmp_path / "out"), DataError, "a/cut.gif")
    assert convert_folder(folder, tmp_path / "out", max_bad_images=1)[0].num_examples == 40


def test_no_usable_image_is_an_error(tmp_path):
    for number in range(3):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.png").write_bytes(b"no picture")
    for known in ({}, {"image_size": (4, 4), "channels": 1}):
        check_refusal(
            lambda known=known: convert_folder(tmp_path / "pictures", tmp_path / "out", max_bad_images=9, **known),
            DataError,
            *("none", "3 ", ".png", "not an image"),
        )


def test_the_first_images_determine_gray_or_color(tmp_path):
    (tmp_path / "gray").mkdir()
    for number in range(3):
        Image.open(io.BytesIO(picture(number))).convert("L").save(tmp_path / "gray" / f"{number}.png")
    assert convert_folder(tmp_path / "gray", tmp_path / "out")[0].image_shape == (6, 6, 1)
    (tmp_path / "gray" / "color.png").write_bytes(picture(9))
    assert convert_folder(tmp_path / "gray", tmp_path / "color")[0].image_shape == (6, 6, 3)


def test_an_interrupted_dataset_is_replaced_and_a_complete_one_kept(folder, tmp_path):
    def interrupt(progress):
        if progress.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_folder(folder, tmp_path / "out", interrupt, shard_mib=0.0001)
    left = set(digests(tmp_path / "out"))
    assert left and "dataset.json" not in left
    convert_folder(folder, tmp_path / "out")
    convert_folder(folder, tmp_path / "again")
    assert digests(tmp_path / "out") == digests(tmp_path / "again")
    check_refusal(lambda: convert_folder(folder, tmp_path / "out"), ConfigError, f"out={tmp_path}/out")
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


LEFT = ["images-00000.tfrecord", "images-00017.tfrecord", "images-123456.tfrecord", ".images-00003.tfrecord.partial"]
LEFT += [".dataset.json.0a1b2c3d"]
OF_THE_USER = [
    "images-001.png",
    "images-00001.tfrecord.png",
    "images-00001-of-00002.tfrecord",
    "images-0001.tfrecord",
    "images-raw/0.png",
    "images-00000/images-00000.tfrecord",
    "a/images-00000.tfrecord",
]


def test_only_shards_of_an_interrupted_dataset_are_deleted(folder, tmp_path):
    for name in LEFT + OF_THE_USER:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(name.encode())
    convert_folder(folder, tmp_path / "out")
    for name in OF_THE_USER:
        assert (tmp_path / "out" / name).read_bytes() == name.encode()
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"images-00000.tfrecord", "dataset.json", *OF_THE_USER}
    assert len(load(str(tmp_path / "out")).images) == 40


def test_a_dataset_beside_its_images_leaves_them_unchanged(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(6):
        (flat / f"images-{number:03d}.png").write_bytes(picture(number))
    before = digests(flat)
    convert_folder(flat, flat)
    assert before.items() < digests(flat).items()
    convert_folder(flat, tmp_path / "again")
    assert digests(tmp_path / "again").items() < digests(flat).items()


def test_a_dataset_in_a_bucket_has_the_same_bytes(folder, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = locate(bucket)
    (remote / "pictures").upload(folder, [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")])
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    remote.upload(tmp_path, ["pictures.zip"])
    convert_folder(folder, tmp_path / "out", shard_mib=0.002)
    unlike = {"dataset.json": None, "conversion": None}
    for name in ("pictures", "pictures.zip"):
        convert_folder(remote / name, remote / f"{name}-set", shard_mib=0.002)
        (remote / f"{name}-set").download(
            {entry.name: tmp_path / "back" / name / entry.name for entry in (remote / f"{name}-set").entries()}
        )
        assert digests(tmp_path / "back" / name) | unlike == digests(tmp_path / "out") | unlike
        specs = [
            json.loads((path / "dataset.json").read_text()) for path in (tmp_path / "back" / name, tmp_path / "out")
        ]
        assert specs[0] | unlike == specs[1] | unlike
    assert sorted(numbers(load(f"{bucket}/pictures-set"))) == list(range(40))


def run(*arguments):
    return commands.main(["trainer", "prepare", *arguments])


def test_the_command_writes_a_dataset_and_prints_how_to_train_on_it(folder, tmp_path, capsys):
    (folder / "a" / "empty.png").write_bytes(b"")
    out = tmp_path / "out"
    flags = [f"--source={folder}", f"--out={out}", "--image_size=4", "--max_bad_images=2", "--num_workers=1"]
    assert run(*flags, "--dry_run") == 0
    output = messages(capsys)
    assert all(fact in output for fact in ("41", "4×4×3", "--resize=crop")) and not out.exists()
    assert run(*flags) == 0
    output = messages(capsys)
    assert all(fact in output for fact in ("40", "4×4×3", "a/empty.png"))
    check_command_refusal(lambda argv: run(*argv), [*flags, "--dry_run"], capsys, 2, f"out={out}")
    assert f"python -m trainer.task --recipe=photos --dataset={out} --job_dir=runs/out" in output
    spec = json.loads((out / "dataset.json").read_text())
    assert spec["source"] == str(folder) and spec["options"]["resize"] == "crop"
    assert spec["options"]["image_size"] == [4, 4]


@pytest.mark.parametrize("num_shards", [1, 2])
def test_files_of_which_further_frames_are_left_out_are_counted(num_shards, tmp_path, capsys):
    frames = [Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)) for number in range(3)]
    (tmp_path / "set").mkdir()
    for number in range(4):
        frames[0].save(tmp_path / f"set/{number}.gif", save_all=True, append_images=frames[1 : 1 + number])
    assert (
        run(f"--source={tmp_path}/set", f"--out={tmp_path}/out", "--num_workers=1", f"--num_shards={num_shards}") == 0
    )
    assert "3 files with several frames" in messages(capsys)


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_progress_is_shown_while_an_image_takes_long(num_processes, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        buffer = io.BytesIO()
        array = np.random.default_rng(number).integers(0, 255, (4000, 4000, 3), np.uint8)
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)
        (tmp_path / f"pictures/{number}.png").write_bytes(buffer.getvalue())
    monkeypatch.setattr(progress, "_SECS_BETWEEN_MESSAGES", 0.02)
    flags = [f"--source={tmp_path}/pictures", f"--out={tmp_path}/out", f"--num_workers={num_processes}"]
    assert run(*flags, "--image_size=2000") == 0
    output = messages(capsys)
    assert "0 of 2 images." in output and re.search(r"1 of 2 images, .*, \d+ s left\.", output)


def test_the_command_writes_two_domains(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(f"--source={folder}/a", f"--source_b={folder}/b", f"--out={out}", "--num_workers=1") == 0
    assert f"--recipe=cyclegan --dataset={out}/a --dataset_b={out}/b" in messages(capsys)
    assert [len(load(str(out / domain)).images) for domain in "ab"] == [10, 10]


def test_a_second_domain_that_cannot_be_read_is_refused_before_the_first_is_prepared(folder, tmp_path, capsys):
    out = tmp_path / "out"
    flags = [f"--source={folder}/a", f"--source_b={folder}/nowhere", f"--out={out}", "--num_workers=1"]
    assert run(*flags) in (1, 2)
    assert "nowhere" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("flag", ["--statistics", "--source_b"])
def test_a_finished_dataset_is_never_taken_for_that_of_other_images(folder, tmp_path, capsys, flag):
    finished = tmp_path / "out" if flag == "--statistics" else tmp_path / "out/a"
    assert run(f"--source={folder}/a", f"--out={finished}", "--num_workers=1") == 0
    before = digests(finished)
    for file in (folder / "a").iterdir():
        file.write_bytes(picture(99))
    more = [flag] if flag == "--statistics" else [f"{flag}={folder}/b"]
    flags = [f"--source={folder}/a", f"--out={tmp_path}/out", "--num_workers=1", *more]
    check_command_refusal(lambda argv: run(*argv), flags, capsys, 2, str(finished))
    assert digests(finished) == before and not (tmp_path / "out/b").exists()


def messages(capsys):
    return "\n".join(json.loads(line)["message"] for line in capsys.readouterr().out.splitlines())
