"""Samples, logs and metrics that cannot be read or written never end a run, and are reported once."""

import errno
import fractions
import json
import math
import os
import resource
import shutil
import struct
import types
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from bucket_runs import files, state_of, train
from hostile import is_clean
from PIL import Image

from trainer import callbacks
from trainer.errors import quote
from trainer.image_io import save_animation, save_grid
from trainer.storage import local_files, locate
from trainer.storage.run_directory import RunDirectory, sample_grids

NUM_STEPS = 4


def run(folder, *, first=0, during=lambda step: None, extra=()):
    """Calls the callbacks that write by-products as a run of four steps does, with a function before each step.

    `extra` is added to the logs.
    """
    directory = RunDirectory(folder)
    active = [
        callbacks.MetricsLog(directory.metrics),
        callbacks.EventLog(directory.logs),
        callbacks.SampleGrid(directory.samples, 1, log_dir=directory.logs),
        callbacks.Animation(directory.samples),
    ]
    grid = np.full((30, 40, 3), 99, np.uint8)
    model = types.SimpleNamespace(step=first, preempted=False, sample_grid=lambda rows, columns: grid)
    for callback in active:
        callback.set_model(model)
        callback.set_params({"num_steps": NUM_STEPS, "global_batch_size": 2})
        callback.on_train_begin({})
    while model.step < NUM_STEPS:
        during(model.step)
        model.step += 1
        for callback in active:
            callback.on_train_batch_end(0, {"loss": 1.5} | dict(extra))
    for callback in active:
        callback.on_train_end()
    return directory


def steps_of(directory):
    return [json.loads(line)["step"] for line in directory.metrics.read_bytes().splitlines()]


def num_frames(directory):
    with Image.open(directory.samples / "progression.gif") as animation:
        return animation.n_frames


def huge_png(path, side=30_000):
    """Writes a PNG file whose header states an image of 900 megapixels."""
    chunks = b""
    for kind, content in ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        chunks += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def make_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def make_link(path, target="/dev/zero"):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def make_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def other_format(path):
    Image.new("RGB", (8, 8)).save(path, "TIFF")


class NotANumber:
    def __float__(self):
        raise ValueError("not a number")


NUMBERS = {
    "numpy float": np.float32(2),
    "numpy integer": np.int64(2),
    "array": np.array(2.0, "f2"),
    "tensor": tf.constant(2.0),
    "bfloat16": tf.constant(2.0, tf.bfloat16),
    "variable": tf.Variable(2.0),
    "fraction": fractions.Fraction(2),
}
OTHER_VALUES = {
    "text": "2",
    "bytes": b"2",
    "none": None,
    "list": [2.0],
    "dict": {"a": 2.0},
    "vector": np.ones(1),
    "tensors": tf.ones([3]),
    "complex": 2j,
    "large": 10**400,
    "object": NotANumber(),
    "function": len,
}


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
def test_numbers_that_a_callback_adds_are_written(value, tmp_path, trainer_log):
    directory = run(tmp_path, extra={"metric/mine": value})
    lines = [json.loads(line) for line in directory.metrics.read_bytes().splitlines()]
    assert [line["metric/mine"] for line in lines] == [2.0] * NUM_STEPS and not trainer_log.messages
    assert callbacks.by_products.numbers({"x": value}) == {"x": 2.0}


@pytest.mark.parametrize("value", OTHER_VALUES.values(), ids=OTHER_VALUES)
@pytest.mark.parametrize("name", ["metric/mine", 7, "x\ny"])
def test_other_values_that_a_callback_adds_are_reported_once_per_kind(name, value, tmp_path, trainer_log):
    directory = run(tmp_path, extra={name: value})
    assert steps_of(directory) == [1, 2, 3, 4] and len(trainer_log.messages) == 2
    assert all(quote(name) in message and is_clean(message) for message in trainer_log.messages)


