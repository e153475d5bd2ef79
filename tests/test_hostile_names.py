"""Names from outside never become paths outside of their place, and never code that the user did not name.

Every test has a folder beside it that must stay as it is, and so must the folder in which it runs.
"""

import csv
import hashlib
import io
import json
import logging as standard_logging
import os
import shutil
import sys
import tarfile
import tempfile
import types
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bucket_runs import train
from PIL import Image

from trainer import __main__ as commands, logging
from trainer.cloud.emulator import venvs
from trainer.cloud.tuning import trial_store
from trainer.data.dataset_spec import SPEC_NAME, Shard, read_dataset_spec
from trainer.data.prepare.sources import opened
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_reader import write_prepared
from trainer.errors import CheckpointError, ConfigError, DataError, StorageError
from trainer.storage import Mirror, RunDirectory, locate
from trainer.storage.gcs import BucketLocation, client
from trainer.training import restore
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest
from trainer.training.checkpoint.store import CheckpointStore

HOSTILE = {
    "parent": "../outside/x",
    "parent of parents": "../../../../../../../../../../../../outside/x",
    "parent in the middle": "a/../../outside/x",
    "absolute": "{outside}/x",
    "double slash": "a//x",
    "leading double slash": "//proc/self/cwd/absl.py",
    "working directory": "/proc/self/cwd/absl.py",
    "dot": "a/./x",
    "drive": "C:/x",
    "relative to a drive": "c:x",
    "backslashes": "..\\..\\x",
    "escape sequence": "a\x1b[2J\x1b]0;owned\x07x",
    "eight-bit escape": "a\x9b2Jx",
    "right to left": "a\u202egnp.x",
    "line break": "a\nerror: all is well",
    "carriage return": "a\rx",
    "NUL": "a\0x",
    "long part": "x" * 256,
    "long": "a/" * 600 + "x",
}
PLAIN = ["x", "a/b.png", "état/字 1.png", "...", "..a", "a..", ".hidden", "~", "-rf", "ab:c", "x" * 255, "nul\u00e4 x"]
SECRET = b"the secret of another place"
SECRET_SHA256 = hashlib.sha256(SECRET).hexdigest()
TEXTS = {"name": "set", "source": "", "license": "", "attribution": ""}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
hostile = pytest.mark.parametrize("key", HOSTILE)


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    """A folder that no test may change, beside the working folder and a folder for temporary files, which
    stay empty."""
    for name in ("outside", "cwd", "scratch", "work", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside/secret").write_bytes(SECRET)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "outside"
    assert tree(tmp_path / "outside") == {tmp_path / "outside/secret": SECRET}
    assert not tree(tmp_path / "cwd") and not tree(tmp_path / "scratch")
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "cwd", "scratch", "work", "cache"}


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def refused(capsys):
    """Checks that a command ends with an exit code and one line, which holds no control character."""

    def check(code, expected=1, *mentioned):
        captured = capsys.readouterr()
        assert code == expected, captured
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.err.endswith(".\n")
        assert is_clean(captured.err[:-1]) and len(captured.err) < 1000
        assert all(text in captured.err for text in mentioned), captured.err

    return check


def is_clean(text):
    return not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") or character == "\u202e" for character in text)


def check_raised(caught):
    assert is_clean(str(caught.value)) and len(str(caught.value)) < 1000


def name_of(key, outside):
    return HOSTILE[key].replace("{outside}", str(outside))


