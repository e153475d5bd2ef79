"""Flags of `prepare` for shards, several machines, and images to leave out."""

import re
from typing import Any

from absl import flags as absl_flags

from trainer.cloud.vertex.environment import Environment
from trainer.data.prepare.sharding import MAX_SHARDS, Part
from trainer.errors import ConfigError, quote

_MAX_REPLICAS = 10_000
_MAX_ASPECT_RATIO = 65_536.0
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", re.ASCII)


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_integer(
        "num_shards",
        None,
        "Number of shards. None: as many as --shard_mib needs.",
        lower_bound=1,
        upper_bound=MAX_SHARDS,
        flag_values=values,
    )
    absl_flags.DEFINE_alias("num_workers", "processes", flag_values=values)
    absl_flags.DEFINE_integer(
        "replica",
        None,
        "Index of this machine, from 0, if several prepare one dataset. None: from CLUSTER_SPEC or TF_CONFIG.",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "num_replicas",
        None,
        "Number of machines that prepare the dataset. None: from CLUSTER_SPEC or TF_CONFIG.",
        lower_bound=1,
        upper_bound=_MAX_REPLICAS,
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "beam_options",
        None,
        "Make the shards with Apache Beam, with these options of a pipeline, such as --runner=DataflowRunner "
        "--project=PROJECT --region=REGION --temp_location=gs://BUCKET/tmp. None: without Beam.",
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "max_bad",
        None,
        "Maximum share of unreadable images to skip, such as 0.1%. With --max_bad_images, the larger number applies.",
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "min_side",
        None,
        "Leave out images whose shorter side has fewer pixels. None: no limit.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "max_aspect_ratio",
        None,
        "Leave out images whose longer side is more than this number of times the shorter one. None: no limit.",
        lower_bound=1.0,
        upper_bound=_MAX_ASPECT_RATIO,
        flag_values=values,
    )
    absl_flags.DEFINE_bool(
        "drop_duplicates",
        False,
        "Of several images with the same content, use only the first one. This reads the images of equal size twice.",
        flag_values=values,
    )


def part_of(values: absl_flags.FlagValues, environment: Environment) -> Part:
    """Returns the part of the shards that this machine makes.

    Args:
        values: Values of the flags.
        environment: Environment of the job, which determines the part without the flags.

    Raises:
        ConfigError: If only one of the flags is set, or this machine is an evaluator.
    """
    if (values.replica is None) != (values.num_replicas is None):
        name = "replica" if values.num_replicas is None else "num_replicas"
        other = "num_replicas" if values.num_replicas is None else "replica"
        raise ConfigError(f"{name}={values[name].value} needs {other}; set both, as in --replica=0 --num_replicas=3.")
    if values.replica is not None:
        return Part(values.replica, values.num_replicas, environment.replica)
    if environment.cluster is None:
        return Part(owner=environment.replica)
    index = environment.cluster.worker_index
    if index is None:
        raise ConfigError("an evaluator (workerpool3) makes no shards; use worker pools 0 and 1 only.")
    return Part(index, environment.cluster.num_workers, environment.replica)


def parse_beam_options(values: absl_flags.FlagValues, part: Part) -> Any:
    """Returns the options of the pipeline of Apache Beam; None if Beam is not used.

    Args:
        values: Values of the flags.
        part: Shards of this machine.

    Raises:
        ConfigError: If several machines would each start a pipeline, or as `beam_pipeline.parse_options`.
    """
    if values.beam_options is None:
        return None
    if part.num_replicas > 1:
        raise ConfigError(
            f"beam_options={quote(values.beam_options)} does not work with num_replicas={part.num_replicas}, because "
            "Beam starts the workers itself; run the command on one machine."
        )
    from trainer.data.prepare import beam_pipeline  # imports TensorFlow

    paths = (values.out, values.source, values.source_b, values.image_root, values.conditions)
    return beam_pipeline.parse_options(values.beam_options, [path for path in paths if path is not None])


def parse_share(text: str | None) -> float:
    """Returns the share in [0, 1] that a percentage states; 0 without one.

    Raises:
        ConfigError: If the text is not a percentage from 0% to 100%.
    """
    if text is None:
        return 0.0
    match = _PERCENT.fullmatch(text.strip())
    if match is None or float(match[1]) > 100:
        raise ConfigError(
            f"max_bad={quote(text)} is not a percentage from 0% to 100%, such as 0.1%; for a number of images, use "
            "--max_bad_images."
        )
    return float(match[1]) / 100
