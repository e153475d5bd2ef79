"""The `generate` command."""

import io
import math

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.errors import count_of
from trainer.image_io import png, tile
from trainer.logging import print_line, quiet_import

_USAGE = """Generates images with a run's generator.

  {command} --job_dir=DIRECTORY --out=FILE [--num_images=64] [--label=cat] [FLAGS]

FILE is a .png grid, or a .npz with the array x, uint8 [N, H, W, C], and for conditional models y, int32 [N].
"""
_KINDS = {".png": "a .png grid", ".npz": "a .npz of arrays"}


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "out", None, "File to write, local or gs://: .png or .npz.", required=True, flag_values=values
    )
    absl_flags.DEFINE_integer(
        "num_images",
        64,
        "Number of images to generate. CycleGAN: at most the number of its images, which may lower the default.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "label", None, "Class of all images, as a name or a number. None: each class in turn.", flag_values=values
    )
    absl_flags.DEFINE_integer(
        "seed", None, "Seed of the latents. None: the seed of the run.", lower_bound=0, flag_values=values
    )
    absl_flags.DEFINE_string("checkpoint", "best", "Checkpoint to use: best, latest, or a step.", flag_values=values)
    config_flags.define_recipe(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Writes the grid or the arrays."""
    out = app.output_file("out", values.out, _KINDS)
    with quiet_import():
        from trainer.data import describe
        from trainer.data.class_selection import class_number
        from trainer.data.loading import load_training_data
        from trainer.models import CycleGAN
        from trainer.training import restore

    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    num_images = values.num_images
    if isinstance(gan, CycleGAN):  # the images to translate are those of the run
        gan.show(*load_training_data(config).real_images())
        if not values["num_images"].present:
            num_images = min(num_images, gan.num_images_to_show)
    label = values.label
    if label is not None and gan.num_classes:
        is_code = gan.labels_are_codes  # a code has no name
        class_names = tuple(map(str, range(gan.num_classes))) if is_code else describe(config.dataset).class_names
        label = class_number(label, class_names, "the run" if is_code else config.dataset, "label")
    images, labels = gan.sample(num_images, labels=label, seed=values.seed)
    if out.name.endswith(".png"):
        has_class_columns = gan.num_classes and values.label is None
        columns = len(gan.classes) if has_class_columns else math.ceil(num_images**0.5)
        out.write_bytes(png(tile(images, columns)))
    else:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **({"x": images} if labels is None else {"x": images, "y": labels}))
        out.write_bytes(buffer.getvalue())
    print_line(f"Wrote {count_of(num_images, 'image')} of the generator at step {manifest.step} to {out}.")


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)
