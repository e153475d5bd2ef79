"""Measures the size and the loading time of a dataset in each encoding.

    python -m benchmarks.encodings --source=flowers.zip --image_size=128,128

Prints the rows of the table in docs/data.md. Loading times are medians over rounds in turn, in one process with the
threads that TensorFlow chooses. All ratios are over those of PNG.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.cli.image_flags import parse_image_size

_FORMS = (("png", None), ("jpeg", 95), ("jpeg", 85), ("webp", 95), ("webp", 85))


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("source", None, "Images, as for `prepare`.", required=True, flag_values=values)
    absl_flags.DEFINE_list("image_size", ["128", "128"], "Height and width in pixels.", flag_values=values)
    absl_flags.DEFINE_integer("limit", 2000, "Number of images.", lower_bound=100, flag_values=values)
    text = "Number of times that each dataset is loaded."
    absl_flags.DEFINE_integer("rounds", 5, text, lower_bound=1, flag_values=values)


def prepare(folder: Path, encoding: str, quality: int | None, values: absl_flags.FlagValues) -> float:
    """Prepares a dataset. Returns the size of its shards in bytes per image."""
    from trainer.data.prepare import convert
    from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
    from trainer.data.prepare.sources import open_source
    from trainer.storage import locate

    options = ConversionOptions(
        image_size=parse_image_size(values.image_size),
        channels=3,
        limit=values.limit,
        encoding=encoding,
        quality=quality,
    )
    metadata = dict.fromkeys(("name", "source", "license", "attribution"), "benchmark")
    with open_source(values.source) as source:
        plan = plan_conversion(source, options)
        spec, _ = convert.convert(source, plan, options, locate(folder), metadata, lambda progress: None)
    return sum(shard.num_bytes for shard in spec.shards) / spec.num_examples


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints a row for each encoding."""
    from trainer.data.loading import load

    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(len(_FORMS))]
        sizes = [prepare(folder, *form, values) for folder, form in zip(folders, _FORMS, strict=True)]
        images = [load(folder).images.astype(np.int16) for folder in folders]  # and the decoders are compiled
        secs: list[list[float]] = [[] for _ in folders]
        for _round in range(values.rounds):
            for folder, times in zip(folders, secs, strict=True):
                started = time.perf_counter()
                load(folder)
                times.append(time.perf_counter() - started)
    medians = [statistics.median(times) for times in secs]
    for (encoding, quality), size, median, pixels in zip(_FORMS, sizes, medians, images, strict=True):
        form = encoding if quality is None else f"{encoding}, quality {quality}"
        difference = float(np.mean(np.abs(pixels - images[0])))
        print(f"| {form} | {size:,.0f} | {size / sizes[0]:.2f} | {median / medians[0]:.2f} | {difference:.1f} |")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
