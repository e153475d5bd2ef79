"""A finished run deletes the checkpoints that a killed process had not deleted yet."""

import pytest

from trainer import task
from trainer.storage import locate

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


@pytest.mark.parametrize("missing", [["MANIFEST.json"], ["MANIFEST.json", "state.index"], []], ids=str)
def test_a_checkpoint_whose_deletion_was_interrupted_is_deleted_at_the_next_start(finished, missing, capsys):
    expected, folder = names_of_checkpoints(finished), locate(finished) / "checkpoints"
    for name in {name.partition("/")[2] for name in expected} - set(missing):
        content = (folder / f"step-00000004/{name}").read_bytes().replace(b'"step": 4', b'"step": 2')
        (folder / "step-00000002" / name).write_bytes(content)
    assert names_of_checkpoints(finished) > expected
    assert task.main(["task", *FLAGS, f"--job_dir={finished}"]) == 0
    assert names_of_checkpoints(finished) == expected
    capsys.readouterr()
    assert task.main(["task", *FLAGS, f"--job_dir={finished}"]) == 0
    assert "finished" in "".join(capsys.readouterr())
