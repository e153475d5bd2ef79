"""Rollbacks in buckets, with streams, XLA, several machines and absurd settings, and of processes that are killed."""

import contextlib
import json
import os
import signal
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from broken_updates import Stop, diverging, fit, interrupt_deletions, rollbacks, run
from conftest import TINY_MLP, tiny_gan, values_of

from benchmarks import exact_resume
from benchmarks.tally import digest
from trainer import task
from trainer.callbacks import Checkpoint
from trainer.cloud.emulator.replicas import free_ports
from trainer.data.pipeline.chunk_schedule import ChunkSchedule
from trainer.data.pipeline.loaders import StreamedDataset
from trainer.data.shard_cache import ShardCache
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import DivergenceError
from trainer.storage import locate
from trainer.storage.run_directory import read_metrics
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.divergence import MAX_ROLLBACKS


@pytest.fixture(scope="module")
def images(digits):
    return digits.images[:160]


@pytest.fixture(scope="module")
def stream(digits, tmp_path_factory):
    """160 images in five chunks of two steps each."""
    folder, texts = tmp_path_factory.mktemp("set"), {"name": "set", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, digits.images[:160], digits.labels[:160], digits.info.class_names, num_shards=5, **texts)
    files = ShardCache(locate(folder))
    return lambda: StreamedDataset(files, ChunkSchedule(files.spec.shards, 5, 0))


def showing_images(gan):
    """Logs the mean of the images of each step."""
    original = gan.forward

    def forward(images, labels, rng, names):
        losses, metrics = original(images, labels, rng, names)
        name = names[0]
        return losses, metrics | {name: metrics.get(name, {}) | {f"images/{name}": tf.reduce_mean(images, [1, 2, 3])}}

    gan.forward = forward
    return gan


def images_by_step(folder):
    lines, _ = read_metrics(folder / "metrics.jsonl")
    return {line["step"]: line["images/generator"] for line in lines if "images/generator" in line}