@pytest.mark.parametrize("name", ["step", "time", "images_seen"])
def test_a_callback_cannot_replace_the_step_of_a_line(name, tmp_path):
    assert steps_of(run(tmp_path, extra={name: -5.5})) == [1, 2, 3, 4]
    assert b"-5.5" not in (tmp_path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "value", [*OTHER_VALUES.values(), *NUMBERS.values(), math.nan], ids=lambda value: type(value).__name__
)
def test_no_value_ends_the_report_of_a_trial_or_a_checkpoint(value, tmp_path):
    logs = {"metric/mine": value, "loss/x": value, 7: value, "metric/a": 1.0}
    divergence = types.SimpleNamespace(last_applied_step=lambda step: step)
    state = {"x": keras.Variable([1.0])}
    settings = {"initial_optimizer_settings": {}, "image_range": (0.0, 1.0), "is_range_known": True}
    model = types.SimpleNamespace(step=1, state=state, preempted=False, divergence=divergence, **settings)
    report = callbacks.TuningReport(tmp_path / "trial" / "metrics", "1")
    checkpoint = callbacks.Checkpoint(tmp_path / "checkpoints", 1, best="metric/mine")
    for callback in (report, checkpoint, callbacks.Progress()):
        callback.set_model(model)
        callback.set_params({"num_steps": NUM_STEPS, "global_batch_size": 2, "epochs": 1})
        callback.on_train_begin({})
        callback.on_train_batch_end(0, logs)
    checkpoint.store.wait()
    assert checkpoint.store.find()[0].metrics["metric/a"] == 1.0
    assert '"a": "1.0"' in (tmp_path / "trial/metrics").read_text()


DAMAGED_GRIDS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a picture"),
    "cut": cut,
    "huge": huge_png,
    "nul": lambda path: path.write_bytes(b"\0" * 500),
    "other format": other_format,
    "postscript": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
}


@pytest.mark.parametrize("damage", DAMAGED_GRIDS.values(), ids=DAMAGED_GRIDS)
def test_a_damaged_grid_is_left_out_of_the_animation(damage, tmp_path, trainer_log):
    directory = run(tmp_path, during=lambda step: damage(tmp_path / "samples/step-00000001.png") if step == 2 else None)
    assert num_frames(directory) == 4
    assert len(trainer_log.messages) == 1 and "step-00000001.png" in trainer_log.text


NOT_GRIDS = {
    "folder": make_folder,
    "link": make_link,
    "broken link": lambda path: make_link(path, "x"),
    "pipe": make_pipe,
}


@pytest.mark.parametrize("replace", NOT_GRIDS.values(), ids=NOT_GRIDS)
def test_only_regular_files_are_grids(replace, tmp_path):
    directory = run(
        tmp_path, during=lambda step: replace(tmp_path / "samples/step-00000001.png") if step == 2 else None
    )
    assert num_frames(directory) == 4 and list(sample_grids(directory.samples)) == [0, 2, 3, 4]


def test_only_exact_names_are_grids(tmp_path):
    names = ["step-00000000 (1).png", "step-0.png", "step-²0000000.png", "step-00000000.png~", "step-00000000.PNG"]
    for name in [*names, "step-00000007.png", "step-100000000.png", ".step-00000003.png.0a1b2c3d", "step-.png"]:
        save_grid(tmp_path / name, np.zeros((4, 4, 1), np.uint8))
    assert list(sample_grids(tmp_path)) == [7, 100_000_000]
    assert sample_grids(tmp_path / "absent") == {}


def test_a_grid_of_another_size_does_not_end_the_animation(tmp_path):
    def shrink(step):
        save_grid(tmp_path / "samples/step-00000002.png", np.zeros((7, 9, 1), np.uint8))

    directory = run(tmp_path, during=lambda step: shrink(step) if step == 3 else None)
    with Image.open(directory.samples / "progression.gif") as animation:
        assert animation.n_frames > 1 and animation.size == (40, 46)


def test_no_readable_grid_gives_no_animation(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"")
    frames = [(name, tmp_path / f"{name}.png") for name in "ab"]
    assert save_animation(tmp_path / "a.gif", frames) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert not (tmp_path / "a.gif").exists()


OBSTACLES = {
    "a folder in place of the next grid": lambda root: (root / "samples/step-00000003.png").mkdir(),
    "a folder in place of the animation": lambda root: (root / "samples/progression.gif").mkdir(),
    "a folder in place of the metrics": lambda root: make_folder(root / "metrics.jsonl"),
    "a link in place of the metrics": lambda root: make_link(root / "metrics.jsonl", "/dev/full"),
    "a pipe in place of the metrics": lambda root: make_pipe(root / "metrics.jsonl"),
    "samples is a file": lambda root: (shutil.rmtree(root / "samples"), (root / "samples").touch()),
}


