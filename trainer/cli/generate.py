"""Makes images with a run's generator: `python -m trainer generate --job_dir=runs/digits --out=grid.png`."""

import io

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.image_io import png, tile
from trainer.logging import quiet_import

_USAGE = """Makes images with a run's generator.

  python -m trainer generate --job_dir=DIRECTORY --num_images=64 [--label=3] --out=grid.png|samples.npz

A .png is one grid; a .npz holds x, uint8 [N, H, W, C], and for conditional models y, int32 [N].
"""


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "out", None, "File to write, local or gs://: .png or .npz.", required=True, flag_values=values
    )
    absl_flags.DEFINE_integer("num_images", 64, "How many images.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_integer("label", None, "Class to ask for. None: each in turn.", flag_values=values)
    absl_flags.DEFINE_integer("seed", None, "Of the latents. None: the run's.", lower_bound=0, flag_values=values)
    absl_flags.DEFINE_string("checkpoint", "best", "best, latest or a step.", flag_values=values)
    config_flags.define_recipe(values)


def act(values: absl_flags.FlagValues) -> None:
    """Writes the file."""
    out = app.file_to_write("out", values.out, {".png": "a .png grid", ".npz": "a .npz of arrays"})
    with quiet_import():
        from trainer.data.loading import load_training_data
        from trainer.models import CycleGAN
        from trainer.training import restore

    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    if isinstance(gan, CycleGAN):  # it translates the images of its run
        gan.show(*load_training_data(config).real_images)
    count = values.num_images
    images, labels = gan.sample(count, labels=values.label, seed=values.seed)
    if out.name.endswith(".png"):
        columns = len(gan.classes) if gan.num_classes and values.label is None else int(np.ceil(count**0.5))
        out.write_bytes(png(tile(images, columns)))
    else:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **({"x": images} if labels is None else {"x": images, "y": labels}))
        out.write_bytes(buffer.getvalue())
    print(f"Wrote {count} images of the generator at step {manifest.step} to {out}.")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)
