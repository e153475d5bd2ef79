"""`prepare` lists the files that it skips, and takes labels from folders, splits or metadata files."""

import io
import json
import tarfile
import zipfile

import pytest
from file_sets import write_folder, write_tar, write_zip
from pictures import image
from refusals import check_refusal

from trainer import __main__ as commands
from trainer.data.prepare.sources import SourceOptions, listing, open_source
from trainer.errors import ConfigError, DataError
from trainer.storage import locate

PNG = image(0)


MAKERS = {"set": write_folder, "set.zip": write_zip, "set.tar": write_tar, "set.tar.gz": write_tar}


@pytest.fixture(params=MAKERS)
def make(request, tmp_path):
    """A function that writes files as a folder or an archive, and returns its path."""
    return lambda files: MAKERS[request.param](tmp_path / request.param, files)


def classes_of(path, **options):
    """Returns the class name of each image of a source, by its name, and the notes of the source."""
    with open_source(str(path), options=SourceOptions(**options)) as source:
        notes = " ".join([*source.notes, *source.class_notes])
        assert all(source.read(index) == PNG for index in range(len(source.items)))
        return {item.name: source.class_names[item.label] for item in source.items}, notes


def images(*names):
    return dict.fromkeys(names, PNG)


def text(value):
    return json.dumps(value).encode()


LABELS = {"labels": [["00000/img0.png", 6], ["00000/img1.png", 2], ["00001/img2.png", 6]]}
STYLEGAN = images("00000/img0.png", "00000/img1.png", "00001/img2.png")
STYLEGAN_CLASSES = {"00000/img0.png": "6", "00000/img1.png": "2", "00001/img2.png": "6"}
CSV = b"file_name,label\r\n1.png,cat\r\nsub/2.png,dog\r\n"
JSON_LINES = b'{"file_name": "1.png", "label": 10}\n{"file_name": "sub/2.png", "label": 9}\n\n'
FLAT = images("1.png", "sub/2.png")
TREE = images("train/cat/1.png", "train/dog/2.png", "test/cat/3.png")

READ = {
    "labels of StyleGAN": (STYLEGAN | {"dataset.json": text(LABELS)}, {}, STYLEGAN_CLASSES),
    "StyleGAN without labels": (
        STYLEGAN | {"dataset.json": text({"labels": None})},
        {},
        dict.fromkeys(STYLEGAN, "set"),
    ),
    "StyleGAN in a folder": (
        {f"out/{name}": content for name, content in (STYLEGAN | {"dataset.json": text(LABELS)}).items()},
        {},
        {f"out/{name}": label for name, label in STYLEGAN_CLASSES.items()},
    ),
    "metadata.csv": (FLAT | {"metadata.csv": CSV}, {}, {"1.png": "cat", "sub/2.png": "dog"}),
    "metadata.csv with a mark": (
        FLAT | {"metadata.csv": b"\xef\xbb\xbf" + CSV},
        {},
        {"1.png": "cat", "sub/2.png": "dog"},
    ),
    "metadata.jsonl": (FLAT | {"metadata.jsonl": JSON_LINES}, {}, {"sub/2.png": "9", "1.png": "10"}),
    "metadata of each split": (
        images("train/1.png", "test/1.png")
        | {
            "train/metadata.csv": b"file_name,label\n1.png,cat\n",
            "test/metadata.csv": b"file_name,label\n1.png,dog\n",
        },
        {"split": ("test", "train")},
        {"train/1.png": "cat", "test/1.png": "dog"},
    ),
    "a column by name": (
        FLAT | {"metadata.csv": b"file_name,label,breed\n1.png,a,pug\nsub/2.png,a,lab\n"},
        {"label_field": "breed"},
        {"1.png": "pug", "sub/2.png": "lab"},
    ),
    "captions are no labels": (
        images("a/1.png", "b/2.png") | {"metadata.csv": b"file_name,text\na/1.png,hello\nb/2.png,you\n"},
        {},
        {"a/1.png": "a", "b/2.png": "b"},
    ),
    "a JSON of other content": (
        images("a/1.png", "b/2.png") | {"dataset.json": text({"images": []})},
        {},
        {"a/1.png": "a", "b/2.png": "b"},
    ),
    "no labels by choice": (
        images("a/1.png", "b/2.png", "3.png") | {"metadata.csv": b"file_name,label\nb/2.png,x\n"},
        {"label_field": "none"},
        {"a/1.png": "set", "b/2.png": "set", "3.png": "set"},
    ),
    "train by default": (TREE, {}, {"train/cat/1.png": "cat", "train/dog/2.png": "dog"}),
    "a split": (TREE, {"split": ("test",)}, {"test/cat/3.png": "cat"}),
    "several splits": (
        TREE,
        {"split": ("train", "test")},
        {"train/cat/1.png": "cat", "test/cat/3.png": "cat", "train/dog/2.png": "dog"},
    ),
    "a single split is a wrapper": (
        images("train/a/1.png", "train/b/2.png"),
        {},
        {"train/a/1.png": "a", "train/b/2.png": "b"},
    ),
    "a class with the name of a split": (
        images("plane/1.png", "train/2.png"),
        {},
        {"plane/1.png": "plane", "train/2.png": "train"},
    ),
    "ImageNet": (
        images(*(f"ILSVRC/Data/CLS-LOC/{name}" for name in ("train/n01/1.JPEG", "train/n02/2.JPEG", "val/3.JPEG")))
        | {"ILSVRC/Annotations/CLS-LOC/val/3.xml": b"<a/>"},
        {},
        {"ILSVRC/Data/CLS-LOC/train/n01/1.JPEG": "n01", "ILSVRC/Data/CLS-LOC/train/n02/2.JPEG": "n02"},
    ),
    "thumbnails of a NAS": (
        images("a/1.png", "b/2.png", "b/@eaDir/2.png/SYNOFILE_THUMB_M.jpg", "@eaDir/SYNOFILE_THUMB_M.jpg"),
        {},
        {"a/1.png": "a", "b/2.png": "b"},
    ),
    "a flat split": (images("train/a/1.png", "val/3.png"), {"split": ("val",)}, {"val/3.png": "set"}),
    "domains of CycleGAN": (images("trainA/1.png", "testA/2.png"), {"split": ("trainA",)}, {"trainA/1.png": "set"}),
}


