"""Messages of `prepare`: the plan, the estimate, and the result of a conversion."""

import logging
from typing import TYPE_CHECKING

from trainer.data.dataset_spec import DatasetSpec
from trainer.data.prepare.sharding import Part
from trainer.errors import count_of, list_some

if TYPE_CHECKING:
    from trainer.data.prepare.conversion_plan import ConversionOptions, ConversionPlan
    from trainer.data.prepare.convert import ConversionProgress
    from trainer.data.prepare.estimate import Estimate

_MAX_LISTED_BAD_IMAGES = 10
_MAX_LISTED_CLASSES = 20
_SECS_OF_UNIT = (("h", 3600.0), ("min", 60.0))

_logger = logging.getLogger(__name__)


def describe_plan(plan: "ConversionPlan", options: "ConversionOptions") -> str:
    """Returns the number, the format and the classes of the images of a conversion."""
    target = plan.target
    method = f", --resize={target.resize}" if options.image_size else ""
    inputs = "" if plan.input_target is None else f" with inputs of {count_of(plan.input_target.channels, 'channel')}"
    encoding = "" if target.quality is None else f" in {target.encoding} of quality {target.quality}"
    duplicates = f"{count_of(len(plan.duplicates), 'duplicate')} left out; " if options.drop_duplicates else ""
    return (
        f"Output: {count_of(len(plan.indices), 'image')} of {target.height}×{target.width}×{target.channels}{inputs}"
        f"{encoding}{method}; {duplicates}classes "
        f"{list_some(plan.class_names, _MAX_LISTED_CLASSES)}."
    )


def log_estimate(estimate: "Estimate", plan: "ConversionPlan", options: "ConversionOptions", part: Part) -> None:
    """Logs the estimate of a conversion that is not run.

    Args:
        estimate: Estimate from a sample.
        plan: Plan of the conversion.
        options: Options of the conversion.
        part: Shards of this machine.
    """
    secs = estimate.num_images / estimate.images_per_sec / part.num_replicas
    machines = "this machine" if part.num_replicas == 1 else f"{part.num_replicas} machines like this one"
    num_bad = len(estimate.bad_images)
    num_filtered = len(estimate.rejected) - num_bad
    _logger.info(
        f"Estimate from {count_of(estimate.num_sampled, 'image')}: {estimate.num_bytes / 2**20:,.1f} MiB in "
        f"{count_of(plan.num_shards, 'shard')}, about {_describe_secs(secs)} on {machines} "
        f"({estimate.images_per_sec:,.0f} images per second on each); {num_bad / estimate.num_sampled:.1%} cannot be "
        f"used, and filters leave out {num_filtered / estimate.num_sampled:.1%}."
    )
    for name, problem, _ in estimate.bad_images[:_MAX_LISTED_BAD_IMAGES]:
        _logger.warning(f"Not usable: {name} {problem}.")
    if not estimate.allows_bad_images(options):
        _logger.warning(
            "The preparation would probably end with an error, because it skips at most "
            f"{count_of(options.max_bad(estimate.num_images), 'image')} that cannot be used; allow more with --max_bad."
        )


def log_result(spec: DatasetSpec, progress: "ConversionProgress", out: str) -> None:
    """Logs what a conversion has written, and the images that are not in the dataset."""
    num_bytes = sum(shard.num_bytes for shard in spec.shards)
    _logger.info(
        f"Wrote {count_of(spec.num_examples, 'image')} of {'×'.join(map(str, spec.image_shape))} in "
        f"{count_of(len(spec.shards), 'shard')}, {num_bytes / 2**20:,.1f} MiB, to {out}."
    )
    if num_filtered := len(progress.rejected) - len(progress.bad_images):
        _logger.info(f"Left out by filters: {count_of(num_filtered, 'image')}.")
    if progress.num_with_more_frames:
        _logger.warning(
            f"{count_of(progress.num_with_more_frames, 'file')} with several frames or pages: only the first one of "
            "each is used. To use the others, save each one as a file."
        )
    for name, problem in progress.bad_images[:_MAX_LISTED_BAD_IMAGES]:
        _logger.warning(f"Skipped: {name} {problem}.")
    if len(progress.bad_images) > _MAX_LISTED_BAD_IMAGES:
        _logger.warning(f"Skipped: {len(progress.bad_images) - _MAX_LISTED_BAD_IMAGES} more images.")


def _describe_secs(secs: float) -> str:
    for unit, secs_of_unit in _SECS_OF_UNIT:
        if secs >= 2 * secs_of_unit:
            return f"{secs / secs_of_unit:,.1f} {unit}"
    return f"{secs:,.0f} s"
