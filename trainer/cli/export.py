"""The `export` command."""

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.errors import ConfigError
from trainer.logging import print_line, quiet_import
from trainer.storage import locate, scratch_folder

_USAGE = """Writes a run's generator as a SavedModel for TensorFlow Serving and Vertex AI.

  {command} --job_dir=DIRECTORY --out=FOLDER [--checkpoint=best|latest|STEP]

Signatures of the model, for N instances, latents of size Z, and K classes:

  serving_default  latents: float32 [N, Z]; with classes, labels: int32 [N] in [0, K-1]
                   -> images: uint8 [N, H, W, C]
                   CycleGAN: images of domain A, uint8 -> images of domain B
  sample           seed: int64 [N]; number: int32 [N] in [1, 64]; with classes, label: int32 [N] in
                   [-1, K-1], where -1 stands for each class in turn
                   -> png_bytes: string [N], each a grid of `number` images
                   CycleGAN: not available

The model rejects a number or a label that is out of range. Every value in a request belongs to an instance, and values
whose names end in _bytes are base64:

  {"signature_name": "sample", "instances": [{"seed": 1, "number": 9}]}
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "out", None, "Folder to write, local or gs://. It must be empty.", required=True, flag_values=values
    )
    absl_flags.DEFINE_string("checkpoint", "best", "Checkpoint to export: best, latest, or a step.", flag_values=values)
    config_flags.define_recipe(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Writes the SavedModel."""
    out = locate(values.out)
    if out.exists():
        raise ConfigError(f"out={out} is a file; give a folder.")
    if next(iter(out.entries()), None) is not None:
        raise ConfigError(f"out={out} already has files; give another folder.")
    with quiet_import():
        from trainer.serving.saved_model import publish, save
        from trainer.training import restore

    _, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    with scratch_folder() as scratch:
        folder = scratch / "model"
        save(gan, folder, {"step": manifest.step})
        publish(folder, out)
    print_line(f"Wrote the generator at step {manifest.step} to {out}.")


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)
