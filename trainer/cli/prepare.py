"""The `prepare` command."""

import contextlib
import dataclasses
import functools
import logging
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from trainer.cli import app, conversion_messages as messages, example_flags, filter_flags, shard_flags, statistics_flags
from trainer.cli.image_flags import (
    check_resize,
    define_bits,
    define_encoding,
    define_image_size,
    define_resize,
    parse_image_size,
)
from trainer.cli.progress import ProgressReporter
from trainer.config.choices import ImageRange
from trainer.data.prepare.sharding import Part
from trainer.data.prepare.sources import Source, SourceOptions
from trainer.environment import Environment
from trainer.errors import count_of
from trainer.logging import quiet_import
from trainer.storage import locate, parse_path

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from trainer.data.prepare.conversion_plan import ConversionOptions, ConversionPlan
    from trainer.data.prepare.convert import PartConversion

_USAGE = """Prepares a dataset from images, for training with --dataset=FOLDER.

  {command} --source=SOURCE --out=FOLDER [--image_size=64,64] [FLAGS]

SOURCE is a folder of images, flat or with one subfolder per class; a .zip or .tar of such a folder; a .npy, .npz, .h5
or IDX file of arrays; a .csv or .parquet of paths and labels; a .parquet, .tfrecord or WebDataset .tar file of encoded
images, or a folder of such files; or tfds:NAME. SOURCE and FOLDER are local or gs://BUCKET/NAME.
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    _define_path_flags(values)
    define_bits(values)
    define_image_size(values, "None: the size of the images, which must all have the same one.")
    define_resize(values, "crop")
    define_encoding(values)
    absl_flags.DEFINE_enum(
        "channels",
        None,
        example_flags.CHANNELS,
        "Number of channels: 1 for gray, 3 for color, 4 for color with alpha. None: 1 if the first images are gray, "
        "else 3, with transparent pixels on white.",
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
    absl_flags.DEFINE_float(
        "shard_mib", 64.0, "Approximate size of a shard in MiB.", lower_bound=0.001, flag_values=values
    )
    example_flags.define_flags(values)
    shard_flags.define_flags(values)
    filter_flags.define_flags(values)
    statistics_flags.define(values)
    absl_flags.DEFINE_bool(
        "dry_run",
        False,
        "Print what the command would write, with an estimate of size and time from up to 1,000 images, and write "
        "nothing.",
        flag_values=values,
    )


def _define_path_flags(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("source", None, "Images to prepare.", required=True, flag_values=values)
    absl_flags.DEFINE_string("out", None, "Folder to write the dataset to.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "source_b",
        None,
        "Images of a second domain. The datasets are written to OUT/a and OUT/b.",
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
    absl_flags.DEFINE_string("name", None, "Name of the dataset. None: the name of its folder.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Prepares one source, or one per domain."""
    with quiet_import():
        import trainer.data.prepare.convert  # noqa: F401  imports TensorFlow
        from trainer.data.prepare.conversion_plan import ConversionOptions

    check_resize(values)
    options = ConversionOptions(
        image_size=parse_image_size(values.image_size),
        resize=values.resize,
        channels=int(values.channels) if values.channels else None,
        input_channels=int(values.input_channels) if values.input_channels else None,
        limit=values.limit,
        classes=tuple(values.classes) if values.classes else None,
        shard_mib=values.shard_mib,
        num_shards=values.num_shards,
        max_bad_images=values.max_bad_images,
        max_bad_share=filter_flags.parse_share(values.max_bad),
        min_side=values.min_side,
        max_aspect_ratio=values.max_aspect_ratio,
        drop_duplicates=values.drop_duplicates,
        num_processes=values.num_workers,
        bits=values.bits,
        encoding=values.encoding,
        quality=values.quality,
    )
    example_flags.check(values)
    part = shard_flags.part_of(values, Environment.read())
    beam_options = shard_flags.parse_beam_options(values, part)
    out = parse_path(values.out).rstrip("/")
    statistics_config = statistics_flags.parse_config(out, values)
    if values.source_b is None:
        domains = [(values.source, out)]
        flags = example_flags.training_flags(example_flags.is_paired(values), values.conditions is not None)
        training_flags = f"{flags} {shlex.quote(f'--dataset={out}')}"
    else:
        parse_path(values.source_b)  # before the images of the first domain are listed
        domains = [(values.source, f"{out}/a"), (values.source_b, f"{out}/b")]
        training_flags = f"--recipe=cyclegan {shlex.join([f'--dataset={out}/a', f'--dataset_b={out}/b'])}"
    _prepare(domains, options, part, beam_options, values)
    if values.dry_run or not part.is_chief:
        return
    if statistics_config is not None:
        statistics_flags.compute(statistics_config)
    job_dir = shlex.quote(f"--job_dir=runs/{locate(out).name}")
    _logger.info(f"To train: python -m trainer.task {training_flags} {job_dir}")


