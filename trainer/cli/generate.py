"""The `generate` command."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.cli.generate_flags import FOLDER, check_flags, define_flags, parse_out
from trainer.cli.progress import ProgressReporter
from trainer.config import TrainConfig
from trainer.errors import ConfigError, count_of, quote
from trainer.logging import print_line, quiet_import
from trainer.storage import Location, locate, parse_path

if TYPE_CHECKING:
    from trainer.models import GAN
    from trainer.sampling.samples import Samples

_USAGE = """Generates images with a run's generator.

  {command} --job_dir=DIRECTORY --out=OUT [--seeds=0-99 | --num_images=64] [--labels=cat,dog] [FLAGS]
  {command} --job_dir=DIRECTORY --out=WALK.webp --walk=SECONDS [--seeds=0-9]
  {command} --job_dir=DIRECTORY --out=FOLDER/ --init_image=PHOTO
  {command} --job_dir=DIRECTORY --out=GRID.png --traversal
  {command} --job_dir=DIRECTORY --out=FOLDER/ --images=SOURCE
  {command} --job_dir=DIRECTORY --out=GRID.png --mix_styles=0-3:10-15 [--num_coarse=4]

OUT is a .png grid; a folder or a .zip of single PNGs, which are named by seed and label; a .npz with the array x, uint8
[N, H, W, C], and for conditional models y, int32 [N]; or a .npy of the images. A walk is a .gif, a .webp or a .mp4. All
of them are local or gs://BUCKET/NAME.
"""


def run_command(values: absl_flags.FlagValues) -> None:
    """Writes the images."""
    mode = check_flags(values)
    out, kind = parse_out(values.out, mode, values.job_dir)
    if mode == "init_image":
        locate(values.init_image).num_bytes()  # a missing photo is an error before the work
    elif mode == "images":
        parse_path(values.images)
    with quiet_import():
        from trainer.data.loading import load_training_data
        from trainer.models import ImageTranslator
        from trainer.models.translator import NUM_GRID_IMAGES
        from trainer.sampling import samples
        from trainer.sampling.animation import check_encoder
        from trainer.sampling.mixing import parse_seed_pair
        from trainer.training import restore
    check_encoder(out)
    samples.check_num_samples("num_images", values.num_images, values.num_images)
    seeds = None if values.seeds is None else samples.parse_seeds(values.seeds)
    pair = parse_seed_pair(values.mix_styles) if mode == "mix_styles" else None
    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    _check_latents(values, mode, gan)
    if isinstance(gan, ImageTranslator) and mode != "images":  # the images to translate are those of the run
        gan.set_grid_images(*load_training_data(config).real_images(NUM_GRID_IMAGES))
    classes = _parse_labels(values.labels, config, gan)
    if mode == "init_image":
        written = _project(values, out, config, gan, classes)
    elif mode == "images":
        written = _translate(values, out, kind, config, gan)
    elif pair is not None:
        written = _mix(values, out, gan, [samples.labels_of(gan, seeds, classes) for seeds in pair], pair)
    else:
        seeds = _default_seeds(values, mode, gan) if seeds is None else seeds
        labels = None if mode == "traversal" else samples.labels_of(gan, seeds, classes)
        chosen = samples.Samples(seeds, labels, values.seed, values.truncation)
        if mode == "walk":
            written = _walk(out, values.walk, gan, chosen)
        elif mode == "traversal":
            written = _traverse(out, gan, chosen, classes)
        else:
            written = _write_images(out, kind, gan, chosen, has_class_columns=values.labels is None)
    print_line(f"Wrote {written} of the generator at step {manifest.step} to {out}.")


main = app.command(_USAGE, define_flags, run_command)


def _parse_labels(text: str | None, config: TrainConfig, gan: "GAN") -> list[Any] | None:
    """Returns the numbers of classes in a list of names and numbers, or vectors of conditions; the text itself if the
    model has no classes."""
    from trainer.data import describe
    from trainer.data.class_selection import class_number
    from trainer.data.conditions import parse_vector

    if text is None:
        return None
    if not gan.num_classes:
        return [text]
    if gan.conditions is not None:
        names = describe(config.dataset).condition_names
        return [parse_vector(part, names, f"--labels={quote(text)}") for part in text.split(";")]
    is_code = gan.labels_are_codes  # a code has no name
    class_names = tuple(map(str, range(gan.num_classes))) if is_code else describe(config.dataset).class_names
    parts = [text] if text in class_names else [part.strip() for part in text.split(",")]
    return [class_number(part, class_names, "the run" if is_code else config.dataset, "label") for part in parts]


def _default_seeds(values: absl_flags.FlagValues, mode: str, gan: "GAN") -> np.ndarray:
    """Returns the seeds 0 to `num_images` - 1. The default number depends on the mode and the model."""
    from trainer.models import ImageTranslator

    num_images = values.num_images
    if not values["num_images"].present:
        if isinstance(gan, ImageTranslator):
            num_images = min(num_images, gan.num_grid_images)
        elif mode == "walk":
            num_images = max(2, round(values.walk))
        elif mode == "traversal":
            num_images = 1
    return np.arange(num_images)


def _check_latents(values: absl_flags.FlagValues, mode: str, gan: "GAN") -> None:
    """Rejects what needs latents for an image translator, and images to translate for other models."""
    from trainer.models import ImageTranslator

    if mode == "images":
        if not isinstance(gan, ImageTranslator):
            raise ConfigError(
                f"--images={quote(values.images)} needs a model that translates images, and a {type(gan).__name__} "
                "generates them from latents; omit it."
            )
        return
    name = mode or ("truncation" if values.truncation is not None else "")
    if name and isinstance(gan, ImageTranslator):
        kind = type(gan).__name__
        raise ConfigError(f"--{name} needs a generator with latents, and a {kind} translates images; omit it.")


def _write_images(out: Location, kind: str, gan: "GAN", samples: "Samples", *, has_class_columns: bool) -> str:
    """Writes single samples in one of the kinds of `_IMAGES` or to a folder. Returns what was written."""
    from trainer.sampling import outputs
    from trainer.sampling.samples import images_of

    count = len(samples.indices)
    names = outputs.image_names(samples.indices, samples.labels)
    if kind == FOLDER:
        outputs.check_folder(out, names)
    with ProgressReporter(count) as reporter:
        images = reporter.follow(images_of(gan, samples))
        if kind == FOLDER:
            outputs.write_folder(out, outputs.image_files(images, names))
        elif kind == ".zip":
            outputs.write_archive(out, images, names)
        elif kind == ".png":
            has_columns = gan.num_classes and has_class_columns and gan.conditions is None
            outputs.write_grid(out, images, count, len(gan.classes) if has_columns else math.ceil(count**0.5))
        else:
            outputs.write_arrays(out, images, count, samples.labels)
    return count_of(count, "image")


def _walk(out: Location, duration_secs: float, gan: "GAN", samples: "Samples") -> str:
    """Writes a walk through samples. Returns what was written."""
    from trainer.sampling import walk
    from trainer.sampling.animation import FRAMES_PER_SEC, check_num_pixels, write_animation
    from trainer.sampling.samples import images_of

    num_samples, num_frames = len(samples.indices), round(duration_secs * FRAMES_PER_SEC)
    if not 2 <= num_samples <= num_frames:
        raise ConfigError(
            f"a walk of {duration_secs:g} s has {count_of(num_frames, 'frame')} and visits at least two images and at "
            f"most one in each frame, but {count_of(num_samples, 'image')} were requested; change --seeds, "
            "--num_images, or --walk."
        )
    _, height, width, _ = next(images_of(gan, samples.rows(np.arange(1)))).shape
    check_num_pixels(out, num_frames, height, width)
    path = walk.path_through(gan, samples)
    with ProgressReporter(walk.num_images(num_samples, num_frames)) as reporter:
        positions = walk.frame_positions(lambda points: reporter.follow(path.images(points)), num_samples, num_frames)
        write_animation(out, reporter.follow(path.images(positions)))
    return f"a walk of {count_of(num_frames, 'frame')} through {count_of(num_samples, 'image')}"


def _traverse(out: Location, gan: "GAN", samples: "Samples", categories: list[int] | None) -> str:
    """Writes traversals of an InfoGAN. Returns what was written."""
    from trainer.sampling.outputs import write_grid
    from trainer.sampling.traversal import COLUMNS, traversal_images

    images, count = traversal_images(gan, samples, categories)
    with ProgressReporter(count) as reporter:
        write_grid(out, reporter.follow(images), count, COLUMNS)
    return f"traversals of {count_of(count, 'image')}"


def _mix(values: absl_flags.FlagValues, out: Location, gan: "GAN", labels: list[Any], seeds: Any) -> str:
    """Writes a grid of mixed styles. Returns what was written."""
    from trainer.sampling.mixing import mixed_images
    from trainer.sampling.outputs import write_grid
    from trainer.sampling.samples import Samples

    rows, columns = (Samples(seeds[axis], labels[axis], values.seed, values.truncation) for axis in (0, 1))
    images = mixed_images(gan, rows, columns, values.num_coarse)
    num_columns = len(seeds[1]) + 1
    count = (len(seeds[0]) + 1) * num_columns
    with ProgressReporter(count) as reporter:
        write_grid(out, reporter.follow(images), count, num_columns)
    return f"a grid of {count_of(len(seeds[0]), 'row')} and {count_of(len(seeds[1]), 'column')} of mixed styles"


def _project(
    values: absl_flags.FlagValues, out: Location, config: TrainConfig, gan: "GAN", classes: list[int] | None
) -> str:
    """Writes the projection of a photo. Returns what was written."""
    from trainer.data import describe
    from trainer.sampling import outputs, projection

    outputs.check_folder(out, projection.FILES)
    photo = projection.read_photo(values.init_image, describe(config.dataset, config.padding).image_shape)
    with ProgressReporter(projection.NUM_STEPS, "step") as reporter:
        result = projection.project(
            gan, photo, classes, num_steps=projection.NUM_STEPS, seed=values.seed, on_step=reporter.update
        )
    outputs.write_folder(out, result.files())
    return f"the projection of {values.init_image} (mean difference {result.error:.1f} of 255)"


def _translate(values: absl_flags.FlagValues, out: Location, kind: str, config: TrainConfig, gan: "GAN") -> str:
    """Writes translations of the user's images. Returns what was written."""
    from trainer.sampling import outputs, translation

    with translation.open_images(values.images, gan, config) as images:
        images.check_output(values.out)
        names = images.output_names()
        if kind == FOLDER:
            outputs.check_folder(out, names)
        with ProgressReporter(len(names)) as reporter:
            blocks = reporter.follow(images.translations(values.seed))
            if kind == FOLDER:
                outputs.write_folder(out, outputs.image_files(blocks, names))
            else:
                outputs.write_archive(out, blocks, names)
    return count_of(len(names), "translation")