@pytest.mark.parametrize("key", READ)
def test_labels_come_from_metadata_splits_or_folders(make, key):
    files, options, expected = READ[key]
    assert classes_of(make(files), **options)[0] == expected


REPORTED = {
    "other formats": (
        images("1.png") | dict.fromkeys([f"{n}.HEIC" for n in range(30)] + [f"{n}.jp2" for n in range(20)], b"x"),
        ("50 of 51", "30 .heic", "20 .jp2"),
    ),
    "a file without a suffix": (images("1.png") | {"LICENSE": b""}, ("1 of 2", "suffix")),
    "nested archives": (images("1.png") | {"more.zip": b"", "rest.tar.gz": b""}, ("1 .zip", "1 .gz", "--source")),
    "nested arrays": (images("1.png") | {"x.npz": b""}, ("1 .npz", "--source")),
    "data of other formats": (images("1.png") | {"x.mat": b"", "y.arrow": b""}, ("1 .mat", "1 .arrow", ".npz", ".h5")),
    "images and masks": (
        images("images/1.png", "masks/1.png"),
        ("'images', 'masks'", "--source", "--label_field=none"),
    ),
    "images and labels": (images("imgs/1.png", "Labels/1.png"), ("'Labels', 'imgs'", "--source")),
    "pickles": (images("1.png") | {"x.pkl": b""}, ("1 .pkl", "numpy.savez")),
    "hidden images": (images("a/1.png", ".cache/2.png", "a/.3.png"), ("Hidden images", ": 2.")),
    "class names that differ in case": (images("Cat/1.png", "cat/2.png"), ("'Cat' and 'cat'",)),
    "more class names that differ in case than are listed": (
        images(*(f"{name}{n}/{n}.png" for n in range(9) for name in ("Cat", "cat"))),
        ("'Cat7' and 'cat7', …",),
    ),
    "class names that differ in spaces": (images("cat /1.png", "cat/2.png"), ("'cat' and 'cat '",)),
    "class names that differ in encoding": (images("caf\u00e9/1.png", "cafe\u0301/2.png"), ("'caf\u00e9'",)),
    "an empty class": (images("a/1.png", "b/2.png") | {"c/": b""}, ("'c'",)),
    "a class of other formats": (images("a/1.png", "b/2.png") | {"c/3.heic": b""}, ("'c'", "1 .heic")),
    "an empty class of a split": (
        images("train/a/1.png", "train/b/2.png", "test/a/3.png") | {"train/c/": b""},
        ("'c'",),
    ),
    "other splits": (TREE, ("test (1 image)", "--split")),
    "folders and images beside splits": (
        TREE | images("extra/5.png", "preview.png"),
        ("extra (1 image)", "test (1 image)", "beside", ": 1."),
    ),
    "folders in classes": (images("cat/tabby/1.png", "dog/lab/2.png"), ("'cat', 'dog'", "'cat/tabby'", "--source")),
    "chunk folders": (images("00000/1.png", "01000/2.png"), ("00000", "01000", "--label_field=none")),
    "a class of each image": (images(*(f"{n}/{n}.png" for n in range(12))), ("12 classes", "--label_field=none")),
    "metadata without labels": (
        images("a/1.png", "b/2.png") | {"metadata.jsonl": b'{"file_name": "a/1.png", "text": "x"}'},
        ("metadata.jsonl",),
    ),
}