def run(command, *arguments):
    return commands.main(["trainer", command, *arguments])


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A tiny run."""
    job_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert train("digits", job_dir, "--steps=2") == 0
    return job_dir


@pytest.fixture
def local_run(trained_run, work):
    return Path(shutil.copytree(trained_run, work / "run"))


@pytest.fixture
def bucket_run(trained_run, bucket):
    folder = locate(f"{bucket}/run")
    folder.upload(trained_run, [entry.name for entry in locate(trained_run).entries()])
    return str(folder)


def put(folder, name):
    """Makes an object of any name, or skips where the emulator has none of that name."""
    place = locate(folder)
    try:
        client().bucket(place.bucket).blob(f"{place.path}/{name}").upload_from_string(b"raise SystemExit", retry=None)
    except Exception as error:
        pytest.skip(f"the emulator takes no such object ({type(error).__name__})")
    listed = [blob.name for blob in client().list_blobs(place.bucket, prefix=f"{place.path}/")]
    if f"{place.path}/{name}" not in listed:
        pytest.skip("the emulator lists no such object")


def commands_on(run_dir, work):
    return {
        "generate": ["--num_images=1", f"--out={work}/grid.png"],
        "evaluate": ["--metrics=digits"],
        "export": [f"--out={work}/model"],
    }


def act_on(command, run_dir, work):
    if command == "train":
        return train("digits", run_dir, "--steps=4")
    return run(command, f"--job_dir={run_dir}", *commands_on(run_dir, work)[command])


# The function itself


@hostile
def test_a_hostile_name_is_refused_and_quoted_harmlessly(key, outside, work):
    from trainer.storage import check_relative_name, path_below, quoted

    name = name_of(key, outside)
    for error in (StorageError, CheckpointError, DataError):
        with pytest.raises(error) as caught:
            check_relative_name(name, f"gs://bucket/{name[:40]}", error)
        check_raised(caught)
        with pytest.raises(error) as caught:
            path_below(work, name, error=error)
        check_raised(caught)
    assert len(quoted(name)) < 100 and is_clean(quoted(name))


@pytest.mark.parametrize("name", ["", None, 3, ["a"], "a/", "\ud800"])
def test_what_is_no_name_is_refused(name, work):
    from trainer.storage import check_relative_name

    with pytest.raises(StorageError) as caught:
        check_relative_name(name, work)
    check_raised(caught)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_is_taken_as_it_is(name, work):
    from trainer.storage import path_below

    assert path_below(work, name) == work / name


def test_a_link_may_lead_elsewhere_in_its_folder_and_not_out_of_it(work, outside):
    from trainer.storage import path_below

    (work / "run").mkdir()
    (work / "alias").symlink_to(work / "run")
    (work / "run/file").touch()
    for name, target in {"inside": "file", "file-out": outside / "secret", "out": outside, "gone": "../gone"}.items():
        (work / "run" / name).symlink_to(target)
    (work / "run/circle").symlink_to("circle")
    assert path_below(work / "alias", "inside") == work / "alias/inside"
    for name in ("file-out", "out", "out/secret", "out/new", "gone"):
        for folder in (work / "run", work / "alias"):
            with pytest.raises(StorageError):
                path_below(folder, name)


@pytest.mark.parametrize(
    "digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "../" * 21 + "x", "0" * 64 + "\n", None]
)
def test_what_is_no_sha256_is_refused(digest, work):
    from trainer.storage import check_sha256

    assert check_sha256("0a" * 32, work) == "0a" * 32
    with pytest.raises(StorageError) as caught:
        check_sha256(digest, work)
    check_raised(caught)


# Runs in a bucket


@hostile
@pytest.mark.parametrize("command", ["generate", "evaluate", "export", "train"])
def test_a_hostile_object_in_a_checkpoint_ends_the_command(command, key, bucket_run, work, outside, refused):
    put(f"{bucket_run}/checkpoints/step-00000002", name_of(key, outside))
    refused(act_on(command, bucket_run, work))
    assert not list(work.iterdir())


@hostile
def test_a_hostile_object_in_a_run_ends_training(key, bucket_run, work, outside, refused):
    put(bucket_run, name_of(key, outside))
    refused(act_on("train", bucket_run, work))


@hostile
def test_a_listing_with_a_hostile_name_is_refused_whatever_the_service_takes(key, outside, bucket, monkeypatch):
    blob = types.SimpleNamespace(name=f"run/{name_of(key, outside)}", size=1, crc32c="")
    monkeypatch.setattr(type(client()), "list_blobs", lambda *_, **__: [blob])
    with pytest.raises(StorageError) as caught:
        list(locate(f"{bucket}/run").entries())
    check_raised(caught)
    with pytest.raises(StorageError), RunDirectory(f"{bucket}/run").opened():
        pass


@hostile
def test_a_hostile_name_is_never_downloaded(key, outside, bucket, work):
    for folder in (locate(work), locate(f"{bucket}/run")):
        with pytest.raises(StorageError) as caught:
            folder.download({name_of(key, outside): work / "x"})
        check_raised(caught)
        assert "temp" not in str(caught.value) and not list(work.iterdir())


def test_a_bucket_run_whose_own_name_leads_away_is_refused(bucket, work):
    for name in (f"{bucket}/..", f"{bucket}/run/.."):
        with pytest.raises(StorageError), RunDirectory(name).opened():
            pass
    with pytest.raises(StorageError):
        venvs._fetch(f"{bucket}/..", work, work)


def test_files_that_a_manifest_does_not_list_are_not_fetched(bucket_run, work, monkeypatch):
    checkpoint = f"{bucket_run}/checkpoints/step-00000002"
    (locate(checkpoint) / "absl.py").write_bytes(b"raise SystemExit")
    fetched = []
    plain = BucketLocation.download
    monkeypatch.setattr(
        BucketLocation, "download", lambda self, files, **how: (fetched.extend(files), plain(self, files, **how))
    )
    store = CheckpointStore(work / "checkpoints", remote=locate(f"{bucket_run}/checkpoints"))
    manifest, problems = store.find()
    assert manifest.step == 2 and not problems
    assert sorted(fetched) == sorted(manifest.files)
    assert sorted(path.name for path in store.folder(2).iterdir()) == sorted([MANIFEST, *manifest.files])


# Manifests of checkpoints


def manifest_of(names, step=2, sha256=SECRET_SHA256):
    files = {name: {"num_bytes": len(SECRET), "sha256": sha256} for name in names}
    return CheckpointManifest(step, files, "0" * 64, {}, {}, {}).to_bytes()


def write_where_it_leads(folder, name):
    """Makes the file that a hostile name leads to, where that can be, as an attacker would have it."""
    path = folder / name
    if path.is_absolute() and path.parts[:2] != folder.parts[:2]:
        return
    inside = os.path.realpath(folder)
    if os.path.commonpath([inside, os.path.realpath(path.parent)]) == inside:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SECRET)
        except OSError:
            pass


@hostile
@pytest.mark.parametrize("place", ["local", "bucket"])
def test_a_manifest_with_a_hostile_name_is_refused(place, key, request, work, outside, refused):
    name = {"absolute": f"{outside}/secret", "parent": "../../../../outside/secret"}.get(key, name_of(key, outside))
    if "\0" in name and place == "local":
        pytest.skip("no file system has such a file")
    run_dir = request.getfixturevalue(f"{place}_run")
    checkpoint = locate(run_dir) / "checkpoints/step-00000002"
    (checkpoint / MANIFEST).write_bytes(manifest_of([name]))
    if place == "local":
        write_where_it_leads(checkpoint.path, name)
        store = CheckpointStore(run_dir / "checkpoints")
    else:
        store = CheckpointStore(work / "checkpoints", remote=locate(f"{run_dir}/checkpoints"))
    for act in (store.find, lambda: store.restore({}), store.find_best, store.best):
        if act in (store.find_best, store.best):
            store._best = "metric/x"
        with pytest.raises(CheckpointError) as caught:
            act()
        check_raised(caught)
    for command in ("train", "generate"):
        refused(act_on(command, run_dir, work))
    assert not (work / "grid.png").exists()


@pytest.mark.parametrize("place", ["local", "bucket"])
@pytest.mark.parametrize("digest", ["../../../outside/x", "A" * 64, "\x1b[2J", 7])
def test_a_manifest_with_a_hash_that_is_none_is_refused(place, digest, request, work, refused):
    run_dir = request.getfixturevalue(f"{place}_run")
    (locate(run_dir) / f"checkpoints/step-00000002/{MANIFEST}").write_bytes(manifest_of(["x"], sha256=digest))
    refused(act_on("generate", run_dir, work), 1, "SHA-256")


def test_a_manifest_of_another_step_leads_to_no_other_folder(local_run, work, refused):
    path = local_run / f"checkpoints/step-00000002/{MANIFEST}"
    (path.parent / "x").write_bytes(SECRET)
    path.write_bytes(manifest_of(["x"], step=7))
    refused(act_on("generate", local_run, work))


@pytest.mark.parametrize("files", [7, [], {"x": 7}, {"x": {}}, {"x": {"num_bytes": "1", "sha256": "0" * 64}}])
def test_a_manifest_of_other_types_is_refused(files, local_run, work, refused):
    content = CheckpointManifest(2, files, "0" * 64, {}, {}, {}).to_bytes()
    (local_run / f"checkpoints/step-00000002/{MANIFEST}").write_bytes(content)
    refused(act_on("generate", local_run, work))


@pytest.mark.parametrize("link", ["checkpoints/step-00000002/x", "checkpoints/step-00000002", "checkpoints"])
@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_link_out_of_a_local_run_is_refused(command, link, local_run, work, outside, refused, tmp_path):
    path = local_run / link
    if path.name == "x":
        path.symlink_to(outside / "secret")
        (path.parent / MANIFEST).write_bytes(manifest_of(["x"]))
    else:
        path.rename(work / "elsewhere")
        path.symlink_to(work / "elsewhere")
    before = tree(work)
    refused(act_on(command, local_run, work))
    assert tree(work) == before


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "logs", "samples", "model", ".model.partial"])
def test_nothing_is_written_through_a_link_in_a_run(name, local_run, work, outside, refused):
    path = local_run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "secret" if path.suffix else outside)
    refused(act_on("train", local_run, work))


def test_a_run_directory_may_itself_be_a_link(local_run, work):
    (work / "alias").symlink_to(local_run)
    assert act_on("generate", work / "alias", work) == 0


def test_a_link_out_of_a_folder_is_not_mirrored(work, outside, bucket):
    (work / "logs").mkdir()
    (work / "logs/events").symlink_to(outside / "secret")
    for remote in (locate(f"{bucket}/logs"), locate(work / "copy")):
        with pytest.raises(StorageError):
            Mirror(work / "logs", remote).copy(all_now=True)
        assert not list(remote.entries())


# Prepared sets


@pytest.fixture(params=["local", "bucket"])
def prepared_set(request, work):
    """A function that makes a set with changes of its first shard in dataset.json; returns its location."""

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


@hostile
def test_a_set_with_a_hostile_shard_is_refused(key, prepared_set, work, outside, refused):
    check_set_refused(prepared_set(file=name_of(key, outside)), work, refused)


@pytest.mark.parametrize(
    "digest", ["{outside}/x", "../../../../outside/x", "../x", "", "A" * 64, "0" * 63, "0" * 64 + "\n", "\x1b[2J", "\0"]
)
def test_a_set_with_a_hash_that_is_none_is_refused(digest, prepared_set, work, outside, refused):
    check_set_refused(prepared_set(sha256=digest.replace("{outside}", str(outside))), work, refused)


def test_the_hash_of_a_shard_that_was_never_checked_names_no_file(prepared_set, work, outside):
    folder = prepared_set()
    files = ShardCache(folder, work / "cache")
    for name, digest in (("../../outside/secret", "0" * 64), (files.manifest.shards[0].file, f"{outside}/x")):
        shard = Shard(file=name, num_examples=1, num_bytes=1, sha256=digest, crc32c="")
        with pytest.raises((DataError, StorageError)):
            files.paths([shard])


def test_a_shard_that_is_a_link_out_of_its_set_is_refused(work, outside, refused):
    write_prepared(work / "set", IMAGES, np.arange(4) % 2, ["a", "b"], **TEXTS)
    shard = next((work / "set").glob("*.tfrecord"))
    shard.rename(work / "moved")
    shard.symlink_to(work / "moved")
    with pytest.raises(DataError):
        ShardCache(locate(work / "set"))
    refused(run("inspect", f"--dataset={work}/set"))


def test_texts_of_a_set_reach_the_terminal_escaped(work, capsys, refused):
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


def test_what_is_said_on_a_terminal_is_escaped(monkeypatch, capsys):
    monkeypatch.setattr(logging, "is_terminal", lambda stream=None: True)
    logging.install_handler()
    standard_logging.getLogger("trainer.test").warning("Passed over step-1/\x1b]0;owned\x07\x9b2J.")
    assert is_clean(capsys.readouterr().out.removeprefix("\r\x1b[K").rstrip("\n"))


# Archives and tables


def png():
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "PNG")
    return buffer.getvalue()


@hostile
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
    with pytest.raises(DataError) as caught, opened(str(work / kind)):
        pass
    check_raised(caught)
    refused(run("prepare", f"--source={work / kind}", f"--out={work}/set", "--processes=1"))
    assert [path.name for path in work.iterdir()] == [kind]


def test_an_archive_of_the_current_folder_is_taken(work):
    with tarfile.open(work / "x.tar", "w") as archive:
        for name in (".", "./a"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        member = tarfile.TarInfo("./a/1.png")
        member.size = len(png())
        archive.addfile(member, io.BytesIO(png()))
    with opened(str(work / "x.tar")) as source:
        assert source.read(0) == png()


def table(path, *names):
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["path"], *([name] for name in names)])
    return str(path)


@hostile
@pytest.mark.parametrize("place", ["local", "bucket"])
def test_a_table_with_a_hostile_path_is_refused(place, key, request, work, outside, refused):
    if key == "NUL":
        pytest.skip("no CSV has such a text")
    source = table(work / "x.csv", name_of(key, outside))
    if place == "bucket":
        folder = locate(request.getfixturevalue("bucket"))
        folder.upload(work, ["x.csv"])
        source = str(folder / "x.csv")
    with pytest.raises(DataError) as caught, opened(source):
        pass
    check_raised(caught)
    refused(run("prepare", f"--source={source}", f"--out={work}/set", "--processes=1"))
    assert [path.name for path in work.iterdir()] == ["x.csv"]


def test_a_table_names_pictures_below_its_folder_or_below_the_root_that_the_user_gives(work, bucket, monkeypatch):
    (work / "pictures").mkdir()
    (work / "tables").mkdir()
    (work / "pictures/1.png").write_bytes(png())
    (locate(bucket) / "pictures/1.png").write_bytes(png())
    source = table(work / "pictures/x.csv", "1.png", "./1.png", f"{work}/pictures/1.png")
    with opened(source) as found:
        assert [found.read(index) for index in range(3)] == [png()] * 3
    for root in (f"{work}/pictures", f"{bucket}/pictures"):
        source = table(work / "tables/x.csv", "1.png", f"{root}/1.png")
        with pytest.raises(DataError), opened(source):
            pass
        with opened(source, root) as found:
            assert [found.read(index) for index in range(2)] == [png()] * 2
    with pytest.raises(ConfigError), opened(str(work / "pictures"), str(work)):
        pass


def test_a_table_that_names_a_link_out_of_its_folder_is_refused(work, outside):
    (work / "set").mkdir()
    (work / "set/1.png").symlink_to(outside / "secret")
    with pytest.raises(DataError), opened(table(work / "set/x.csv", "1.png")):
        pass


# Studies


def study(**changes):
    """The file of a study with one trial that was interrupted."""
    parameter = {"parameterId": "rate", "doubleValueSpec": {"minValue": 0, "maxValue": 1}}
    raw = {"metrics": [{"metricId": "m", "goal": "MINIMIZE"}], "parameters": [parameter]}
    trial = {"id": "1", "state": "ACTIVE", "parameters": [{"parameterId": "rate", "value": 0.5}], "startTime": ""}
    return raw, {"studySpec": raw, "trials": [trial | {"measurements": []} | changes]}


def read_study(content, raw, folder):
    from trainer.cloud.jobs import job_spec

    pool = {"replicaCount": 1, "machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": {"imageUri": "i"}}
    job = {"workerPoolSpecs": [pool]}
    spec = job_spec.parse({"studySpec": raw, "maxTrialCount": 2, "parallelTrialCount": 1, "trialJobSpec": job})
    file = locate(folder) / trial_store.FILE_NAME
    file.write_bytes(json.dumps(content | {"studySpec": spec.study.raw}).encode())
    return trial_store.read(file, spec)


@pytest.mark.parametrize("place", ["local", "bucket"])
@hostile
def test_a_study_with_a_hostile_trial_is_refused(place, key, request, work, outside):
    folder = work if place == "local" else request.getfixturevalue("bucket")
    raw, content = study()
    assert list(read_study(content, raw, folder)) == ["1"]
    raw, content = study(id=name_of(key, outside))
    with pytest.raises(StorageError) as caught:
        read_study(content, raw, folder)
    check_raised(caught)


@pytest.mark.parametrize(
    ("name", "value"), [("recipe", "evil:main"), ("rate", "evil:main"), ("rate", None), ("rate", [1]), ("x\x1b[2J", 1)]
)
def test_a_study_gives_no_flags_but_those_of_its_job(name, value, work):
    raw, content = study(parameters=[{"parameterId": name, "value": value}])
    with pytest.raises(StorageError) as caught:
        read_study(content, raw, work)
    check_raised(caught)


# Code that a run names


@pytest.fixture
def module(work, monkeypatch):
    """A recipe of the user's own, in a folder where modules are found; `marks` tells whether it was imported."""
    (work / "lib").mkdir()
    marks = work / "lib/imported"
    text = (
        "import pathlib\nfrom trainer import recipes\n"
        "pathlib.Path(__file__).with_name('imported').touch()\n"
        "def mine():\n    return recipes.get('vanilla')\n"
    )
    (work / "lib/my_hostile.py").write_text(text)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(work / "lib")
    yield types.SimpleNamespace(name="my_hostile:mine", marks=marks, text=text)
    for name in [name for name in sys.modules if name.startswith("my_hostile")]:
        del sys.modules[name]


