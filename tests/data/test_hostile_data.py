"""Hostile names and texts in prepared datasets, archives and CSV files are refused or escaped."""

import csv
import io
import json
import logging as standard_logging
import tarfile
import zipfile

import numpy as np
import pytest
from bucket_runs import run, train
from hostile import IMAGES, TEXTS, check_raised, hostile_names, is_clean, name_of
from PIL import Image

from trainer import logging
from trainer.data.dataset_spec import SPEC_NAME, Shard, read_dataset_spec
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ConfigError, DataError, StorageError
from trainer.storage import locate

pytestmark = pytest.mark.usefixtures("outside")


@pytest.fixture(params=["local", "bucket"])
def prepared_set(request, work):
    """A function that writes a dataset with changed fields of its first shard, and returns its location."""

    def make(**changes):
        write_prepared(work / "set", IMAGES, np.arange(4) % 2, ["a", "b"], num_shards=2, **TEXTS)
        content = json.loads((work / "set" / SPEC_NAME).read_text())
        content["shards"][0] |= changes
        (work / "set" / SPEC_NAME).write_text(json.dumps(content))
        if request.param == "local":
            return locate(work / "set")
        folder = locate(request.getfixturevalue("bucket")) / "set"
        folder.upload(work / "set", [path.name for path in (work / "set").iterdir()])
        return folder

    return make


def check_set_refused(folder, work, refused):
    with pytest.raises(DataError) as caught:
        read_dataset_spec(folder)
    check_raised(caught)
    with pytest.raises(DataError):
        ShardCache(folder, work / "cache")
    refused(run("inspect", f"--dataset={folder}"))
    refused(train(folder, work / "run", "--steps=1"))
    assert {path.name for path in work.iterdir()} == {"set"}


@hostile_names
def test_a_dataset_with_a_hostile_shard_is_refused(key, prepared_set, work, outside, refused):
    check_set_refused(prepared_set(file=name_of(key, outside)), work, refused)


@pytest.mark.parametrize(
    "digest", ["{outside}/x", "../../../../outside/x", "../x", "", "A" * 64, "0" * 63, "0" * 64 + "\n", "\x1b[2J", "\0"]
)
def test_a_dataset_with_an_invalid_hash_is_refused(digest, prepared_set, work, outside, refused):
    check_set_refused(prepared_set(sha256=digest.replace("{outside}", str(outside))), work, refused)


def test_an_unchecked_hash_of_a_shard_names_no_file(prepared_set, work, outside):
    folder = prepared_set()
    files = ShardCache(folder, work / "cache")
    for name, digest in (("../../outside/secret", "0" * 64), (files.spec.shards[0].file, f"{outside}/x")):
        shard = Shard(file=name, num_examples=1, num_bytes=1, sha256=digest, crc32c="")
        with pytest.raises((DataError, StorageError)):
            files.fetch([shard])


def test_a_shard_that_is_a_link_out_of_its_folder_is_refused(work, outside, refused):
    write_prepared(work / "set", IMAGES, np.arange(4) % 2, ["a", "b"], **TEXTS)
    shard = next((work / "set").glob("*.tfrecord"))
    shard.rename(work / "moved")
    shard.symlink_to(work / "moved")
    with pytest.raises(DataError):
        ShardCache(locate(work / "set"))
    refused(run("inspect", f"--dataset={work}/set"))


def test_texts_of_a_dataset_are_escaped_on_the_terminal(work, capsys, refused):
    names = ["a\x9b2J", "b\x7f\u202e"]
    write_prepared(work / "set", IMAGES, np.arange(4) % 2, names, **TEXTS)
    assert run("inspect", f"--dataset={work}/set") == 0
    out = capsys.readouterr().out
    assert is_clean(out.replace("\n", "")) and list(json.loads(out)["classes"]) == names
    content = json.loads((work / "set" / SPEC_NAME).read_text())
    content |= {"name": "x\nerror: all is well\x1b[2J", "class_counts": [1, 3]}
    (work / "set" / SPEC_NAME).write_text(json.dumps(content))
    refused(train(work / "set", work / "run", "--steps=1"))
    content["format_version"] = "1\n\x1b[2J" * 100
    (work / "set" / SPEC_NAME).write_text(json.dumps(content))
    refused(run("inspect", f"--dataset={work}/set"))


