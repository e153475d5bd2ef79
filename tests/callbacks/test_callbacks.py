"""Files, logs and progress that callbacks produce."""

import json
import os
import signal
import threading
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_gan
from PIL import Image
from refusals import check_refusal

from trainer import callbacks, image_io, logging
from trainer.callbacks import Checkpoint, Evaluation, SampleGrid, progress, watchdog
from trainer.errors import ConfigError
from trainer.image_io import save_animation, save_grid, tile, tile_with_captions
from trainer.metrics.extraction import ReplicatedFunction


def fit(digits, active, steps=4, gan=None, **settings):
    gan = gan or tiny_gan("mlp")
    gan.fit(digits.images, batch_size=16, steps=steps, steps_per_execution=2, callbacks=active, verbose=0, **settings)
    return gan


class Suite:
    """A metric suite that returns the next of some values per call."""

    def __init__(self, values):
        self.values = list(values)

    def measure(self, model):
        images, _ = model.sample(6)
        assert images.shape == (6, 28, 28, 1) and images.dtype == np.uint8
        return {"frechet": self.values.pop(0)}


def test_a_tile_keeps_every_pixel_in_its_place():
    images = np.arange(6 * 4 * 3).reshape(6, 4, 3, 1).astype(np.uint8)
    grid = tile(images, columns=3)
    assert grid.shape == (2 * 6 + 2, 3 * 5 + 2, 1)
    for index in range(6):
        top, left = index // 3 * 6 + 2, index % 3 * 5 + 2
        np.testing.assert_array_equal(grid[top : top + 4, left : left + 3], images[index])


@pytest.mark.parametrize(("size", "shape"), [(16, (4, 4)), (15, (1, 15)), (24, (1, 24))])
def test_a_tile_shows_vectors_as_squares_or_as_rows(size, shape):
    images = np.arange(2 * size, dtype=np.uint8).reshape(2, size)
    np.testing.assert_array_equal(tile(images, columns=2), tile(images.reshape(2, *shape), columns=2))