main = app.command(_USAGE, define_flags, run_command)


@dataclasses.dataclass(frozen=True)
class _PlannedDomain:
    """An open source, and the dataset that it becomes."""

    name: str
    out: str
    source_options: SourceOptions
    open_source: Callable[[], AbstractContextManager[Source]]
    source: Source
    plan: "ConversionPlan"


def _prepare(
    domains: Sequence[tuple[str, str]],
    options: "ConversionOptions",
    part: Part,
    beam_options: Any,
    values: absl_flags.FlagValues,
) -> None:
    """Prepares the sources of all domains, after each of them was opened and planned.

    Args:
        domains: Name of the source and folder of the dataset, by domain.
        options: Options of the conversion.
        part: Shards that this machine makes.
        beam_options: Options of Apache Beam; None: without it.
        values: Flags.
    """
    from trainer.data.prepare import convert

    if part.num_replicas == 1 or values.dry_run:
        for _, out in domains:
            convert.check_is_new(locate(out))
    with contextlib.ExitStack() as stack:
        planned = [_plan(name, out, options, values, stack) for name, out in domains]
        for domain in planned:
            _convert(domain, options, part, beam_options, values)


def _plan(
    name: str, out: str, options: "ConversionOptions", values: absl_flags.FlagValues, stack: contextlib.ExitStack
) -> _PlannedDomain:
    from trainer.data.prepare.conversion_plan import plan_conversion

    source_options = SourceOptions(
        image_root=values.image_root,
        split=tuple(values.split or ()),
        image_field=values.image_field,
        label_field=values.label_field,
        image_range=values.image_range,
    )
    description = example_flags.description_of(values)
    open_source = functools.partial(example_flags.open_examples, name, source_options, description)
    source = stack.enter_context(open_source())
    kind = "pair" if example_flags.is_paired(values) else "image"
    num_items, num_classes = count_of(len(source.items), kind), count_of(len(source.class_names), "class")
    _logger.info(f"{name} has {num_items} in {num_classes}.")
    for note in (*source.notes, *source.class_notes):
        _logger.warning(note)
    plan = plan_conversion(source, options)
    _logger.info(messages.describe_plan(plan, options))
    return _PlannedDomain(name, out, source_options, open_source, source, plan)


def _convert(
    domain: _PlannedDomain,
    options: "ConversionOptions",
    part: Part,
    beam_options: Any,
    values: absl_flags.FlagValues,
) -> None:
    from trainer.data.prepare import convert
    from trainer.data.prepare.conversion_plan import describe_options
    from trainer.data.prepare.estimate import estimate_conversion

    source, plan, out = domain.source, domain.plan, domain.out
    if values.dry_run:
        messages.log_estimate(estimate_conversion(source, plan, options), plan, options, part)
        return
    metadata = {
        "name": values.name or locate(out).name,
        "source": domain.name,
        "license": "",
        "attribution": "",
        "condition_names": source.condition_names,
        "options": {
            **describe_options(options, plan),
            **_stated_options(domain.source_options),
            **example_flags.stated_options(values),
        },
    }
    make_shards = None if beam_options is None else _beam_shards(domain.open_source, options, out, beam_options)
    with (
        contextlib.nullcontext(lambda progress: None) if make_shards else ProgressReporter(len(plan.indices)) as report
    ):
        spec, progress = convert.convert_part(
            *(source, plan, options, locate(out), metadata, report, part), make_shards
        )
    if spec is None:
        _logger.info(f"Replica {part.index} of {part.num_replicas} has finished its shards of {out}.")
        return
    messages.log_result(spec, progress, out)


def _beam_shards(
    open_source: Callable[[], AbstractContextManager[Source]], options: "ConversionOptions", out: str, beam_options: Any
) -> Callable[["PartConversion", Sequence[int]], None]:
    """Returns a function that makes shards with Apache Beam. Without `--num_workers`, each worker decodes by itself."""
    from trainer.data.prepare import beam_pipeline

    options = dataclasses.replace(options, num_processes=options.num_processes or 1)

    def make_shards(conversion: "PartConversion", shards: Sequence[int]) -> None:
        job = beam_pipeline.ShardJob(
            open_source=open_source, options=options, out=out, fingerprint=conversion.fingerprint
        )
        beam_pipeline.run(job, shards, beam_options)

    return make_shards


def _stated_options(options: SourceOptions) -> dict[str, Any]:
    """Returns the options of the source that the user states, for `dataset.json`."""
    stated = {name: value for name, value in dataclasses.asdict(options).items() if value and name != "image_root"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in stated.items()}
