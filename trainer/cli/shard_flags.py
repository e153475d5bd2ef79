"""Flags of `prepare` for shards, processes and machines."""

from typing import Any

from absl import flags as absl_flags

from trainer.data.prepare.sharding import MAX_SHARDS, Part
from trainer.environment import Environment
from trainer.errors import ConfigError, quote

_MAX_REPLICAS = 10_000
_MAX_WORKERS = 256


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
    absl_flags.DEFINE_integer(
        "num_workers",
        None,
        "Number of processes that decode images. None: one per CPU core.",
        lower_bound=1,
        upper_bound=_MAX_WORKERS,
        flag_values=values,
    )
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