@pytest.mark.parametrize("obstruct", OBSTACLES.values(), ids=OBSTACLES)
def test_an_obstacle_in_the_middle_of_a_run_is_reported_once_per_kind(obstruct, tmp_path, trainer_log):
    directory = run(tmp_path, during=lambda step: obstruct(tmp_path) if step == 2 else None)
    assert 1 <= len(trainer_log.messages) <= 2 and str(tmp_path) in trainer_log.text
    kinds = [record.levelname for record in trainer_log.records]
    assert set(kinds) == {"WARNING"} and (directory.samples.is_file() or directory.samples.exists())


@pytest.mark.parametrize("name", ["samples", "logs", "."])
def test_a_folder_that_is_deleted_in_the_middle_of_a_run_is_created_again(name, tmp_path):
    root = tmp_path / "run"
    directory = run(root, during=lambda step: shutil.rmtree(root / name) if step == 2 else None)
    assert (directory.samples / "step-00000004.png").exists() and steps_of(directory)[-1] == 4
    assert list(directory.logs.iterdir())


@pytest.mark.parametrize("name", ["logs", "samples", "metrics.jsonl"])
def test_an_obstacle_from_the_beginning_leaves_the_other_results(name, tmp_path, trainer_log):
    if name == "metrics.jsonl":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("a file")
    directory = run(tmp_path)
    assert name in trainer_log.text
    assert name == "metrics.jsonl" or steps_of(directory) == [1, 2, 3, 4]
    assert name == "samples" or num_frames(directory) == 5
    assert name == "logs" or list(directory.logs.iterdir())


def line(step):
    return json.dumps({"step": step, "images_seen": 2 * step, "time": 0.0, "loss": 1.0}).encode() + b"\n"


DAMAGED_LINES = {
    "not utf-8": b"\xff\xfe\x00garbage\xe9\n",
    "blank": b"\n",
    "garbage": b"loss went down\n",
    "a number": b"7\n",
    "a list": b"[1, 2]\n",
    "null": b"null\n",
    "no step": b'{"loss": 1.0}\n',
    "step is text": b'{"step": "2"}\n',
    "step is a fraction": b'{"step": 2.5}\n',
    "step is negative": b'{"step": -2}\n',
    "step is true": b'{"step": true}\n',
    "deep": b"[" * 100_000 + b"\n",
    "half a line": b'{"step": 2, "images_s\n',
    "two lines in one": b'{"step": 2, "im{"step": 2}\n',
    "nul": b"\0" * 4096 + b"\n",
}


@pytest.mark.parametrize("damaged", DAMAGED_LINES.values(), ids=DAMAGED_LINES)
@pytest.mark.parametrize("place", ["middle", "start"])
def test_readable_metrics_are_kept_beside_damaged_lines(damaged, place, tmp_path, trainer_log):
    content = damaged + line(1) + line(2) if place == "start" else line(1) + damaged + line(2)
    (tmp_path / "metrics.jsonl").write_bytes(content + line(3))
    directory = run(tmp_path, first=2)
    assert steps_of(directory) == [1, 2, 3, 4]
    assert len(trainer_log.messages) == 1
    assert "metrics.jsonl" in trainer_log.text and " 1 " in trainer_log.text
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == content + line(3)


@pytest.mark.parametrize("content", [b"\0", b"\0" * 8192, line(1) + b"\0" * 100, b"\xff" * 50, b"some text"])
def test_a_damaged_end_of_the_metrics_is_never_dropped_silently(content, tmp_path, trainer_log):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    run(tmp_path, first=2)
    assert len(trainer_log.messages) == 1 and "metrics.jsonl" in trainer_log.text
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == content


@pytest.mark.parametrize("end", [b"", line(2)[:5], line(2)[:12], line(2)[:-1].rstrip(b"}"), line(2)[:-2]])
def test_a_last_line_that_a_kill_cut_short_is_dropped(end, tmp_path, trainer_log):
    (tmp_path / "metrics.jsonl").write_bytes(line(1) + end)
    assert steps_of(run(tmp_path, first=2)) == [1, 3, 4]
    assert not trainer_log.messages and not (tmp_path / "metrics.damaged.jsonl").exists()


def test_lines_that_could_not_be_written_are_written_later(tmp_path, trainer_log):
    def obstruct(step):
        if step == 1:
            (tmp_path / "metrics.jsonl").rename(tmp_path / "aside")
            (tmp_path / "metrics.jsonl").mkdir()
        if step == 3:
            (tmp_path / "metrics.jsonl").rmdir()
            (tmp_path / "aside").rename(tmp_path / "metrics.jsonl")

    assert steps_of(run(tmp_path, during=obstruct)) == [1, 2, 3, 4]
    assert len(trainer_log.messages) == 1


