"""A run's generator as a SavedModel: `python -m trainer export --job_dir=runs/x --out=model`.

TensorFlow Serving and Vertex AI serve it as it is. Its signatures:

- `serving_default`: `latents` float32 [N, Z] and, of a model with K classes, `labels` int32 [N] in [0, K-1] -> `images`
  uint8 [N, H, W, C]. Of a CycleGAN: `images` of domain A, uint8 -> `images` of domain B.
- `sample`: `seed` int64 [N], `number` int32 [N] in [1, 64] and, of a model with K classes, `label` int32 [N] in
  [-1, K-1] (-1 for each class in turn) -> `png_bytes` string [N], each a grid of `number` images. A CycleGAN has none.

A request with a number or a label out of its range is refused, and the message has the range.
Every value in a request belongs to an instance: {"signature_name": "sample", "instances": [{"seed": 1, "number": 9}]}.
Names that end in `_bytes` come as base64.
"""

import sys
import tempfile
from pathlib import Path

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.errors import ConfigError
from trainer.logging import quiet_import
from trainer.storage import locate

_USAGE = """Writes a run's generator as a SavedModel.

  python -m trainer export --job_dir=DIRECTORY --out=FOLDER [--checkpoint=best]
"""


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "The run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string("out", None, "Folder to write, local or gs://.", required=True, flag_values=values)
    absl_flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.", flag_values=values)
    config_flags.define_recipe(values)


def act(values: absl_flags.FlagValues) -> None:
    """Writes the folder."""
    out = locate(values.out)
    if next(iter(out.entries()), None) is not None:
        raise ConfigError(f"out={out} holds files already; give another folder.")
    with quiet_import():
        from trainer.serving.saved_model import publish, save
        from trainer.training import restore

    _, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    with tempfile.TemporaryDirectory(prefix="gan-trainer-") as scratch:
        folder = Path(scratch) / "model"
        save(gan, folder, {"step": manifest.step})
        publish(folder, out)
    print(f"Wrote the generator at step {manifest.step} to {out}.")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