@pytest.mark.parametrize("key", REPORTED)
def test_what_is_left_out_or_looks_odd_is_reported(make, key):
    files, facts = REPORTED[key]
    notes = classes_of(make(files))[1]
    assert all(fact in notes for fact in facts), notes


def test_nothing_is_reported_about_plain_folders(make):
    files = images("a/1.png", "a/2.png", "b/3.png") | {
        "__MACOSX/a/._1.png": b"x",
        "a/.DS_Store": b"x",
        "a/._1.png": b"x",
    }
    assert classes_of(make(files)) == ({"a/1.png": "a", "a/2.png": "a", "b/3.png": "b"}, "")


def test_nothing_is_reported_about_a_single_outer_folder(make):
    assert classes_of(make(images("photos/1.png", "photos/2.png")))[1] == ""


REFUSED = {
    "a label of a missing file": (FLAT | {"metadata.csv": CSV + b"3.png,cat\n"}, {}, DataError, ("'3.png'",)),
    "an unlabeled image": (FLAT | images("3.png") | {"metadata.csv": CSV}, {}, DataError, ("1 of 3", "'3.png'")),
    "an unlabeled image of StyleGAN": (
        STYLEGAN | {"dataset.json": text({"labels": LABELS["labels"][:1]})},
        {},
        DataError,
        ("2 of 3", "img1.png"),
    ),
    "two columns of labels": (
        FLAT | {"metadata.csv": b"file_name,label,class\n1.png,a,b\nsub/2.png,a,b\n"},
        *({}, ConfigError, ("metadata.csv", "'label'", "'class'", "label_field")),
    ),
    "a column of labels twice": (
        FLAT | {"metadata.csv": b"file_name,label,label\n1.png,a,b\nsub/2.png,a,b\n"},
        *({}, DataError, ("metadata.csv", "'label'")),
    ),
    "two files with other labels": (
        FLAT | {"metadata.csv": CSV, "metadata.jsonl": b'{"file_name": "1.png", "label": "dog"}\n'},
        *({}, DataError, ("metadata.csv", "metadata.jsonl", "'1.png'")),
    ),
    "two labels": (FLAT | {"metadata.csv": CSV + b"1.png,dog\n"}, {}, DataError, ("metadata.csv", "'1.png'")),
    "an empty label": (FLAT | {"metadata.csv": b"file_name,label\n1.png,\nsub/2.png,a\n"}, {}, DataError, ("line 2",)),
    "a label that is a number": (
        FLAT | {"metadata.jsonl": JSON_LINES.replace(b"10", b"1.5")},
        {},
        DataError,
        ("metadata.jsonl", "1.5"),
    ),
    "vectors of StyleGAN": (
        STYLEGAN | {"dataset.json": text({"labels": [["00000/img0.png", [0.5, 1.0]]]})},
        {},
        DataError,
        ("dataset.json", "0.5"),
    ),
    "labels that are no list": (
        STYLEGAN | {"dataset.json": text({"labels": {"a": 1}})},
        {},
        DataError,
        ("dataset.json",),
    ),
    "labels of 70 MB": (FLAT | {"metadata.csv": bytes(70 * 2**20)}, {}, DataError, ("metadata.csv",)),
    "labels of 65 MB": (FLAT | {"dataset.json": bytes(65 * 2**20)}, {}, DataError, ("dataset.json",)),
    "a line of a megabyte": (
        FLAT | {"metadata.jsonl": b'{"file_name": "1.png", "label": [' + b"[]," * 400_000 + b"[]]}"},
        {},
        DataError,
        ("line 1 of metadata.jsonl", f"{2**20:,}"),
    ),
    "a million columns": (
        FLAT | {"metadata.csv": b"file_name,label" + b"," * 1_000_000 + b"\n" + b"1.png\n" * 1_000_000},
        {},
        DataError,
        ("metadata.csv", "1,000"),
    ),
    "a line without end": (FLAT | {"metadata.csv": CSV + b"," * 2**20}, {}, DataError, ("metadata.csv", f"{2**20:,}")),
    "a key twice": (
        FLAT | {"metadata.jsonl": b'{"file_name": "1.png", "label": 1, "label": 2}'},
        {},
        DataError,
        ("line 1 of metadata.jsonl", "'label'"),
    ),
    "a line that is too deep": (
        FLAT | {"metadata.jsonl": JSON_LINES + b"[" * 1000 + b"]" * 1000},
        {},
        DataError,
        ("metadata.jsonl", "64"),
    ),
    "a line without a path": (FLAT | {"metadata.jsonl": JSON_LINES + b'{"label": 1}'}, {}, DataError, ("line 4",)),
    "a label that is not finite": (
        FLAT | {"metadata.jsonl": b'{"file_name": "1.png", "label": NaN}'},
        {},
        DataError,
        ("line 1 of metadata.jsonl",),
    ),
    "a negative class": (
        STYLEGAN | {"dataset.json": text({"labels": [["00000/a.png", -1]]})},
        {},
        DataError,
        ("dataset.json", "-1"),
    ),
    "damaged JSON": (STYLEGAN | {"dataset.json": b'{"labels": ['}, {}, DataError, ("dataset.json",)),
    "deep JSON": (STYLEGAN | {"dataset.json": b"[" * 100_000}, {}, DataError, ("dataset.json",)),
    "JSON that is no text": (FLAT | {"metadata.jsonl": b"\xff\xfe"}, {}, DataError, ("metadata.jsonl",)),
    "a line that is no object": (FLAT | {"metadata.jsonl": b"[1]\n"}, {}, DataError, ("metadata.jsonl",)),
    "a CSV field without end": (
        FLAT | {"metadata.csv": b'file_name,label\n1.png,"' + b"x" * 200_000},
        {},
        DataError,
        ("metadata.csv",),
    ),
    "an unknown column": (FLAT | {"metadata.csv": CSV}, {"label_field": "breed"}, DataError, ("breed", "'label'")),
    "a column without metadata": (FLAT, {"label_field": "breed"}, ConfigError, ("label_field='breed'",)),
    "an unknown split": (TREE, {"split": ("val",)}, ConfigError, ("split='val'", "train (2 images)", "test (1 image)")),
    "a split of a source without": (
        images("a/1.png", "b/2.png"),
        {"split": ("val",)},
        ConfigError,
        ("split='val'", "a ("),
    ),
    "a split without folders": (images("1.png"), {"split": ("train",)}, ConfigError, ("split='train'", "no splits")),
    "splits without train": (images("val/a/1.png", "test/a/2.png"), {}, ConfigError, ("--split=", "val", "test")),
    "domains of CycleGAN": (images("trainA/1.png", "trainB/2.png"), {}, ConfigError, ("--split=", "trainA", "trainB")),
    "an image beside classes": (images("a/1.png", "2.png"), {}, DataError, ("2.png", "--label_field=none")),
    "no images": ({"a/1.heic": b"", "b/2.mat": b""}, {}, DataError, ("2 of 2", "1 .heic", "1 .mat", ".png")),
    "CIFAR's pickles": (
        {"py/data_batch_1": b"\x80\x02}", "py/batches.meta": b"\x80"},
        {},
        DataError,
        ("numpy.savez", "tfds:cifar10"),
    ),
    "an option of arrays": (images("1.png"), {"image_range": "0..1"}, ConfigError, ("image_range='0..1'",)),
    "splits of COCO": (images("train2017/1.png", "val2017/2.png"), {}, ConfigError, ("--split=train2017",)),
    "an option of tables": (images("1.png"), {"image_root": "x"}, ConfigError, ("image_root='x'",)),
}