def with_recipe(run_dir, recipe):
    place = locate(run_dir) / "config.json"
    content = json.loads(place.read_bytes()) | {"recipe": recipe}
    place.write_bytes(json.dumps(content).encode())


@pytest.mark.parametrize("command", ["generate", "evaluate", "export"])
def test_a_run_in_a_bucket_imports_no_module_that_the_user_does_not_name(command, bucket_run, module, work, refused):
    with_recipe(bucket_run, module.name)
    refused(act_on(command, bucket_run, work), 1, "my_hostile", f"--recipe={module.name}")
    assert not module.marks.exists() and "my_hostile" not in sys.modules


def test_a_run_in_a_bucket_imports_the_module_that_the_user_names(bucket_run, module, work, refused):
    arguments = [f"--job_dir={bucket_run}", "--num_images=1", f"--out={work}/grid.png"]
    with_recipe(bucket_run, module.name)
    refused(run("generate", *arguments, "--recipe=vanilla"), 2, "recipe", module.name)
    refused(run("generate", *arguments, "--recipe=os:getcwd"), 2, "recipe", module.name)
    assert not module.marks.exists()
    assert run("generate", *arguments, f"--recipe={module.name}") == 0
    assert module.marks.exists()


def test_a_mounted_bucket_is_a_bucket(module):
    with pytest.raises(CheckpointError):
        restore._import_recipe(RunDirectory("/gcs/bucket/run"), module.name, None)
    assert not module.marks.exists()


