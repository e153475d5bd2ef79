"""Shards of a WebDataset are read with the labels of their examples."""

import io
import tarfile

import pytest
from pictures import image
from refusals import check_refusal

from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.errors import ConfigError, DataError

PNG, JPEG = image(0), image(1, "JPEG")
FIRST = {"000.png": PNG, "000.cls": b"1\n", "000.json": b'{"label": "a", "n": 3}', "000.txt": b"a bird"}
SECOND = {"./x/001.JPG": JPEG, "./x/001.cls": b"0", "./x/001.json": b'{"label": "b", "n": 4}', "./x/001.txt": b"a cat"}
THIRD = {"002.png": image(2), "002.cls": b"1", "002.json": b'{"label": "a", "n": 3}', "002.txt": b"a cat"}


def without(files, *endings):
    return {name: content for name, content in files.items() if not name.endswith(endings)}


def write(path, *examples):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in (item for example in examples for item in example.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path, **options):
    """The class name and the content of each image, and the notes."""
    with open_source(str(path), SourceOptions(**options)) as source:
        contents = [source.read(index) for index in range(len(source.items))]
        return [source.class_names[item.label] for item in source.items], contents, source.notes


@pytest.mark.parametrize(
    ("label_field", "classes"),
    [
        (None, ["1", "0", "1"]),
        ("cls", ["1", "0", "1"]),
        ("label", ["a", "b", "a"]),
        ("txt", ["a bird", "a cat", "a cat"]),
        ("none", ["set"] * 3),
    ],
)
def test_examples_of_all_shards_are_read_with_their_labels(label_field, classes, tmp_path):
    write(tmp_path / "set/0.tar", FIRST, SECOND)
    write(tmp_path / "set/1.tar.gz", THIRD)
    (tmp_path / "set/sizes.json").write_text("{}")
    read_classes, contents, _ = read(tmp_path / "set", label_field=label_field)
    assert read_classes == classes and contents == [PNG, JPEG, THIRD["002.png"]]


def test_labels_of_one_shard_are_read_too(tmp_path):
    assert read(write(tmp_path / "set.tar", FIRST, SECOND))[0] == ["1", "0"]
    plain = write(tmp_path / "plain.tar", without(FIRST, "cls", "json"), without(THIRD, "cls", "json"))
    assert read(plain)[0] == ["plain"] * 2


def test_fields_of_json_are_labels_without_classes(tmp_path):
    write(tmp_path / "set/0.tar", without(FIRST, "cls"), without(THIRD, "cls"))
    assert read(tmp_path / "set")[0] == ["a", "a"]
    write(tmp_path / "set/0.tar", without(FIRST, "cls", "json"), without(THIRD, "cls", "json"))
    classes, _, notes = read(tmp_path / "set")
    assert classes == ["set"] * 2 and "without labels" in notes[0]


def test_shards_are_chosen_by_split(tmp_path):
    write(tmp_path / "set/train-000.tar", FIRST)
    write(tmp_path / "set/val-000.tar", SECOND)
    assert read(tmp_path / "set")[1] == [PNG] and read(tmp_path / "set", split=("val",))[1] == [JPEG]


def test_one_of_several_images_is_chosen_by_its_ending(tmp_path):
    write(tmp_path / "set/0.tar", FIRST | {"000.seg.png": THIRD["002.png"]})
    check_refusal(lambda: read(tmp_path / "set"), ConfigError, "image_field", "seg.png")
    assert read(tmp_path / "set", image_field="seg.png")[1] == [THIRD["002.png"]]
    check_refusal(lambda: read(tmp_path / "set", image_field="jpg"), ConfigError, "'jpg'", "seg.png")


@pytest.mark.parametrize(
    ("example", "options", "mentions"),
    [
        (without(THIRD, "cls"), {}, ["002 in 0.tar", "cls", "label_field=none"]),
        (THIRD | {"002.cls": b" "}, {}, ["002 in 0.tar", "cls"]),
        (THIRD | {"002.cls": b"\xff"}, {}, ["002 in 0.tar", "UTF-8"]),
        (THIRD | {"002.json": b"{"}, {"label_field": "label"}, ["002 in 0.tar", "json"]),
        (THIRD | {"002.json": b"[]"}, {"label_field": "label"}, ["002 in 0.tar", "json"]),
        (THIRD | {"002.json": b'{"label": [1]}'}, {"label_field": "label"}, ["002 in 0.tar", "[1]"]),
        (THIRD | {"002.json": b'{"label": true}'}, {"label_field": "label"}, ["002 in 0.tar", "True"]),
        (THIRD | {"002.txt": b"x" * 2**21}, {}, ["002.txt", "2,097,152"]),
        (without(THIRD, "png"), {}, ["002 in 0.tar", "'cls'", "image"]),
        (THIRD | {"002.jpg": JPEG}, {}, ["002 in 0.tar", "'jpg'", "image_field"]),
        (THIRD | {"002.PNG": PNG}, {}, ["002.PNG"]),
        ({"../002.png": PNG}, {}, ["../002.png"]),
        (THIRD, {"image_range": "0..1"}, ["image_range"]),
    ],
)
def test_examples_without_one_image_and_label_are_refused(example, options, mentions, tmp_path):
    write(tmp_path / "set/0.tar", FIRST, example)
    check_refusal(lambda: read(tmp_path / "set", **options), (DataError, ConfigError), *mentions)


def test_damaged_shards_and_those_without_examples_are_refused(tmp_path):
    path = write(tmp_path / "set/0.tar", FIRST, THIRD)
    path.write_bytes(path.read_bytes()[:5000])
    check_refusal(lambda: read(tmp_path / "set"), DataError, "0.tar")
    write(path, {"readme.md": b""})
    check_refusal(lambda: read(tmp_path / "set"), DataError, "set")
    write(path, {"cat/1.png": PNG, "dog/2.png": PNG})
    check_refusal(lambda: read(tmp_path / "set"), DataError, "cat/1", "label_field=none")
    assert read(path)[0] == ["cat", "dog"]
    assert read(tmp_path / "set", label_field="none")[0] == ["set"] * 2
