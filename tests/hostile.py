"""Names that lead out of their folder or control a terminal, and fixtures for tests that use them."""

import hashlib
import shutil
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from bucket_runs import run, train

from trainer.storage import locate
from trainer.storage.gcs import client

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
    "drive with backslashes": "C:\\Windows\\x",
    "share": "\\\\server\\share\\x",
    "parent alone": "..",
    "parent at the end": "a/..",
    "root of the process": "/proc/self/root/tmp/x",
    "device": "/dev/stdout",
    "backslashes": "..\\..\\x",
    "escape sequence": "a\x1b[2J\x1b]0;owned\x07x",
    "eight-bit escape": "a\x9b2Jx",
    "right to left": "a\u202egnp.x",
    "line break": "a\nerror: all is well",
    "carriage return": "a\rx",
    "paragraph": "a\u2029x",
    "isolated direction": "a\u2066x",
    "NUL": "a\0x",
    "long part": "x" * 256,
    "long": "a/" * 600 + "x",
}
PLAIN = ["x", "a/b.png", "état/字 1.png", "...", "..a", "a..", ".hidden", "~", "-rf", "ab:c", "x" * 255, "nul\u00e4 x"]
SECRET = b"the secret of another folder"
SECRET_SHA256 = hashlib.sha256(SECRET).hexdigest()
TEXTS = {"name": "set", "source": "", "license": "", "attribution": ""}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
hostile_names = pytest.mark.parametrize("key", HOSTILE)


def tree(folder):
    """Returns the content of all files in a folder by path; None for a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder that must not change. The working folder and the folder for temporary files must stay empty."""
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
def work(tmp_path, outside):
    """A folder for the files of a test."""
    return tmp_path / "work"


@pytest.fixture
def refused(capsys):
    """A function that asserts the exit code of a command and one line of error without control characters."""

    def check(code, expected=1, *mentioned):
        captured = capsys.readouterr()
        assert code == expected, captured
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.err.endswith(".\n")
        assert is_clean(captured.err[:-1]) and len(captured.err) < 1000
        assert all(text in captured.err for text in mentioned), captured.err

    return check


def is_clean(text):
    """Returns whether a text has no control characters."""
    return not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") or character == "\u202e" for character in text)


def check_raised(caught):
    """Asserts that the message of an error is short and has no control characters."""
    assert is_clean(str(caught.value)) and len(str(caught.value)) < 1000


def name_of(key, outside):
    """Returns a hostile name by its key."""
    return HOSTILE[key].replace("{outside}", str(outside))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The directory of a tiny run, which tests copy."""
    job_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert train("digits", job_dir, "--steps=2") == 0
    return job_dir


@pytest.fixture
def local_run(trained_run, work):
    """The directory of a run that a test may change."""
    return Path(shutil.copytree(trained_run, work / "run"))


@pytest.fixture
def bucket_run(trained_run, bucket):
    """The URL of a run in a bucket."""
    folder = locate(f"{bucket}/run")
    folder.upload(trained_run, [entry.name for entry in locate(trained_run).entries()])
    return str(folder)


def put(folder, name):
    """Creates an object of any name, or skips the test if the emulator does not accept the name."""
    location = locate(folder)
    try:
        client().bucket(location.bucket).blob(f"{location.path}/{name}").upload_from_string(
            b"raise SystemExit", retry=None
        )
    except Exception as error:
        pytest.skip(f"the emulator does not accept this name ({type(error).__name__})")
    listed = [blob.name for blob in client().list_blobs(location.bucket, prefix=f"{location.path}/")]
    if f"{location.path}/{name}" not in listed:
        pytest.skip("the emulator does not list this object")


def command_flags(work):
    return {
        "generate": ["--num_images=1", f"--out={work}/grid.png"],
        "evaluate": ["--metrics=digits"],
        "export": [f"--out={work}/model"],
        "report": [f"--out={work}/report.html"],
    }


def run_on(command, run_dir, work):
    """Runs a command on a run directory and returns its exit code."""
    if command == "train":
        return train("digits", run_dir, "--steps=4")
    if command == "init_from":
        return train("digits", work / "new", "--steps=4", f"--init_from={run_dir}")
    return run(command, f"--job_dir={run_dir}", *command_flags(work)[command])