@pytest.mark.parametrize("key", REFUSED)
def test_sources_with_several_readings_are_refused(make, key):
    files, options, error, facts = REFUSED[key]
    check_refusal(lambda: classes_of(make(files), **options), error, *facts)


@pytest.mark.parametrize(
    "names", [("a\\1.png", "b\\2.png"), ("set\\a\\1.png", "set\\b\\2.png"), ("a/1.png", "b\\2.png")]
)
def test_backslashes_in_a_zip_separate_folders(tmp_path, names):
    path = write_zip(tmp_path / "set.zip", {"set\\": b""} | images(*names))
    assert list(classes_of(path)[0].values()) == ["a", "b"]


def test_a_file_of_a_zip_that_another_separator_replaces_is_counted(tmp_path):
    classes, notes = classes_of(write_zip(tmp_path / "set.zip", {"a\\1.png": b"old"} | images("a/1.png", "b/2.png")))
    assert classes == {"a/1.png": "a", "b/2.png": "b"} and ": 1." in notes


def test_a_damaged_file_with_labels_in_an_archive_is_named(tmp_path):
    path = write_zip(tmp_path / "set.zip", FLAT | {"metadata.csv": CSV})
    path.write_bytes(path.read_bytes().replace(CSV, CSV[::-1], 1))
    check_refusal(lambda: classes_of(path), DataError, "metadata.csv")


