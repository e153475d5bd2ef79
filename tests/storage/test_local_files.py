"""Local files are complete or absent, honor the umask, and leave nothing behind for good."""

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import pytest
from refusals import check_refusal

from trainer.errors import CheckpointError, DocumentError, StorageError
from trainer.storage import check_new_file, local_files, locate, read_named_file, scratch_folder, write_atomically
from trainer.storage.local import LocalLocation
from trainer.storage.local_files import open_regular, remove_leftovers
from trainer.storage.run_directory import RunDirectory

KILLED = """
import os, signal, sys
from pathlib import Path
from trainer.storage import local_files
local_files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
context = local_files.scratch_folder()
(context.__enter__() / "large").write_bytes(b"x")
local_files.write_atomically(Path(sys.argv[1]), b"content")
"""


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch):
    """The folder for temporary files of this process and of those that it starts."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "temporary"


def kill_while_writing(path):
    """Runs a process that is killed while it writes a file and uses a scratch folder. Returns the file's leftover."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (leftover,) = path.parent.glob(f".{path.name}.*")
    return leftover


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027, 0o002, 0o000])
def test_the_mode_of_a_file_follows_the_umask(umask, tmp_path):
    (tmp_path / "old").touch(mode=0o600)
    previous = os.umask(umask)
    try:
        write_atomically(tmp_path / "new", b"")
        write_atomically(tmp_path / "old", b"")
        locate(tmp_path / "b").write_bytes(b"")
        locate(tmp_path / "copy").upload(tmp_path, ["new"])
    finally:
        os.umask(previous)
    for name in ("new", "old", "b", "copy/new"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask, name


def test_leftovers_of_a_killed_process_are_removed_at_the_next_start(temporary_folder, tmp_path):
    leftovers = [kill_while_writing(tmp_path / "run" / name) for name in make_run(tmp_path / "run")]
    assert len(list(temporary_folder.iterdir())) == 1  # each start removes that of the previous process
    (tmp_path / "run/.model.partial/variables").mkdir(parents=True)
    RunDirectory(tmp_path / "run").create()
    assert not any(path.exists() for path in leftovers) and not (tmp_path / "run/.model.partial").exists()
    with scratch_folder() as folder:
        assert list(temporary_folder.iterdir()) == [folder]
    assert not list(temporary_folder.iterdir())


def make_run(folder):
    """Creates the folders of a run and returns the names of files that are written atomically."""
    (folder / "samples").mkdir(parents=True)
    names = "config.json", "metrics.jsonl", "report.html", "trackers.json"
    return *names, "samples/step-00000004.png", "samples/progression.gif"


def test_the_files_of_running_processes_and_of_others_stay(temporary_folder, tmp_path, monkeypatch):
    samples = tmp_path / "samples"
    samples.mkdir()
    foreign = [".step-00000004.png.swp", ".step-4.png.0a1b2c3d", ".step-00000004.png.0a1b2c3d4", "step-00000004.png"]
    foreign += [".notes.0a1b2c3d", ".DS_Store", ".config.json.0a1b2c3d"]
    for name in foreign:
        (samples / name).touch()
    (samples / ".step-00000005.png.0a1b2c3d").symlink_to(samples / "step-00000004.png")
    seen = []

    def start_another_process(descriptor):
        RunDirectory(tmp_path).create()
        with scratch_folder():
            seen.append(len(list(temporary_folder.iterdir())))

    monkeypatch.setattr(local_files.os, "fsync", start_another_process)
    with scratch_folder() as folder:
        write_atomically(samples / "step-00000008.png", b"content")
        assert folder.is_dir() and seen == [2]
    assert (samples / "step-00000008.png").read_bytes() == b"content"
    assert {path.name for path in samples.iterdir()} == {*foreign, "step-00000008.png", ".step-00000005.png.0a1b2c3d"}


@pytest.mark.parametrize("make", ["link", "file", "another folder"])
def test_only_own_scratch_folders_are_removed(make, temporary_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    path = temporary_folder / f"{local_files._SCRATCH_PREFIX}x"
    if make == "link":
        path.symlink_to(tmp_path / "mine")
    elif make == "another folder":
        (path := temporary_folder / "gan-trainer-run-x").mkdir()
    else:
        path = temporary_folder / "x"
        path.touch()
    with scratch_folder():
        pass
    assert path.exists() and (tmp_path / "mine/file").exists()


@pytest.mark.parametrize("folder", ["absent", "file", "none"])
def test_a_missing_folder_for_temporary_files_is_one_sentence(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", None if folder == "none" else str(tmp_path / folder))
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(StorageError) as caught, scratch_folder():
        pass
    assert "TMPDIR" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["link", "broken link", "pipe", "device", "folder", "link to a device"])
def test_only_regular_files_are_opened(kind, tmp_path):
    path = tmp_path / "x"
    targets = {"link": __file__, "broken link": "nowhere", "link to a device": "/dev/full"}
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = locate("/dev/zero").path
    for mode in ("rb", "ab"):
        with pytest.raises(OSError, match=re.escape(str(path))):
            open_regular(path, mode)


PLACES = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/null"),
    "link to a folder": lambda path: path.symlink_to("."),
}


@pytest.mark.parametrize("name", PLACES)
def test_only_files_are_replaced(name, tmp_path):
    locate(tmp_path / "source/x").write_bytes(b"new")
    path = tmp_path / "x"
    PLACES[name](path)
    before = path.lstat()
    for act, error in (
        (lambda: write_atomically(path, b"new"), OSError),
        (lambda: locate(path).write_bytes(b"new"), StorageError),
        (lambda: locate(tmp_path).upload(tmp_path / "source", ["x"]), StorageError),
        (lambda: locate(tmp_path / "source").download({"x": path}), StorageError),
        (lambda: check_new_file(locate(path)), StorageError),
    ):
        check_refusal(act, error, str(path))
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source", "x"]


@pytest.mark.parametrize("target", ["source", "nowhere"])
def test_a_link_to_a_file_or_to_nothing_is_replaced(target, tmp_path):
    (tmp_path / "source").write_bytes(b"old")
    (tmp_path / "x").symlink_to(target)
    write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new" and (tmp_path / "source").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("folder", "obstacle", "is_movable"),
    [
        ("/dev/null", "/dev/null", False),
        ("/dev/null/run", "/dev/null", False),
        ("{}/file", "{}/file", True),
        ("{}/file/a/b", "{}/file", True),
        ("{}/link/a", "{}/link", True),
        ("{}/pipe", "{}/pipe", False),
        ("/proc/run", "/proc/run", False),
        ("/proc/self/run", "/proc/self/run", False),
    ],
)
def test_a_run_directory_that_cannot_be_a_folder_is_refused(folder, obstacle, is_movable, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    folder, obstacle = folder.format(tmp_path), obstacle.format(tmp_path)
    with pytest.raises(CheckpointError) as caught, RunDirectory(folder).hold_lease():
        pass
    message = str(caught.value)
    assert f"job_dir={folder}" in message and obstacle in message
    assert ("move" in message) == is_movable and "delete" not in message
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link", "pipe"]


def test_removing_leftovers_from_a_missing_folder_does_nothing(tmp_path):
    remove_leftovers(tmp_path / "absent", "x")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_only_regular_files_are_copied(make, tmp_path):
    make(tmp_path / "source")
    for copy in (
        lambda: LocalLocation(tmp_path).download({"source": tmp_path / "copy"}),
        lambda: LocalLocation(tmp_path / "copies").upload(tmp_path, ["source"]),
    ):
        check_refusal(copy, StorageError, str(tmp_path / "source"))
    assert not any(path.name != "source" for path in tmp_path.rglob("*") if path.is_file())


def test_a_pipe_that_the_user_names_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"text")
    for name, max_bytes in (("pipe", 4), ("pipe", 3), ("file", 4), ("file", 3)):
        writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"text"), daemon=True)
        if name == "pipe":
            writer.start()
        if max_bytes == 3:
            check_refusal(lambda name=name: read_named_file(tmp_path / name, 3), DocumentError, name)
        else:
            assert read_named_file(tmp_path / name, max_bytes) == b"text"
