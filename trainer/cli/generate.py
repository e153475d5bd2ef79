"""The `generate` command."""

import math
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import TrainConfig, flags as config_flags
from trainer.errors import ConfigError, count_of, quote
from trainer.logging import is_terminal, print_line, quiet_import
from trainer.storage import Location, locate
from trainer.storage.local import LocalLocation

if TYPE_CHECKING:
    from trainer.models import GAN
    from trainer.sampling.samples import Samples

_USAGE = """Generates images with a run's generator.

  {command} --job_dir=DIRECTORY --out=OUT [--seeds=0-99 | --num_images=64] [--labels=cat,dog] [FLAGS]
  {command} --job_dir=DIRECTORY --out=WALK.webp --walk=SECONDS [--seeds=0-9]
  {command} --job_dir=DIRECTORY --out=FOLDER/ --init_image=PHOTO
  {command} --job_dir=DIRECTORY --out=GRID.png --traversal

OUT is a .png grid; a folder or a .zip of single PNGs, which are named by seed and label; a .npz with the array x, uint8
[N, H, W, C], and for conditional models y, int32 [N]; or a .npy of the images. A walk is a .gif, a .webp or a .mp4. All
of them are local or gs://BUCKET/NAME.
"""
_IMAGES = {
    ".png": "a .png grid",
    ".zip": "a .zip of single images",
    ".npz": "a .npz of arrays",
    ".npy": "a .npy of images",
}
_ANIMATIONS = {".gif": "a .gif", ".webp": "a .webp", ".mp4": "a .mp4"}
_FOLDER = "folder"
_MODES = ("walk", "traversal", "init_image")
_KINDS: dict[str, dict[str, str]] = {
    "": {**_IMAGES, _FOLDER: "a folder, whose name ends with /"},
    "walk": _ANIMATIONS,
    "traversal": {".png": "a .png grid"},
    "init_image": {_FOLDER: "a folder, whose name ends with /"},
}
"""Description of each kind of output that a mode writes, by extension."""
_MIN_WALK_SECS, _MAX_WALK_SECS = 0.2, 600.0


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string("out", None, "File or folder to write, local or gs://.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "seeds",
        None,
        "Seeds of the images, as numbers and ranges: 0-99,120. Each seed is one image. CycleGAN: numbers of its "
        "images. None: 0 to num_images - 1.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "num_images",
        64,
        "Number of images to generate. CycleGAN: at most the number of its images, which may lower the default. A walk "
        "visits one image per second by default, and a traversal shows one.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "labels",
        None,
        "Classes that the images get in turn, as names or numbers. None: each class in turn.",
        flag_values=values,
    )
    absl_flags.DEFINE_alias("label", "labels", flag_values=values)
    absl_flags.DEFINE_integer(
        "seed",
        None,
        "Seed from which all latents are drawn. None: the seed of the run.",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "truncation",
        None,
        "Number in [0, 1] by which latents are moved towards the center of their distribution: less gives more typical "
        "and more similar images. None: no truncation.",
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "walk", None, "Duration in seconds of an endless walk through the images in latent space.", flag_values=values
    )
    absl_flags.DEFINE_boolean(
        "traversal", False, "InfoGAN: show a row of images per continuous code and category.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "init_image",
        None,
        "Photo, local or gs://, to search in latent space. The folder gets the latents, the reconstruction and a "
        "picture of the progress.",
        flag_values=values,
    )
    absl_flags.DEFINE_string("checkpoint", "best", "Checkpoint to use: best, latest, or a step.", flag_values=values)
    config_flags.define_recipe(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Writes the images."""
    mode = _check_flags(values)
    out, kind = _parse_out(values.out, mode)
    if mode == "init_image":
        locate(values.init_image).num_bytes()  # a missing photo is an error before the work
    with quiet_import():
        from trainer.data.loading import load_training_data
        from trainer.models import CycleGAN
        from trainer.sampling import samples
        from trainer.sampling.animation import check_encoder
        from trainer.training import restore
    check_encoder(out)
    samples.check_num_samples("num_images", values.num_images, values.num_images)
    seeds = None if values.seeds is None else samples.parse_seeds(values.seeds)
    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    _check_latents(values, mode, gan)
    if isinstance(gan, CycleGAN):  # the images to translate are those of the run
        gan.show(*load_training_data(config).real_images())
    classes = _parse_labels(values.labels, config, gan)
    if mode == "init_image":
        written = _project(values, out, config, gan, classes)
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


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)


def _check_flags(values: absl_flags.FlagValues) -> str:
    """Returns the mode, one of `_MODES` or empty. Rejects flags that do not go together, before anything is read."""
    modes = [name for name in _MODES if values[name].value is not None and values[name].value is not False]
    if len(modes) > 1:
        raise ConfigError(f"--{modes[0]} and --{modes[1]} were both passed; pass one of them.")
    mode = modes[0] if modes else ""
    if values.seeds is not None and values["num_images"].present:
        raise ConfigError(
            f"--seeds={quote(values.seeds)} and --num_images={values.num_images} were both passed; pass one."
        )
    for name in ("seeds", "num_images", "truncation"):
        if mode == "init_image" and values[name].present:
            raise ConfigError(f"--{name} has no effect with --init_image, which searches the latents; omit it.")
    if values.truncation is not None and not 0.0 <= values.truncation <= 1.0:
        raise ConfigError(f"truncation={values.truncation} is out of range; give a number from 0 to 1, such as 0.7.")
    if mode == "walk" and not _MIN_WALK_SECS <= values.walk <= _MAX_WALK_SECS:
        raise ConfigError(
            f"walk={values.walk} is out of range; give {_MIN_WALK_SECS:g} to {_MAX_WALK_SECS:g} seconds, such as 10."
        )
    return mode


def _parse_out(text: str, mode: str) -> tuple[Location, str]:
    """Returns the location of the output, checked before the work, and its kind: an extension or `_FOLDER`."""
    out, kinds = locate(text), _KINDS[mode]
    suffix = PurePosixPath(out.name).suffix
    is_existing = isinstance(out, LocalLocation) and out.path.is_dir() and suffix not in _IMAGES | _ANIMATIONS
    if text.endswith("/") or not suffix or is_existing:
        if _FOLDER not in kinds:
            raise ConfigError(f"out={text} is a folder; with --{mode}, write {' or '.join(kinds.values())}.")
        return app.output_folder("out", text), _FOLDER
    if suffix in _ANIMATIONS and not mode:
        raise ConfigError(f"out={text} is an animation; pass --walk=SECONDS too, or write a .png.")
    if mode and suffix not in kinds:
        raise ConfigError(f"out={text} does not fit --{mode}; write {' or '.join(kinds.values())}.")
    return app.output_file("out", text, kinds), suffix


def _parse_labels(text: str | None, config: TrainConfig, gan: "GAN") -> list[Any] | None:
    """Returns the numbers of classes in a list of names and numbers; the text itself if the model has no classes."""
    from trainer.data import describe
    from trainer.data.class_selection import class_number

    if text is None:
        return None
    if not gan.num_classes:
        return [text]
    is_code = gan.labels_are_codes  # a code has no name
    class_names = tuple(map(str, range(gan.num_classes))) if is_code else describe(config.dataset).class_names
    parts = [text] if text in class_names else [part.strip() for part in text.split(",")]
    return [class_number(part, class_names, "the run" if is_code else config.dataset, "label") for part in parts]


def _default_seeds(values: absl_flags.FlagValues, mode: str, gan: "GAN") -> np.ndarray:
    """Returns the seeds 0 to `num_images` - 1. The default number depends on the mode and the model."""
    from trainer.models import CycleGAN

    num_images = values.num_images
    if not values["num_images"].present:
        if isinstance(gan, CycleGAN):
            num_images = min(num_images, gan.num_images_to_show)
        elif mode == "walk":
            num_images = max(2, round(values.walk))
        elif mode == "traversal":
            num_images = 1
    return np.arange(num_images)


def _check_latents(values: absl_flags.FlagValues, mode: str, gan: "GAN") -> None:
    """Rejects what needs latents for a CycleGAN."""
    from trainer.models import CycleGAN

    name = mode or ("truncation" if values.truncation is not None else "")
    if name and isinstance(gan, CycleGAN):
        raise ConfigError(f"--{name} needs a generator with latents, and a CycleGAN translates images; omit it.")


def _write_images(out: Location, kind: str, gan: "GAN", samples: "Samples", *, has_class_columns: bool) -> str:
    """Writes single samples in one of the kinds of `_IMAGES` or to a folder. Returns what was written."""
    from trainer.sampling import outputs
    from trainer.sampling.samples import images_of

    count = len(samples.seeds)
    names = outputs.image_names(samples.seeds, samples.labels)
    if kind == _FOLDER:
        outputs.check_folder(out, names)
    images = _ProgressBar(count).follow(images_of(gan, samples))
    if kind == _FOLDER:
        outputs.write_folder(out, outputs.image_files(images, names))
    elif kind == ".zip":
        outputs.write_archive(out, images, names)
    elif kind == ".png":
        has_columns = gan.num_classes and has_class_columns
        outputs.write_grid(out, images, count, len(gan.classes) if has_columns else math.ceil(count**0.5))
    else:
        outputs.write_arrays(out, images, samples.labels)
    return count_of(count, "image")


def _walk(out: Location, duration_secs: float, gan: "GAN", samples: "Samples") -> str:
    """Writes a walk through samples. Returns what was written."""
    from trainer.sampling import walk
    from trainer.sampling.animation import FRAMES_PER_SEC, write_animation

    num_samples, num_frames = len(samples.seeds), round(duration_secs * FRAMES_PER_SEC)
    if not 2 <= num_samples <= num_frames:
        raise ConfigError(
            f"a walk of {duration_secs:g} s has {count_of(num_frames, 'frame')} and visits at least two images and at "
            f"most one in each frame, but {count_of(num_samples, 'image')} were requested; change --seeds, "
            "--num_images, or --walk."
        )
    path = walk.path_through(gan, samples)
    bar = _ProgressBar(walk.num_images(num_samples, num_frames))
    positions = walk.frame_positions(lambda points: bar.follow(path.images(points)), num_samples, num_frames)
    write_animation(out, bar.follow(path.images(positions)))
    return f"a walk of {count_of(num_frames, 'frame')} through {count_of(num_samples, 'image')}"


def _traverse(out: Location, gan: "GAN", samples: "Samples", categories: list[int] | None) -> str:
    """Writes traversals of an InfoGAN. Returns what was written."""
    from trainer.sampling.outputs import write_grid
    from trainer.sampling.traversal import COLUMNS, traversal_images

    images, count = traversal_images(gan, samples, categories)
    write_grid(out, _ProgressBar(count).follow(images), count, COLUMNS)
    return f"traversals of {count_of(count, 'image')}"


def _project(
    values: absl_flags.FlagValues, out: Location, config: TrainConfig, gan: "GAN", classes: list[int] | None
) -> str:
    """Writes the projection of a photo. Returns what was written."""
    from trainer.data import describe
    from trainer.sampling import outputs, projection

    outputs.check_folder(out, projection.FILES)
    photo = projection.read_photo(values.init_image, describe(config.dataset, config.padding).image_shape)
    bar = _ProgressBar(projection.NUM_STEPS, "step")
    result = projection.project(
        gan, photo, classes, num_steps=projection.NUM_STEPS, seed=values.seed, on_step=bar.update
    )
    outputs.write_folder(out, result.files())
    return f"the projection of {values.init_image} (mean difference {result.error:.1f} of 255)"


class _ProgressBar:
    """A progress bar on a terminal; nothing elsewhere.

    Args:
        total: Number of units.
        unit: Name of a unit.
    """

    def __init__(self, total: int, unit: str = "image"):
        import keras

        self._bar = keras.utils.Progbar(total, unit_name=unit) if is_terminal() else None
        self._done = 0

    def update(self, done: int) -> None:
        """Shows the number of finished units."""
        self._done = done
        if self._bar is not None:
            self._bar.update(done)

    def follow(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields blocks of images, and counts their images."""
        for block in blocks:
            self.update(self._done + len(block))
            yield block
