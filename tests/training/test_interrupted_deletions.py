"""A finished run deletes the checkpoints that a killed process had not deleted yet."""

import pytest
from broken_updates import break_updates

from trainer import task
from trainer.storage import locate
from trainer.training import run as training_run

FLAGS = [
    *(
        "--recipe=vanilla",
        '--architecture_options={"generator_units": [8], "discriminator_units": [8]}',
        "--latent_dim=8",
        "--global_batch_size=4",
    ),
    *("--metrics=none", "--noexport_model", "--steps=4", "--checkpoint_every_steps=2", "--max_to_keep=1"),
    *("--sample_every_steps=4", "--steps_per_execution=2", "--dataset=digits"),
]


def names_of_checkpoints(job_dir):
    return {entry.name for entry in (locate(job_dir) / "checkpoints").entries()}


@pytest.fixture(params=["local", "bucket"])
def finished(request, tmp_path):
    job_dir = f"{request.getfixturevalue('bucket')}/run" if request.param == "bucket" else str(tmp_path / "run")
    assert task.main(["task", *FLAGS, f"--job_dir={job_dir}"]) == 0
    return job_dir


@pytest.fixture
def no_networks(monkeypatch):
    """Lets a run build networks no longer. Call it."""

    def build(*arguments, **settings):
        raise AssertionError("a finished run needs no networks")

    return lambda: monkeypatch.setattr(training_run, "from_config", build)


@pytest.mark.parametrize("missing", [["MANIFEST.json"], ["MANIFEST.json", "state.index"], []], ids=str)
def test_a_checkpoint_whose_deletion_was_interrupted_is_deleted_at_the_next_start(finished, missing, no_networks):
    expected, folder = names_of_checkpoints(finished), locate(finished) / "checkpoints"
    for name in {name.partition("/")[2] for name in expected} - set(missing):
        content = (folder / f"step-00000004/{name}").read_bytes().replace(b'"step": 4', b'"step": 2')
        (folder / "step-00000002" / name).write_bytes(content)
    assert names_of_checkpoints(finished) > expected
    no_networks()
    config = (locate(finished) / "config.json").read_bytes()
    for _ in range(2):
        assert task.main(["task", *FLAGS, f"--job_dir={finished}"]) == 0
        assert names_of_checkpoints(finished) == expected
    assert (locate(finished) / "config.json").read_bytes() == config


def test_a_run_whose_last_updates_were_skipped_is_finished(tmp_path, monkeypatch, no_networks, trainer_log):
    """It keeps the checkpoint of step 2, to which a longer run may roll back."""
    create, command = training_run.from_config, ["task", *FLAGS, f"--job_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(
            training_run, "from_config", lambda *args, **settings: break_updates(create(*args, **settings), [3])
        )
        assert task.main(command) == 0
    expected = names_of_checkpoints(tmp_path)
    assert {name.partition("/")[0] for name in expected} == {"step-00000002", "step-00000004"}
    no_networks()
    trainer_log.clear()
    assert task.main(command) == 0
    assert names_of_checkpoints(tmp_path) == expected and "killed" not in trainer_log.text
