"""A source becomes a prepared set: always the same bytes, complete or absent, and bad pictures are named."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from refusals import check_refusal

from trainer import __main__ as commands
from trainer.data.loading import load
from trainer.data.prepare import convert
from trainer.data.prepare.convert import Options
from trainer.data.prepare.sources import opened
from trainer.errors import ConfigError, DataError
from trainer.storage import locate

ABOUT = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}


def picture(number, size=(6, 6)):
    """A picture whose first pixel tells its number."""
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


def prepared(folder, out, told=lambda tally: None, **options):
    options = Options(**({"num_processes": 1} | options))
    with opened(str(folder)) as source:
        plan = convert.plan(source, options)
        return convert.prepare(source, plan, options, locate(str(out)), ABOUT, told)


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def numbers(arrays):
    return arrays.images[:, 0, 0, 0].tolist()


def test_every_picture_is_in_the_set_once_shuffled_with_its_class(folder, tmp_path):
    manifest, tally = prepared(folder, tmp_path / "out", shard_mib=0.001)
    arrays = load(str(tmp_path / "out"))
    assert sorted(numbers(arrays)) == list(range(40)) and numbers(arrays)[:10] != list(range(10))
    assert all(label == number % 4 for number, label in zip(numbers(arrays), arrays.labels, strict=True))
    assert (manifest.class_names, manifest.class_counts) == (("a", "b", "c", "d"), (10,) * 4)
    assert (manifest.image_shape, manifest.num_examples, tally.done) == ((6, 6, 3), 40, 40)
    assert len(manifest.shards) > 3 and sum(shard.num_examples for shard in manifest.shards) == 40
    first = Image.open(folder / "a" / "0.png")
    assert (arrays.images[numbers(arrays).index(0)] == np.asarray(first)).all()


def test_the_bytes_do_not_depend_on_the_number_of_processes(folder, tmp_path):
    for num_processes in (1, 2, 3):
        prepared(folder, tmp_path / str(num_processes), num_processes=num_processes, shard_mib=0.002)
    assert digests(tmp_path / "1") == digests(tmp_path / "2") == digests(tmp_path / "3")


def test_a_limit_takes_evenly_and_classes_keep_the_given_order(folder, tmp_path):
    manifest, _ = prepared(folder, tmp_path / "few", limit=8)
    assert manifest.class_counts == (2, 2, 2, 2)
    manifest, _ = prepared(folder, tmp_path / "some", classes=("c", "a"))
    assert (manifest.class_names, manifest.class_counts) == (("c", "a"), (10, 10))
    arrays = load(str(tmp_path / "some"))
    assert {(number % 4, label) for number, label in zip(numbers(arrays), arrays.labels, strict=True)} == {
        (2, 0),
        (0, 1),
    }


def test_bad_pictures_are_named_and_end_it_unless_allowed(folder, tmp_path):
    (folder / "a" / "cut.png").write_bytes(picture(3)[:-60])
    (folder / "b" / "empty.png").write_bytes(b"")
    (folder / "c" / "large.png").write_bytes(picture(7, (9, 6)))
    with pytest.raises(DataError, match=r"\.png.* --max_bad_images=1\b"):
        prepared(folder, tmp_path / "out", max_bad_images=1)
    assert not (tmp_path / "out" / "dataset.json").exists()
    manifest, tally = prepared(folder, tmp_path / "out", max_bad_images=3)
    problems = dict(tally.bad)
    assert set(problems) == {"a/cut.png", "b/empty.png", "c/large.png"} and len(set(problems.values())) == 3
    assert all(fact in problems["c/large.png"] for fact in ("9×6", "6×6", "--image_size", "--resize"))
    assert manifest.num_examples == 40 and len(load(str(tmp_path / "out")).images) == 40


def test_a_cut_gif_among_the_first_pictures_is_named(folder, tmp_path):
    gif = io.BytesIO()
    Image.open(io.BytesIO(picture(3, (64, 64)))).save(gif, "GIF")
    (folder / "a" / "cut.gif").write_bytes(gif.getvalue()[:-300])
    check_refusal(lambda: prepared(folder, tmp_path / "out"), DataError, "a/cut.gif")
    assert prepared(folder, tmp_path / "out", max_bad_images=1)[0].num_examples == 40


def test_no_usable_picture_is_an_error(tmp_path):
    for number in range(3):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.png").write_bytes(b"no picture")
    for known in ({}, {"image_size": (4, 4), "channels": 1}):
        check_refusal(
            lambda known=known: prepared(tmp_path / "pictures", tmp_path / "out", max_bad_images=9, **known),
            DataError,
            *("none", " 3 "),
        )


def test_gray_or_color_is_told_by_the_first_pictures(tmp_path):
    (tmp_path / "gray").mkdir()
    for number in range(3):
        Image.open(io.BytesIO(picture(number))).convert("L").save(tmp_path / "gray" / f"{number}.png")
    assert prepared(tmp_path / "gray", tmp_path / "out")[0].image_shape == (6, 6, 1)
    (tmp_path / "gray" / "color.png").write_bytes(picture(9))
    assert prepared(tmp_path / "gray", tmp_path / "color")[0].image_shape == (6, 6, 3)


def test_an_interrupted_set_is_removed_and_a_complete_one_kept(folder, tmp_path):
    def interrupt(tally):
        if tally.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(folder, tmp_path / "out", interrupt, shard_mib=0.0001)
    left = set(digests(tmp_path / "out"))
    assert left and "dataset.json" not in left
    prepared(folder, tmp_path / "out")
    prepared(folder, tmp_path / "again")
    assert digests(tmp_path / "out") == digests(tmp_path / "again")
    check_refusal(lambda: prepared(folder, tmp_path / "out"), ConfigError, f"out={tmp_path}/out")
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


LEFT = ["images-00000.tfrecord", "images-00017.tfrecord", "images-123456.tfrecord", ".images-00003.tfrecord.partial"]
OF_THE_USER = [
    "images-001.png",
    "images-00001.tfrecord.png",
    "images-00001-of-00002.tfrecord",
    "images-0001.tfrecord",
    "images-raw/0.png",
    "images-00000/images-00000.tfrecord",
    "a/images-00000.tfrecord",
]


def test_only_shards_of_an_interrupted_set_are_deleted(folder, tmp_path):
    for name in LEFT + OF_THE_USER:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(name.encode())
    prepared(folder, tmp_path / "out")
    for name in OF_THE_USER:
        assert (tmp_path / "out" / name).read_bytes() == name.encode()
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"images-00000.tfrecord", "dataset.json", *OF_THE_USER}
    assert len(load(str(tmp_path / "out")).images) == 40


def test_a_set_beside_its_pictures_leaves_the_pictures_alone(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(6):
        (flat / f"images-{number:03d}.png").write_bytes(picture(number))
    before = digests(flat)
    prepared(flat, flat)
    assert before.items() < digests(flat).items()
    prepared(flat, tmp_path / "again")
    assert digests(tmp_path / "again").items() < digests(flat).items()


def test_a_set_made_in_a_bucket_has_the_same_bytes(folder, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = locate(bucket)
    (there / "pictures").upload(folder, [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")])
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    there.upload(tmp_path, ["pictures.zip"])
    prepared(folder, tmp_path / "out", shard_mib=0.002)
    for name in ("pictures", "pictures.zip"):
        prepared(there / name, there / f"{name}-set", shard_mib=0.002)
        (there / f"{name}-set").download(
            {entry.name: tmp_path / "back" / name / entry.name for entry in (there / f"{name}-set").entries()}
        )
        assert digests(tmp_path / "back" / name) == digests(tmp_path / "out")
    assert sorted(numbers(load(f"{bucket}/pictures-set"))) == list(range(40))


def run(*arguments):
    return commands.main(["trainer", "prepare", *arguments])


def test_the_command_makes_a_set_and_prints_how_to_train_on_it(folder, tmp_path, capsys):
    (folder / "a" / "empty.png").write_bytes(b"")
    out = tmp_path / "out"
    asked = [f"--source={folder}", f"--out={out}", "--image_size=4", "--max_bad_images=2", "--processes=1"]
    assert run(*asked, "--dry_run") == 0
    told = said(capsys)
    assert all(fact in told for fact in ("41", "4×4×3", "--resize=crop")) and not out.exists()
    assert run(*asked) == 0
    told = said(capsys)
    assert all(fact in told for fact in ("40", "4×4×3", "a/empty.png"))
    assert f"python -m trainer.task --dataset={out} --job_dir=runs/out" in told
    manifest = json.loads((out / "dataset.json").read_text())
    assert manifest["source"] == str(folder) and manifest["options"]["resize"] == "crop"
    assert manifest["options"]["image_size"] == [4, 4]


def test_the_command_makes_two_domains(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(f"--source={folder}/a", f"--source_b={folder}/b", f"--out={out}", "--processes=1") == 0
    assert f"--recipe=cyclegan --dataset={out}/a --dataset_b={out}/b" in said(capsys)
    assert [len(load(str(out / domain)).images) for domain in "ab"] == [10, 10]


def said(capsys):
    return "\n".join(json.loads(line)["message"] for line in capsys.readouterr().out.splitlines())