class Unchecked(keras.callbacks.Callback):
    every_steps = -5


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        *(
            (lambda make=make, value=value: make(value), ("every_steps", str(value)))
            for make in (
                lambda every_steps: SampleGrid("s", every_steps),
                lambda every_steps: Checkpoint("c", every_steps),
                lambda every_steps: Evaluation(Suite([]), every_steps),
            )
            for value in (-5, 2.5, None, "2")
        ),
        (lambda: fit_zeros(Unchecked()), ("every_steps", "-5")),
        (lambda: Checkpoint("c", max_to_keep=0), ("max_to_keep", "0")),
        (lambda: Checkpoint("c", max_to_keep=-1), ("max_to_keep", "-1")),
        (lambda: Checkpoint("c", fingerprints=["a"]), ("fingerprints", "['a']")),
        (lambda: Checkpoint("c", remote="gs://bucket/x"), ("remote", "gs://bucket/x")),
    ],
)
def test_settings_of_callbacks_are_refused(make, mentions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refusal(make, ConfigError, *mentions)


def fit_zeros(callback):
    tiny_gan("mlp").fit(np.zeros((20, 28, 28, 1), np.uint8), batch_size=16, steps=2, callbacks=callback, verbose=0)


@pytest.mark.parametrize(
    ("height", "width", "cell"),
    [
        (16, 16, (64, 64)),
        (28, 28, (84, 84)),
        (1, 1, (64, 64)),
        (100, 10, (200, 20)),
        (64, 128, (64, 128)),
        (512, 256, (256, 128)),
        (1000, 4, (256, 1)),
        (3, 1024, (1, 256)),
    ],
)
def test_images_with_captions_are_shown_whole_in_their_place(height, width, cell):
    images = [np.full((height, width, channels), 60 * channels, np.uint8) for channels in (1, 3, 4)]
    images[2][..., 3] = 255  # opaque
    grid = tile_with_captions(images, ["a", "b", "c"], columns=2)
    step_y, step_x = cell[0] + 16 + 2, max(cell[1], 64) + 2
    assert grid.shape == (2 * step_y + 2, 2 * step_x + 2, 3)
    for (row, column), value in (((0, 0), 60), ((0, 1), 180), ((1, 0), 240)):
        top, left = row * step_y + 2, column * step_x + 2
        assert (grid[top : top + cell[0], left : left + cell[1]] == value).all()
        caption = grid[top + cell[0] : top + cell[0] + 16, left : left + 64]
        assert caption.max() > 200  # text


@pytest.mark.parametrize("channels", [1, 3])
def test_grids_and_animations_open_again(tmp_path, channels):
    frames = []
    for value in (0, 200):
        save_grid(tmp_path / f"{value}.png", np.full((40, 60, channels), value, np.uint8))
        frames.append((f"step {value}", tmp_path / f"{value}.png"))
    save_animation(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 2 and animation.size == (60, 56) and animation.info["loop"] == 0
        animation.seek(1)
        assert animation.convert("RGB").getpixel((30, 40)) == (200, 200, 200)


def test_an_animation_has_few_frames_in_memory_at_a_time(tmp_path, monkeypatch):
    references, alive = [], []

    def counted(caption, source, size, plain=image_io._make_frame):
        references.append(weakref.ref(frame := plain(caption, source, size)))
        alive.append(sum(reference() is not None for reference in references))
        return frame

    monkeypatch.setattr(image_io, "_make_frame", counted)
    for value in range(8):
        save_grid(tmp_path / f"{value}.png", np.full((40, 60, 3), 30 * value, np.uint8))
    save_animation(tmp_path / "a.gif", [(str(value), tmp_path / f"{value}.png") for value in range(8)])
    assert len(alive) == 8 and max(alive) <= 3  # the first frame, the previous one and the current one


@pytest.mark.parametrize(("side", "shown"), [(1000, 1000), (2000, 1024)])
def test_very_large_images_are_downscaled_in_an_animation(tmp_path, side, shown):
    save_grid(tmp_path / "a.png", np.full((side, side, 1), 9, np.uint8))
    save_grid(tmp_path / "b.png", np.full((side, side, 1), 200, np.uint8))
    save_animation(tmp_path / "a.gif", [(name, tmp_path / f"{name}.png") for name in "ab"])
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 2 and animation.size == (shown, shown + 16)


def test_an_interrupted_run_leaves_its_animation_to_the_resumed_one(digits, tmp_path):
    gan = tiny_gan("mlp")

    def terminate(batch, logs):
        if gan.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            while not gan.preempted:  # set by another thread
                time.sleep(0.001)

    stopping = keras.callbacks.LambdaCallback(on_train_batch_end=terminate)
    active = [callbacks.SampleGrid(tmp_path, every_steps=2), callbacks.Animation(tmp_path), stopping]
    fit(digits, active, gan=gan, handle_sigterm=True)
    assert gan.step == 2 and not (tmp_path / "progression.gif").exists()
    fit(digits, active, gan=gan)
    with Image.open(tmp_path / "progression.gif") as animation:
        assert gan.step == 4 and animation.n_frames == 3


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    from trainer.storage import write_atomically

    write_atomically(tmp_path / "a", b"whole")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "a", "not bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"whole"


def test_grids_use_the_same_latents_at_every_step(digits, tmp_path):
    gan = tiny_gan("mlp", generator_learning_rate=0.0)
    fit(digits, [callbacks.SampleGrid(tmp_path, every_steps=2, log_dir=tmp_path / "logs")], gan=gan)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == ["step-00000000.png", "step-00000002.png", "step-00000004.png"]
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 1


def test_evaluations_are_logged_before_during_and_after_training(digits, tmp_path):
    log = callbacks.MetricsLog(tmp_path / "metrics.jsonl")
    gan = fit(digits, [callbacks.Evaluation(Suite([9.0, 5.0, 7.0]), every_steps=2), log])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("metric/frechet")) for line in lines] == [(0, 9.0), (2, 5.0), (4, 7.0)]
    assert [line["images_seen"] for line in lines] == [0, 32, 64]
    assert gan.step == 4


def test_the_best_checkpoint_is_kept_beside_the_newest(digits, tmp_path, trainer_log):
    active = [
        callbacks.Evaluation(Suite([9.0, 1.0, 7.0, 6.0, 5.0]), every_steps=2),
        callbacks.Checkpoint(tmp_path, every_steps=2, max_to_keep=1, best="metric/frechet"),
    ]
    fit(digits, active, steps=8)
    assert active[-1].store.steps() == [2, 8]
    assert active[-1].store.find_best()[0].step == 2
    best_messages = [message for message in trainer_log.messages if "best" in message]
    assert best_messages and all("frechet" in message and "metric/" not in message for message in best_messages)


