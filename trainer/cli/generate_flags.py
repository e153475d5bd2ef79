"""Flags of `generate`: images, modes, and outputs."""

from pathlib import PurePosixPath

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.config.fields import join_words
from trainer.errors import ConfigError, quote
from trainer.storage import Location, locate
from trainer.storage.local import LocalLocation
from trainer.storage.run_directory import own_part

_IMAGES = {
    ".png": "a .png grid",
    ".zip": "a .zip of single images",
    ".npz": "a .npz of arrays",
    ".npy": "a .npy of images",
}
_ANIMATIONS = {".gif": "a .gif", ".webp": "a .webp", ".mp4": "a .mp4"}
FOLDER = "folder"
_MODES = ("walk", "traversal", "init_image", "images", "mix_styles")
_MODES_WITHOUT_SEEDS = {
    "init_image": ("searches the latents", ("seeds", "num_images", "truncation")),
    "mix_styles": ("has its own seeds", ("seeds", "num_images")),
    "images": ("translates all of its images", ("seeds", "num_images", "truncation", "labels")),
}
"""Modes without --seeds and --num_images: the reason, and the flags without effect on them."""
_KINDS: dict[str, dict[str, str]] = {
    "": {**_IMAGES, FOLDER: "a folder, whose name ends with /"},
    "walk": _ANIMATIONS,
    "traversal": {".png": "a .png grid"},
    "mix_styles": {".png": "a .png grid"},
    "init_image": {FOLDER: "a folder, whose name ends with /"},
    "images": {".zip": _IMAGES[".zip"], FOLDER: "a folder, whose name ends with /"},
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
        "Seeds of the images, as numbers and ranges: 0-99,120. Each seed is one image. CycleGAN and pix2pix: numbers "
        "of their images. None: 0 to num_images - 1.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "num_images",
        64,
        "Number of images to generate. CycleGAN and pix2pix: at most the number of their images, which may lower the "
        "default. A walk visits one image per second by default, and a traversal shows one.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "labels",
        None,
        "Classes that the images get in turn, as names or numbers; or vectors of conditions, as in 1,0,0.5;0,1,0.5. "
        "None: each class in turn, or conditions of the data.",
        flag_values=values,
    )
    absl_flags.DEFINE_alias("label", "labels", flag_values=values)
    absl_flags.DEFINE_alias("conditions", "labels", flag_values=values)
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
        "and more similar images. StyleGAN2: styles instead of latents; 1 changes nothing. None: no truncation.",
        flag_values=values,
    )
    _define_modes(values)
    config_flags.define_checkpoint(values)


def _define_modes(values: absl_flags.FlagValues) -> None:
    """Defines the flags of `_MODES`, which replace plain samples."""
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
    absl_flags.DEFINE_string(
        "images",
        None,
        "CycleGAN and pix2pix: images to translate, a folder or another source that prepare accepts. The outputs have "
        "their names. Images of another size are resized as those of the run were.",
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "mix_styles",
        None,
        "StyleGAN2: seeds of rows and of columns, such as 0-3:10-15. Each image has the coarse styles of its column, "
        "such as pose and shape, and the fine styles of its row, such as colors.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "num_coarse",
        None,
        "Number of layers, from the coarsest one, that take the styles of the column. None: half of the layers. Needs "
        "--mix_styles.",
        lower_bound=0,
        flag_values=values,
    )


def check_flags(values: absl_flags.FlagValues) -> str:
    """Returns the mode, one of `_MODES` or empty. Rejects flags that do not go together, before anything is read."""
    modes = [name for name in _MODES if values[name].value is not None and values[name].value is not False]
    if len(modes) > 1:
        raise ConfigError(f"--{modes[0]} and --{modes[1]} were both passed; pass one of them.")
    mode = modes[0] if modes else ""
    if values.seeds is not None and values["num_images"].present:
        raise ConfigError(
            f"--seeds={quote(values.seeds)} and --num_images={values.num_images} were both passed; pass one."
        )
    purpose, unused = _MODES_WITHOUT_SEEDS.get(mode, ("", ()))
    for name in unused:
        if values[name].present:
            raise ConfigError(f"--{name} has no effect with --{mode}, which {purpose}; omit it.")
    if values.num_coarse is not None and mode != "mix_styles":
        raise ConfigError(f"--num_coarse={values.num_coarse} needs --mix_styles; pass both, or omit it.")
    if values.truncation is not None and not 0.0 <= values.truncation <= 1.0:
        raise ConfigError(f"--truncation={values.truncation} is out of range; give a number from 0 to 1, such as 0.7.")
    if mode == "walk" and not _MIN_WALK_SECS <= values.walk <= _MAX_WALK_SECS:
        raise ConfigError(
            f"--walk={values.walk} is out of range; give {_MIN_WALK_SECS:g} to {_MAX_WALK_SECS:g} seconds, such as 10."
        )
    return mode


def parse_out(text: str, mode: str, job_dir: str) -> tuple[Location, str]:
    """Returns the location of the output, checked before the work, and its kind: an extension or `FOLDER`."""
    part = own_part(text, job_dir)
    if part is not None:
        raise ConfigError(f"--out={text} is in {part} of the run, which training changes; give a path outside of it.")
    out, kinds = locate(text), _KINDS[mode]
    if out.name.lower() in _IMAGES | _ANIMATIONS:
        raise ConfigError(f"--out={text} has an extension but no name; give a name, such as images{out.name}.")
    suffix = PurePosixPath(out.name).suffix.lower()
    is_existing = isinstance(out, LocalLocation) and out.path.is_dir() and suffix not in _IMAGES | _ANIMATIONS
    if text.endswith("/") or not suffix or is_existing:
        if FOLDER not in kinds:
            raise ConfigError(f"--out={text} is a folder; with --{mode}, write {join_words([*kinds.values()])}.")
        return app.output_folder("out", text), FOLDER
    if suffix in _ANIMATIONS and not mode:
        raise ConfigError(f"--out={text} is an animation; pass --walk=SECONDS too, or write a .png.")
    if mode and suffix not in kinds:
        raise ConfigError(f"--out={text} does not fit --{mode}; write {join_words([*kinds.values()])}.")
    return app.output_file("out", text, kinds), suffix
