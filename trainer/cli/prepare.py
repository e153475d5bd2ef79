"""The `prepare` command."""

import dataclasses
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from trainer.cli import app
from trainer.cli.image_flags import define_image_size, define_resize, parse_image_size
from trainer.cloud.vertex.environment import Environment
from trainer.config import TrainConfig, flags as config_flags
from trainer.config.choices import ImageRange, MetricSuite
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.errors import ConfigError, DataError, count_of, quote
from trainer.logging import is_terminal, log_fields, quiet_import
from trainer.metrics import inception_weights
from trainer.storage import locate, parse_path

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from trainer.data.prepare.convert import ConversionOptions, ConversionPlan, ConversionProgress

_USAGE = """Prepares a data set from images, for training with --dataset=FOLDER.

  {command} --source=SOURCE --out=FOLDER [--image_size=64,64] [FLAGS]

SOURCE is a folder of images, flat or with one subfolder per class; a .zip or .tar of such a folder; a .npy, .npz, .h5
or IDX file of arrays; a .csv of paths and labels; a .parquet or .tfrecord file of encoded images, or a folder of such
files; or tfds:NAME. SOURCE and FOLDER are local or gs://BUCKET/NAME.
"""
_SECS_BETWEEN_MESSAGES = 5.0
_SECS_BETWEEN_UPDATES = 0.2
_MAX_LISTED_BAD_IMAGES = 10
_MAX_LISTED_CLASSES = 20
_MAX_PROCESSES = 256
_AUTO_STATISTICS = {"true": MetricSuite.AUTO.value, "false": None}
"""Suites of the values of --statistics that name none."""
_STATISTICS_SETTINGS = ("num_metric_samples", "inception_weights")


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    _define_path_flags(values)
    _define_bits_flag(values)
    define_image_size(values, "None: the size of the images, which must all have the same one.")
    define_resize(values, "crop")
    absl_flags.DEFINE_enum(
        "channels",
        None,
        ["1", "3"],
        "Number of channels: 1 for gray, 3 for color. None: 1 if the first images are gray, else 3.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "limit",
        None,
        "Maximum number of images, chosen evenly. None: no limit.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_list(
        "classes",
        None,
        "Classes to include, as names or numbers, such as cat,dog or 0,3. None: all classes.",
        flag_values=values,
    )
    absl_flags.DEFINE_float("shard_mib", 64.0, "Size of a shard in MiB.", lower_bound=0.001, flag_values=values)
    absl_flags.DEFINE_integer(
        "max_bad_images",
        0,
        "Maximum number of unreadable images to skip.",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "processes",
        None,
        "Number of processes that decode images. None: one per CPU core.",
        lower_bound=1,
        upper_bound=_MAX_PROCESSES,
        flag_values=values,
    )
    _define_statistics_flags(values)
    absl_flags.DEFINE_bool(
        "dry_run", False, "Print what the command would write, and write nothing.", flag_values=values
    )


def _define_path_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("source", None, "Images to prepare.", required=True, flag_values=values)
    absl_flags.DEFINE_string("out", None, "Folder to write the data set to.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "source_b",
        None,
        "Images of a second domain. The data sets are written to OUT/a and OUT/b.",
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "image_root",
        None,
        "Folder, local or gs://, that the paths in a .csv are relative to. None: the folder of the .csv.",
        flag_values=values,
    )
    absl_flags.DEFINE_list(
        "split",
        None,
        "Splits to prepare, such as train or train,test. None: train if the source has several, else everything.",
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "image_field",
        None,
        "Name of the array, column or feature that contains the images. None: the only possible one.",
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "label_field",
        None,
        "Name of the array, column or feature that contains the labels, or none for a single class. None: the only "
        "possible one, or the folders of the images.",
        flag_values=values,
    )
    absl_flags.DEFINE_enum(
        "image_range",
        None,
        ImageRange.values(),
        "Range of the pixels of an array. None: the only range that fits all pixels.",
        flag_values=values,
    )
    absl_flags.DEFINE_string("name", None, "Name of the data set. None: the name of its folder.", flag_values=values)