def test_an_embedded_recipe_needs_no_flag(bucket_run, work):
    assert act_on("generate", bucket_run, work) == 0
    assert run("generate", f"--job_dir={bucket_run}", "--recipe=vanilla", "--num_images=1", f"--out={work}/x.png") == 0


def test_a_local_run_imports_a_module_from_elsewhere(local_run, module, work):
    with_recipe(local_run, module.name)
    assert act_on("generate", local_run, work) == 0 and module.marks.exists()


@pytest.mark.parametrize("kind", ["module", "package", "module of a package", "namespace", "linked"])
def test_a_module_in_a_run_directory_is_never_imported(kind, local_run, module, work, monkeypatch, refused):
    (work / "lib/my_hostile.py").unlink()
    folder = local_run
    recipe = {"module of a package": "my_hostile.inner:mine", "namespace": "my_hostile.inner:mine"}.get(
        kind, module.name
    )
    file = {
        "module": "my_hostile.py",
        "package": "my_hostile/__init__.py",
        "module of a package": "my_hostile/inner.py",
        "namespace": "my_hostile/inner.py",
        "linked": "my_hostile.py",
    }[kind]
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(module.text)
    if kind == "module of a package":
        (folder / "my_hostile/__init__.py").write_text(module.text)
    if kind == "linked":
        (work / "lib/my_hostile.py").symlink_to(folder / file)
    else:
        monkeypatch.syspath_prepend(folder)
    with_recipe(local_run, recipe)
    for flag in ([], [f"--recipe={recipe}"]):
        refused(
            run("generate", f"--job_dir={local_run}", f"--out={work}/grid.png", "--num_images=1", *flag),
            1,
            "my_hostile",
        )
    assert not list(work.rglob("imported")) and not [name for name in sys.modules if name.startswith("my_hostile")]


@pytest.mark.parametrize("place", ["local", "bucket"])
@pytest.mark.parametrize(
    "recipe", ["../x:f", "/etc/x:f", ".x:f", ":f", "a..b:f", "a\x1b[2J:f", "a\nb:f", "os:a b", "x" * 300 + ":f"]
)
def test_what_names_no_module_is_refused(place, recipe, request, work, refused):
    run_dir = request.getfixturevalue(f"{place}_run")
    with_recipe(run_dir, recipe)
    refused(act_on("generate", run_dir, work), 2)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{}[", b"\xff", b'{"recipe": 7}', b'{"recipe": null}'])
@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_config_that_is_none_is_one_sentence(command, content, local_run, work, refused):
    (local_run / "config.json").write_bytes(content)
    refused(act_on(command, local_run, work))