def test_metrics_past_the_checkpoint_are_dropped_on_resume(digits, tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "images_seen": 16 * step, "time": 0.0} for step in (0, 2, 4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "cut sho')
    gan = tiny_gan("mlp")
    gan.step = 2
    fit(digits, [callbacks.MetricsLog(path)], gan=gan)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 2, 4]
    assert "loss/generator" in path.read_text().splitlines()[-1]


def test_tensorboard_gets_scalars_and_grids_by_step(digits, tmp_path):
    fit(digits, [callbacks.EventLog(tmp_path), callbacks.SampleGrid(tmp_path / "s", 2, log_dir=tmp_path)])
    values = set()
    for path in tmp_path.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            values |= {(event.step, value.tag) for value in event.summary.value}
    assert {
        (2, "loss/generator"),
        (4, "loss/discriminator"),
        (4, "images_per_sec"),
        (0, "samples"),
        (4, "samples"),
    } <= values


def test_progress_is_logged_without_a_terminal(digits, trainer_log):
    gan = tiny_gan("mlp")
    gan.fit(digits.images, batch_size=16, steps=4, steps_per_execution=2)
    fields = [record.fields for record in trainer_log.records if hasattr(record, "fields")]
    assert fields[-1]["step"] == 4
    assert {"loss/generator", "loss/discriminator", "images_per_sec"} <= set(fields[-1])


def test_progress_is_a_bar_on_a_terminal(digits, capsys, monkeypatch):
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    gan = tiny_gan("mlp")
    gan.fit(digits.images, batch_size=16, steps=4, steps_per_execution=2)
    shown = capsys.readouterr().out
    assert "4/4" in shown and "generator" in shown and "{" not in shown


def test_import_output_is_suppressed_unless_the_import_fails(capfd):
    import os

    with logging.quiet_import():
        os.write(2, b"noise\n")
    assert "noise" not in capfd.readouterr().err
    with pytest.raises(ImportError), logging.quiet_import():
        os.write(2, b"reason\n")
        raise ImportError
    assert "reason" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("is_absent", [False, True])
def test_a_stalled_process_exits_when_its_output_is_closed(is_absent, tmp_path, monkeypatch):
    codes = []

    def end(code):
        codes.append(code)
        raise SystemExit  # ends the thread of the watchdog

    closed = (tmp_path / "log").open("w")
    closed.close()
    monkeypatch.setattr(watchdog.os, "_exit", end)
    monkeypatch.setattr(watchdog.sys, "stderr", None if is_absent else closed)
    callbacks.Watchdog(timeout_secs=0.05).on_train_begin()
    for thread in [thread for thread in threading.enumerate() if thread.name == "watchdog"]:
        thread.join(10)
    assert codes == [134]


def test_a_stalled_process_writes_the_reason_and_all_stacks(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: None)
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(watchdog.sys, "stderr", file)
        watchdog.abort("no step has ended", with_stacks=True)
    text = (tmp_path / "log").read_text()
    assert "no step has ended" in text and "test_a_stalled_process_writes" in text


def test_the_watchdog_waits_while_blocks_are_computed_and_no_longer(monkeypatch):
    reasons = []
    monkeypatch.setattr(watchdog, "abort", lambda reason, **_: (reasons.append(reason), watched._ended.set()))
    watched = callbacks.Watchdog(timeout_secs=0.6)
    slow = ReplicatedFunction(lambda rows: (tf.py_function(lambda x: (time.sleep(0.1), x)[1], [rows], rows.dtype),))
    watched.on_train_begin()
    slow([(np.zeros(1),)] * 15)  # 1.5 s
    assert not reasons
    assert watched._ended.wait(10)
    assert len(reasons) == 1


def test_the_watchdog_watches_every_fit_that_it_is_passed_to(monkeypatch):
    reasons = []
    monkeypatch.setattr(watchdog, "abort", lambda reason, **_: (reasons.append(reason), watched._ended.set()))
    watched = callbacks.Watchdog(timeout_secs=0.2)
    for _ in range(2):
        watched.on_train_begin()
        watched.on_train_end()
    watched.on_train_begin()
    assert watched._ended.wait(10)
    assert len(reasons) == 1