@pytest.fixture
def limit():
    """A function that sets a limit of this process until the end of the test."""
    previous = {}

    def set_limit(kind, value):
        previous.setdefault(kind, resource.getrlimit(kind))
        resource.setrlimit(kind, (value, previous[kind][1]))

    yield set_limit
    for kind, limits in previous.items():
        resource.setrlimit(kind, limits)


def test_files_that_may_not_grow_are_reported_and_metrics_stay_whole(limit, tmp_path, trainer_log):
    sizes = []

    def restrict(step):
        if step == 2:
            sizes.append((tmp_path / "metrics.jsonl").stat().st_size)
            limit(resource.RLIMIT_FSIZE, sizes[0] + 20)

    directory = run(tmp_path, during=restrict)
    assert (tmp_path / "metrics.jsonl").stat().st_size == sizes[0] and steps_of(directory) == [1, 2]
    assert len(trainer_log.messages) >= 2 and os.strerror(errno.EFBIG) in trainer_log.text


def test_too_few_file_handles_are_reported(limit, tmp_path, trainer_log):
    def restrict(step):
        if step != 1:
            return
        os.close(lowest_free := os.open(os.devnull, os.O_RDONLY))
        limit(resource.RLIMIT_NOFILE, lowest_free)

    run(tmp_path, during=restrict)
    assert os.strerror(errno.EMFILE) in trainer_log.text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE])
def test_every_error_of_the_disk_is_reported_once_per_kind(code, tmp_path, monkeypatch, trainer_log):
    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(local_files.os, "fsync", fail)
    run(tmp_path)
    assert 2 <= len(trainer_log.messages) <= 3
    assert all(os.strerror(code) in message for message in trainer_log.messages)
    assert not list(tmp_path.glob("**/.*"))


def damage_all(folder):
    """Damages the by-products of a run, and adds foreign files."""
    (folder / "samples/step-00000000.png").write_bytes(b"")
    huge_png(folder / "samples/step-00000001.png")
    (folder / "samples/step-00000000 (1).png").write_bytes(b"copy")
    (folder / "samples/notes.txt").write_text("mine")
    (folder / "metrics.jsonl").write_bytes(b"\0\0\n" + (folder / "metrics.jsonl").read_bytes() + b"\xff\n")


@pytest.fixture(scope="module")
def whole_state(tmp_path_factory):
    """The hash of the state of an undisturbed run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train("digits", folder, "--steps=8") == 0
    return state_of(folder, 8)


@pytest.mark.slow
def test_a_local_run_with_damaged_files_ends_with_the_same_weights(tmp_path, whole_state, trainer_log):
    assert train("digits", tmp_path / "run", "--steps=4") == 0
    damage_all(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/logs")
    (tmp_path / "run/logs").write_text("a file")
    make_folder(tmp_path / "run/samples/progression.gif")
    make_folder(tmp_path / "run/samples/step-00000008.png")
    assert train("digits", tmp_path / "run", "--steps=8") == 0
    assert state_of(tmp_path / "run", 8) == whole_state
    assert [record.levelname for record in trainer_log.records if "cannot be" in record.message] == ["WARNING"] * 4
    assert (tmp_path / "run/samples/notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_run_in_a_bucket_with_damaged_files_ends_with_the_same_weights(bucket, whole_state, tmp_path):
    assert train("digits", f"{bucket}/run", "--steps=4") == 0
    names = [name for name in files(f"{bucket}/run") if not name.startswith("checkpoints")]
    locate(f"{bucket}/run").download({name: tmp_path / "run" / name for name in names})
    damage_all(tmp_path / "run")
    names = [path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    locate(f"{bucket}/run").upload(tmp_path / "run", names)
    for name in ("samples/step-00000000.png/x", "samples", "logs", "samples/progression.gif/x", "metrics.jsonl/x"):
        (locate(f"{bucket}/run") / name).write_bytes(b"foreign")
    assert train("digits", f"{bucket}/run", "--steps=8") == 0
    assert state_of(f"{bucket}/run", 8) == whole_state
    lines = (locate(bucket) / "run/metrics.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 8]
    assert (locate(bucket) / "run/metrics.damaged.jsonl").exists()