def test_later_files_of_an_archive_replace_earlier_ones(tmp_path):
    with (
        tarfile.open(tmp_path / "set.tar", "w") as archive,
        zipfile.ZipFile(tmp_path / "set.zip", "w") as zipped,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        for content in (b"old", PNG):
            member = tarfile.TarInfo("a/1.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            zipped.writestr("a/1.png", content)
    for name in ("set.zip", "set.tar"):
        classes, notes = classes_of(tmp_path / name)
        assert classes == {"a/1.png": "a"} and ": 1." in notes


@pytest.mark.parametrize("num_keys", [1, 3, 50_000])
def test_long_lists_are_in_natural_order(num_keys, monkeypatch):
    monkeypatch.setattr(listing, "_NUM_KEYS", num_keys)
    ordered = ["a/2.png", "a/10.png", "a/b.png", "a/c/1.png", "b/01.png", "b/1.png", "b/x/9.png", "b/x/10.png"]
    for names in (sorted(ordered), sorted(ordered, reverse=True)):
        images = listing.list_images([f"set/{name}" for name in names], "set", "set", SourceOptions(), bytes).items
        assert [image.label for image in images] == [0] * 4 + [1] * 4
        equal = sorted(("b/01.png", "b/1.png"), key=names.index)  # equal numbers keep the order of the source
        expected = [*ordered[:4], *equal, *ordered[6:]]
        assert [image.name for image in images] == [f"set/{name}" for name in expected]


def test_a_bucket_is_read_like_a_folder(bucket, tmp_path):
    files = STYLEGAN | {"dataset.json": text(LABELS), "x.heic": b""}
    write_folder(tmp_path / "set", files)
    (locate(bucket) / "set").upload(tmp_path / "set", list(files))
    classes, notes = classes_of(f"{bucket}/set")
    assert classes == STYLEGAN_CLASSES and "1 .heic" in notes


def test_the_command_reports_what_is_left_out_before_it_writes(tmp_path, capsys):
    write_folder(tmp_path / "set", TREE | {"x.heic": b""})
    command = ["trainer", "prepare", f"--source={tmp_path}/set", f"--out={tmp_path}/out", "--split=train,test"]
    assert commands.main([*command, "--dry_run"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (note,) = [record for record in records if record["severity"] == "WARNING"]
    assert "1 .heic" in note["message"] and not (tmp_path / "out").exists()
    assert commands.main([*command, "--num_workers=1"]) == 0
    spec = json.loads((tmp_path / "out/dataset.json").read_text())
    assert spec["class_counts"] == [2, 1] and spec["options"]["split"] == ["train", "test"]
