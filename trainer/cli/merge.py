"""The `merge` command."""

import logging
import shlex
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from trainer.cli import app, conversion_messages as messages, example_flags
from trainer.cli.progress import ProgressReporter
from trainer.config.choices import MetricSuite
from trainer.config.suites import SUITES
from trainer.errors import count_of
from trainer.logging import quiet_import
from trainer.storage import locate, parse_path, scratch_folder

if TYPE_CHECKING:
    from trainer.data.prepare.merge import MergePlan

_logger = logging.getLogger(__name__)

_USAGE = """Merges prepared datasets of the same kind of images into one, without encoding the images again.

  {command} --sources=FOLDER,FOLDER,... --out=FOLDER [--name=NAME]

All folders are local or gs://BUCKET/NAME.
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_list(
        "sources",
        None,
        "Prepared datasets to merge. Classes have the order in which they first occur; those with the same name "
        "become one.",
        required=True,
        flag_values=values,
    )
    absl_flags.DEFINE_string("out", None, "Folder to write the dataset to.", required=True, flag_values=values)
    absl_flags.DEFINE_string("name", None, "Name of the dataset. None: the name of its folder.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Merges the datasets."""
    with quiet_import():
        from trainer.data.prepare.merge import merge_shards, plan_merge

    out = parse_path(values.out).rstrip("/")
    folder = locate(out)
    with scratch_folder() as scratch:
        plan = plan_merge(values.sources, folder, scratch / "cache")
        _logger.info(
            f"Output: {count_of(plan.num_examples, 'image')} in {count_of(len(plan.class_names), 'class')} and "
            f"{count_of(len(plan.shards), 'shard')}."
        )
        _warn_if_separate(plan)
        with ProgressReporter(plan.num_examples) as on_progress:
            spec, progress = merge_shards(plan, folder, values.name or folder.name, scratch, on_progress)
    messages.log_result(spec, progress, out)
    training_flags = example_flags.training_flags(bool(spec.input_channels), bool(spec.condition_names))
    paths = shlex.join([f"--dataset={out}", f"--job_dir=runs/{folder.name}"])
    _logger.info(f"To train: python -m trainer.task {training_flags} {paths}")


main = app.command(_USAGE, define_flags, run_command)


def _warn_if_separate(plan: "MergePlan") -> None:
    """Warns if the images with which metrics compare lack a source. They are the first ones of the dataset."""
    num_images = SUITES[MetricSuite.PHOTOS].num_samples or 0
    included = plan.sources_of_first(num_images)
    missing = [source.name for source in plan.sources if source.name not in included]
    if missing:
        _logger.warning(
            f"The first {count_of(num_images, 'image')}, with which metrics compare by default, are not from "
            f"{' or '.join(missing)}; prepare the sources with smaller shards (--shard_mib), or evaluate with a "
            "larger --num_metric_samples."
        )