@pytest.mark.parametrize("is_streamed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_order_of_images_stays_the_same_after_a_rollback(images, stream, tmp_path, is_streamed):
    """The rollback from step 12 to step 6 leads from the sixth chunk back to the fourth."""
    for name, gan in (("undisturbed", tiny_gan()), ("diverging", diverging())):
        run(tmp_path / name, stream() if is_streamed else images, showing_images(gan), steps_per_execution=1)
    expected, shown = images_by_step(tmp_path / "undisturbed"), images_by_step(tmp_path / "diverging")
    assert shown == pytest.approx(expected, rel=1e-6) and list(shown) == [*range(1, 21)]
    assert len({round(value, 6) for value in shown.values()}) > 9


@pytest.mark.slow
def test_a_killed_run_of_a_stream_rolls_back_to_the_same_bits(stream, tmp_path):
    reference = run(tmp_path / "whole", stream(), diverging())
    for at in ((10, 0), (8, 1), (11, 1)):
        with contextlib.suppress(KeyboardInterrupt):
            run(tmp_path / str(at), stream(), diverging(), callbacks=[Stop(*at)], steps_per_execution=1)
        assert run(tmp_path / str(at), stream(), diverging()) == reference


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_run_with_xla_rolls_back_to_the_same_bits(images, tmp_path, optimizer):
    def gan():
        return diverging(num_salts=2, jit_compile="on", optimizer=optimizer)

    reference = run(tmp_path / "whole", images, gan())
    assert [line["step"] for line in rollbacks(tmp_path / "whole")] == [6, 6]
    for at in ((7, 0), (10, 1)):
        with contextlib.suppress(KeyboardInterrupt):
            run(tmp_path / str(at), images, gan(), callbacks=[Stop(*at)], steps_per_execution=1)
        assert run(tmp_path / str(at), images, gan()) == reference
        assert rollbacks(tmp_path / str(at)) == rollbacks(tmp_path / "whole")


def steps_in(remote):
    return sorted({int(entry.name.partition("/")[0].removeprefix("step-")) for entry in remote.entries()})


def test_a_rollback_deletes_later_checkpoints_in_a_bucket(images, bucket, tmp_path):
    remote, reference = locate(bucket) / "run/checkpoints", run(tmp_path / "local", images, diverging(range(8, 13)))
    gan = diverging(range(8, 13))
    fit(gan, images, 12, callbacks=[Checkpoint(tmp_path / "a", 3, remote=remote)])
    assert steps_in(remote) == [6, 9, 12]
    fit(gan, images, 13, callbacks=[Checkpoint(tmp_path / "a", 3, remote=remote)])
    assert gan.step == 13 and gan.divergence.num_rollbacks == 1
    assert CheckpointStore(tmp_path / "b", every_steps=3, remote=remote).find()[0].step == 13
    assert run(tmp_path / "c", images, diverging(range(8, 13)), remote=remote) == reference
    assert steps_in(remote) == [15, 18, 20]


@pytest.mark.parametrize("num_deletions", [0, 1, 2])
def test_a_machine_lost_during_a_rollback_in_a_bucket_is_replaced(images, bucket, tmp_path, monkeypatch, num_deletions):
    """Two checkpoints are abandoned, of steps 9 and 12; the new machine has only the bucket."""
    steps, remote = range(8, 13), locate(bucket) / "run/checkpoints"
    reference = run(tmp_path / "local", images, diverging(steps))
    checkpoint = Checkpoint(tmp_path / "lost", 3, remote=remote)
    deleted = interrupt_deletions(checkpoint, num_deletions, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit(diverging(steps), images, 20, callbacks=[checkpoint])
    assert len(deleted) == num_deletions
    assert run(tmp_path / "new", images, diverging(steps), remote=remote) == reference
    assert steps_in(remote) == [15, 18, 20]


def absurd(rate=1e30, update_order="simultaneous"):
    """Returns a model whose first step is finite if its updates are simultaneous."""
    settings = {"update_order": update_order, "ema_half_life_images": 100.0}
    return tiny_gan(generator_learning_rate=rate, discriminator_learning_rate=rate, **settings)


@pytest.mark.parametrize(
    ("rate", "update_order", "every_steps"),
    [
        (10.0, "alternating", 3),
        (1e4, "alternating", 1),
        (1e15, "alternating", 1),
        (1e30, "alternating", 1),
        (1e30, "simultaneous", 1),
        (1e30, "simultaneous", 3),
    ],
)
def test_a_run_with_an_absurd_learning_rate_ends_as_promised(images, tmp_path, rate, update_order, every_steps):
    """It takes all its steps with finite state, or returns three times, or has no checkpoint to return to."""
    gan, store = absurd(rate, update_order), CheckpointStore(tmp_path / "checkpoints", every_steps=every_steps)
    try:
        run(tmp_path, images, gan, every_steps=every_steps)
    except DivergenceError:
        has_target = gan.divergence.last_applied_step(gan.step) >= every_steps
        assert gan.divergence.num_rollbacks == (MAX_ROLLBACKS if has_target else 0)
    else:
        assert gan.step == 20
        assert all(np.isfinite(value).all() for value in values_of(gan).values())
    assert len(rollbacks(tmp_path)) == gan.divergence.num_rollbacks
    for step in store.steps():
        other = absurd(rate, update_order)
        assert store.find(step)[0].step == step and store.restore(other.state) is not None
        assert all(np.isfinite(value).all() for value in values_of(other).values())


def test_a_command_that_diverges_too_often_fails_and_keeps_its_checkpoints(tmp_path, capsys):
    flags = ["--recipe=vanilla", f"--architecture_options={json.dumps(TINY_MLP)}", f"--job_dir={tmp_path}"]
    flags += ["--metrics=none", "--noexport_model", "--jit_compile=off", "--sample_every_steps=0", "--steps=20"]
    flags += ["--generator_learning_rate=1e30", "--discriminator_learning_rate=1e30", "--update_order=simultaneous"]
    flags += ["--checkpoint_every_steps=1"]
    outcomes = []
    for _ in range(2):  # the second start continues from the same checkpoint
        assert task.main(["task", *flags]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        outcomes.append((line, digest(tmp_path)))
    assert outcomes[0] == outcomes[1]
    assert [line["rollbacks"] for line in rollbacks(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("num_rollbacks", [0, 1, 3])
def test_a_run_with_an_absurd_learning_rate_is_killed_and_ends_alike(images, tmp_path, num_rollbacks):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with pytest.raises(DivergenceError) as expected:
        run(whole, images, absurd(), every_steps=1)
    with pytest.raises(KeyboardInterrupt):
        stop = Stop(rollbacks(whole)[0]["step"] + 1, num_rollbacks)
        run(killed, images, absurd(), every_steps=1, callbacks=[stop], steps_per_execution=1)
    with pytest.raises(DivergenceError) as error:
        run(killed, images, absurd(), every_steps=1)
    assert str(error.value) == str(expected.value)
    assert rollbacks(killed) == rollbacks(whole)
    assert digest(killed) == digest(whole)


DIVERGING_STEPS = ("--steps=150", "--jit_compile=off")
"""The recipe diverges in steps 105 to 109, and returns to the checkpoint of step 100."""


def diverging_command(folder, *flags):
    return [*exact_resume.command("divergence", str(folder), folder, DIVERGING_STEPS), *flags]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(diverging_command(folder), check=True, capture_output=True)
    assert [line["step"] for line in rollbacks(folder)] == [100]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("fact", ["skipped", "rollback"])
def test_a_process_killed_around_a_rollback_ends_with_the_same_bits(tmp_path, undisturbed, fact):
    command = diverging_command(tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert any(fact in line for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    assert digest(tmp_path) == digest(undisturbed)
    assert exact_resume.files(tmp_path) == exact_resume.files(undisturbed)
    assert rollbacks(tmp_path) == rollbacks(undisturbed)


@pytest.mark.slow
def test_two_machines_roll_back_like_two_devices(tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index, role in enumerate(("chief", "worker")):
        cluster = {"chief": addresses[:1], "worker": addresses[1:]}
        tf_config = json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}})
        environ = os.environ | {"TF_CONFIG": tf_config, "PYTHONPATH": os.getcwd()}  # for the recipe in benchmarks
        folder = tmp_path / f"machine-{index}"
        folder.mkdir()
        processes.append(
            subprocess.Popen(
                diverging_command(tmp_path / "several"), env=environ, cwd=folder, text=True, stderr=subprocess.PIPE
            )
        )
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    mirrored = ("--strategy=mirrored", "--num_virtual_devices=2")
    subprocess.run(diverging_command(tmp_path / "alone", *mirrored), check=True, capture_output=True)
    assert digest(tmp_path / "several") == digest(tmp_path / "alone")
    assert rollbacks(tmp_path / "several") == rollbacks(tmp_path / "alone") != []