def _define_statistics_flags(values: absl_flags.FlagValues) -> None:
    statistics = absl_flags.EnumFlag(
        "statistics",
        "false",
        "Also compute the statistics of the images that metrics compare with, so that no run has to: --statistics for "
        "the suite that --metrics=auto chooses, or --statistics=SUITE.",
        [*_AUTO_STATISTICS, MetricSuite.INCEPTION.value, MetricSuite.PHOTOS.value],
    )
    statistics.boolean = True  # --statistics without a value is --statistics=true
    absl_flags.DEFINE_flag(statistics, values)
    config_flags.define_config(values, _STATISTICS_SETTINGS)


def _define_bits_flag(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_integer(
        "bits",
        None,
        "Number of bits that the pixel values use, if fewer than the files have: 12 for 16-bit files with values up to "
        "4,095, 1 for masks of 0 and 1. None: all bits.",
        lower_bound=1,
        upper_bound=16,
        flag_values=values,
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Prepares one source, or one per domain."""
    with quiet_import():
        from trainer.data.prepare.convert import ConversionOptions

    options = ConversionOptions(
        image_size=parse_image_size(values.image_size),
        resize=values.resize,
        channels=int(values.channels) if values.channels else None,
        limit=values.limit,
        classes=tuple(values.classes) if values.classes else None,
        shard_mib=values.shard_mib,
        max_bad_images=values.max_bad_images,
        num_processes=values.processes,
        bits=values.bits,
    )
    out = parse_path(values.out).rstrip("/")
    statistics_config = _statistics_config(out, values)
    if values.source_b is not None:
        parse_path(values.source_b)  # before the images of the first domain are prepared
    if values.source_b is None:
        _prepare(values.source, out, options, values)
        training_flags = f"--recipe=photos --dataset={out}"
    else:
        _prepare(values.source, f"{out}/a", options, values)
        _prepare(values.source_b, f"{out}/b", options, values)
        training_flags = f"--recipe=cyclegan --dataset={out}/a --dataset_b={out}/b"
    if statistics_config is not None and not values.dry_run:
        _compute_statistics(statistics_config)
    if not values.dry_run:
        _logger.info(f"To train: python -m trainer.task {training_flags} --job_dir=runs/{locate(out).name}")


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    return app.run(argv, _USAGE, define_flags, run_command)


def _statistics_config(out: str, values: absl_flags.FlagValues) -> TrainConfig | None:
    """Returns the config of the statistics to compute, after its weights were found; None to compute none."""
    suite = _AUTO_STATISTICS.get(values.statistics, values.statistics)
    if suite is None:
        return None
    if values.source_b is not None:
        raise ConfigError(
            f"statistics={values.statistics} does not work with source_b={quote(values.source_b)}, because the metrics "
            "of two domains have no statistics; remove one of them."
        )
    if suite == MetricSuite.AUTO:
        has_weights = values.inception_weights is not None or inception_weights.is_cached()
        suite = MetricSuite.INCEPTION if has_weights else MetricSuite.PHOTOS
    if suite == MetricSuite.INCEPTION:
        inception_weights.find(values.inception_weights)
    settings: dict[str, Any] = {name: values[name].value for name in _STATISTICS_SETTINGS}
    return TrainConfig(dataset=out, metrics=suite, **settings)


def _compute_statistics(config: TrainConfig) -> None:
    """Stores the statistics of a prepared data set in its folder."""
    with quiet_import():
        from trainer import metrics
        from trainer.data.datasets import describe
        from trainer.data.loading import load_training_data
        from trainer.training.metric_suite import create_suite
        from trainer.training.run_state import with_machine_settings

    num_images, minimum = describe(config.dataset).num_examples, metrics.min_images(config.metrics)
    if num_images < minimum:
        raise DataError(
            f"{config.dataset} is written, but has {count_of(num_images, 'image')}, and statistics need at least "
            f"{minimum}; use it without --statistics, or prepare more images."
        )
    config = with_machine_settings(config, Environment())
    extractor = metrics.get_extractor(config.metrics, config.inception_weights)
    create_suite(config, load_training_data(config), extractor).real_vs_real()


def _prepare(source_name: str, out: str, options: "ConversionOptions", values: absl_flags.FlagValues) -> None:
    from trainer.data.prepare import convert

    source_options = SourceOptions(
        image_root=values.image_root,
        split=tuple(values.split or ()),
        image_field=values.image_field,
        label_field=values.label_field,
        image_range=values.image_range,
    )
    with open_source(source_name, options=source_options) as source:
        _logger.info(
            f"{source_name} has {count_of(len(source.items), 'image')} in {count_of(len(source.class_names), 'class')}."
        )
        for note in source.notes:
            _logger.warning(note)
        plan = convert.plan_conversion(source, options)
        _logger.info(_describe_plan(plan, options))
        if values.dry_run:
            return
        about = {
            "name": values.name or locate(out).name,
            "source": source_name,
            "license": "",
            "attribution": "",
            "options": {**convert.describe_options(options, plan), **_stated_options(source_options)},
        }
        with _Progress(len(plan.indices)) as on_progress:
            spec, progress = convert.convert(source, plan, options, locate(out), about, on_progress)
    num_bytes = sum(shard.num_bytes for shard in spec.shards)
    _logger.info(
        f"Wrote {count_of(spec.num_examples, 'image')} of {'×'.join(map(str, spec.image_shape))} in "
        f"{count_of(len(spec.shards), 'shard')}, {num_bytes / 2**20:,.1f} MiB, to {out}."
    )
    for name, problem in progress.bad_images[:_MAX_LISTED_BAD_IMAGES]:
        _logger.warning(f"Skipped: {name} {problem}.")
    if len(progress.bad_images) > _MAX_LISTED_BAD_IMAGES:
        _logger.warning(f"Skipped: {len(progress.bad_images) - _MAX_LISTED_BAD_IMAGES} more images.")


def _stated_options(options: SourceOptions) -> dict[str, Any]:
    """Returns the options of the source that the user states, for `dataset.json`."""
    stated = {name: value for name, value in dataclasses.asdict(options).items() if value and name != "image_root"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in stated.items()}


def _describe_plan(plan: "ConversionPlan", options: "ConversionOptions") -> str:
    target = plan.target
    method = f", --resize={target.resize}" if options.image_size else ""
    names = plan.class_names[:_MAX_LISTED_CLASSES]
    return (
        f"Output: {count_of(len(plan.indices), 'image')} of {target.height}×{target.width}×{target.channels}{method}; "
        "classes "
        f"{', '.join(names)}{', …' if len(plan.class_names) > len(names) else ''}."
    )


class _Progress:
    """Reports progress in regular intervals, however long an image takes, while the context is active.

    On a terminal, it is one line that is rewritten; elsewhere, one log message every few seconds.

    Args:
        total: Number of images.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._start_time = time.monotonic()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._report_regularly, daemon=True)

    def __enter__(self) -> "_Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def __call__(self, progress: "ConversionProgress") -> None:
        self._done = progress.done

    def _report_regularly(self) -> None:
        while not self._has_ended.wait(_SECS_BETWEEN_UPDATES if is_terminal() else _SECS_BETWEEN_MESSAGES):
            speed = self._done / (time.monotonic() - self._start_time)
            message = f"{self._done:,} of {count_of(self._total, 'image')}"
            if self._done:
                message += f", {speed:,.1f} per second, {(self._total - self._done) / speed:,.0f} s left"
            if is_terminal():
                print(f"\r\x1b[K{message}.", end="", flush=True)
            else:
                _logger.info(f"{message}.", extra=log_fields({"done": self._done, "images_per_sec": speed}))