def test_log_messages_on_a_terminal_are_escaped(monkeypatch, capsys):
    monkeypatch.setattr(logging, "is_terminal", lambda stream=None: True)
    logging.install_handler()
    standard_logging.getLogger("trainer.test").warning("Passed over step-1/\x1b]0;owned\x07\x9b2J.")
    assert is_clean(capsys.readouterr().out.removeprefix("\r\x1b[K").rstrip("\n"))


def png():
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "PNG")
    return buffer.getvalue()


@hostile_names
@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_an_archive_with_a_hostile_member_is_refused(kind, key, work, outside, refused):
    name, content = f"{name_of(key, outside)}.png", png()
    if kind == "x.zip":
        with zipfile.ZipFile(work / kind, "w") as archive:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            archive.writestr(info, content)
    else:
        if "\0" in name:
            pytest.skip("no tar file has such a name")
        with tarfile.open(work / kind, "w:gz" if kind.endswith("gz") else "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError) as caught, open_source(str(work / kind)):
        pass
    check_raised(caught)
    refused(run("prepare", f"--source={work / kind}", f"--out={work}/set", "--num_workers=1"))
    assert [path.name for path in work.iterdir()] == [kind]


def test_an_archive_of_the_current_folder_is_accepted(work):
    with tarfile.open(work / "x.tar", "w") as archive:
        for name in (".", "./a"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        member = tarfile.TarInfo("./a/1.png")
        member.size = len(png())
        archive.addfile(member, io.BytesIO(png()))
    with open_source(str(work / "x.tar")) as source:
        assert source.read(0) == png()


def table(path, *names):
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["path"], *([name] for name in names)])
    return str(path)


@hostile_names
@pytest.mark.parametrize("where", ["local", "bucket"])
def test_a_csv_with_a_hostile_path_is_refused(where, key, request, work, outside, refused):
    if key == "NUL":
        pytest.skip("no CSV has such a text")
    source = table(work / "x.csv", name_of(key, outside))
    if where == "bucket":
        folder = locate(request.getfixturevalue("bucket"))
        folder.upload(work, ["x.csv"])
        source = str(folder / "x.csv")
    with pytest.raises(DataError) as caught, open_source(source):
        pass
    check_raised(caught)
    refused(run("prepare", f"--source={source}", f"--out={work}/set", "--num_workers=1"))
    assert [path.name for path in work.iterdir()] == ["x.csv"]


def test_a_csv_lists_images_in_its_folder_or_in_image_root(work, bucket, monkeypatch):
    (work / "pictures").mkdir()
    (work / "tables").mkdir()
    (work / "pictures/1.png").write_bytes(png())
    (locate(bucket) / "pictures/1.png").write_bytes(png())
    source = table(work / "pictures/x.csv", "1.png", "./1.png", f"{work}/pictures/1.png")
    with open_source(source) as opened:
        assert [opened.read(index) for index in range(3)] == [png()] * 3
    for root in (f"{work}/pictures", f"{bucket}/pictures"):
        source = table(work / "tables/x.csv", "1.png", f"{root}/1.png")
        with pytest.raises(DataError), open_source(source):
            pass
        with open_source(source, SourceOptions(image_root=root)) as opened:
            assert [opened.read(index) for index in range(2)] == [png()] * 2
    with pytest.raises(ConfigError), open_source(str(work / "pictures"), SourceOptions(image_root=str(work))):
        pass


def test_a_csv_with_a_link_out_of_its_folder_is_refused(work, outside):
    (work / "set").mkdir()
    (work / "set/1.png").symlink_to(outside / "secret")
    with pytest.raises(DataError), open_source(table(work / "set/x.csv", "1.png")):
        pass
