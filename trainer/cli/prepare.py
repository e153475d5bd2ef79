"""Makes a data set of pictures: `python -m trainer prepare --source=photos/ --out=data/photos --image_size=64,64`."""

import logging
import time
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from trainer.cli import app
from trainer.data.prepare.decoding import RESIZES
from trainer.data.prepare.sources import opened
from trainer.errors import ConfigError
from trainer.logging import fields as logging_fields, is_terminal, quiet_import
from trainer.storage import locate

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from trainer.data.prepare.convert import Options, Plan, Tally

_USAGE = """Makes a data set of pictures, which --dataset=OUT then trains on.

  python -m trainer prepare --source=SOURCE --out=DIRECTORY [--image_size=64,64] [FLAGS]

SOURCE is a folder of images, flat or one sub-folder a class; a .zip or .tar of one; a .npz of arrays; an IDX file; a
.csv of paths and labels; or tfds:NAME. It and DIRECTORY may lie in a bucket: gs://BUCKET/NAME.
"""
_SECONDS_BETWEEN_LINES = 5.0
_SHOWN_BAD = 10


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("source", None, "Where the pictures are.", required=True, flag_values=values)
    absl_flags.DEFINE_string("out", None, "Folder of the data set.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "source_b", None, "Of a second domain, which becomes OUT/b beside OUT/a.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "image_root",
        None,
        "Folder, local or gs://, that all images of a .csv lie in. None: the folder of the .csv.",
        flag_values=values,
    )
    absl_flags.DEFINE_list("image_size", None, "H,W in pixels. None: all are of one size.", flag_values=values)
    absl_flags.DEFINE_enum(
        "resize",
        "crop",
        RESIZES,
        "crop: cover the size and cut the middle out. fit: fit in, on black. stretch: each side by itself. "
        "none: refuse other sizes.",
        flag_values=values,
    )
    absl_flags.DEFINE_enum(
        "channels", None, ["1", "3"], "Gray or color. None: gray if the first images are.", flag_values=values
    )
    absl_flags.DEFINE_integer("limit", None, "At most so many, evenly chosen.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_list("classes", None, "Names of the classes to take. None: all.", flag_values=values)
    absl_flags.DEFINE_float("shard_mib", 64.0, "Size of a shard, MiB.", lower_bound=0.001, flag_values=values)
    absl_flags.DEFINE_integer(
        "max_bad_images",
        0,
        "Images that may be left out because they cannot be read.",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer("processes", None, "That decode. None: one a core.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_string("name", None, "Of the data set. None: that of its folder.", flag_values=values)
    absl_flags.DEFINE_bool("dry_run", False, "Say what would be made, and write nothing.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Prepares one source, or two."""
    with quiet_import():
        from trainer.data.prepare.convert import Options

    options = Options(
        image_size=_image_size(values.image_size),
        resize=values.resize,
        channels=int(values.channels) if values.channels else None,
        limit=values.limit,
        classes=tuple(values.classes) if values.classes else None,
        shard_mib=values.shard_mib,
        max_bad_images=values.max_bad_images,
        num_processes=values.processes,
    )
    out = values.out.rstrip("/")
    if values.source_b is None:
        _prepare(values.source, out, options, values)
        trained_by = f"--dataset={out}"
    else:
        _prepare(values.source, f"{out}/a", options, values)
        _prepare(values.source_b, f"{out}/b", options, values)
        trained_by = f"--recipe=cyclegan --dataset={out}/a --dataset_b={out}/b"
    if not values.dry_run:
        _logger.info(f"Train on it with: python -m trainer.task {trained_by} --job_dir=runs/{locate(out).name}")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, _USAGE, define, act)


def _image_size(given: list[str] | None) -> tuple[int, int] | None:
    if given is None:
        return None
    sizes = [int(size) for size in given if size.strip().isdecimal() and int(size) > 0]
    if len(sizes) != len(given) or len(sizes) not in (1, 2):
        raise ConfigError(f"image_size={','.join(given)} is not a size; give --image_size=H,W, as in 64,64.")
    return sizes[0], sizes[-1]


def _prepare(source_name: str, out: str, options: "Options", values: absl_flags.FlagValues) -> None:
    from trainer.data.prepare import convert

    with opened(source_name, values.image_root) as source:
        _logger.info(f"{source_name} holds {len(source.items):,} images in {len(source.class_names)} classes.")
        plan = convert.plan(source, options)
        _logger.info(_sentence(plan, options))
        if values.dry_run:
            return
        about = {
            "name": values.name or locate(out).name,
            "source": source_name,
            "license": "",
            "attribution": "",
            "options": convert.recorded(options, plan),
        }
        manifest, tally = convert.prepare(source, plan, options, locate(out), about, _Progress())
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    _logger.info(
        f"Wrote {manifest.num_examples:,} images of {'×'.join(map(str, manifest.image_shape))} in "
        f"{len(manifest.shards)} shards, {num_bytes / 2**20:,.1f} MiB, to {out}."
    )
    for name, problem in tally.bad[:_SHOWN_BAD]:
        _logger.warning(f"Left out: {name} {problem}.")
    if len(tally.bad) > _SHOWN_BAD:
        _logger.warning(f"Left out: {len(tally.bad) - _SHOWN_BAD} more.")


def _sentence(plan: "Plan", options: "Options") -> str:
    target = plan.target
    how = f" by --resize={target.resize}" if options.image_size else ""
    return (
        f"{len(plan.indices):,} become {target.height}×{target.width}×{target.channels}{how}, classes "
        f"{', '.join(plan.class_names[:20])}{', …' if len(plan.class_names) > 20 else ''}."
    )


class _Progress:
    """Says how far it is: a line that is rewritten on a terminal, elsewhere one every five seconds."""

    def __init__(self) -> None:
        self._started = self._said = 0.0

    def __call__(self, tally: "Tally") -> None:
        now, terminal = time.monotonic(), is_terminal()
        if not self._started:  # processes have started by now
            self._started = self._said = now
        if now - self._said < (0.2 if terminal else _SECONDS_BETWEEN_LINES):
            return
        self._said = now
        speed = tally.done / (now - self._started)
        left = (tally.total - tally.done) / speed
        message = f"{tally.done:,} of {tally.total:,} images, {speed:,.0f} a second, {left:,.0f} s left."
        if terminal:
            print(f"\r\x1b[K{message}", end="", flush=True)
        else:
            _logger.info(message, extra=logging_fields({"done": tally.done, "images_per_sec": speed}))
