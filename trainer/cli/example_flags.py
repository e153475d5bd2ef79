"""Flags of `prepare` for what an example has beside its image: an input, or conditions."""

import contextlib
import dataclasses
import types
from collections.abc import Iterator

from absl import flags as absl_flags

from trainer.data.prepare.sources import Source, SourceOptions, open_source
from trainer.data.prepare.sources.base import NO_LABELS
from trainer.data.prepare.sources.conditions import ConditionedSource
from trainer.data.prepare.sources.pairs import pair_folders, pair_halves
from trainer.errors import ConfigError, quote

CHANNELS = ["1", "3", "4"]
_DESCRIPTION = ("conditions", "paired", "input", "max_bad_images")
"""Flags that determine the examples of a source."""
_NONE, _FOLDERS, _SIDE_BY_SIDE = "false", "true", "side_by_side"


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines `--paired`, `--input`, `--input_channels` and `--conditions`."""
    paired = absl_flags.EnumFlag(
        "paired",
        _NONE,
        "Prepare pairs of an input and an image for --recipe=pix2pix. --paired: SOURCE has two folders with equal file "
        "names, such as input and target, or A and B. --paired=side_by_side: each file has both, side by side.",
        [_FOLDERS, _NONE, _SIDE_BY_SIDE],
    )
    paired.boolean = True  # --paired without a value is --paired=true
    absl_flags.DEFINE_flag(paired, values)
    absl_flags.DEFINE_string(
        "input",
        None,
        "Where the inputs of pairs are: the name of a folder, or left or right. None: the folder input, A or source, "
        "or else the first one; the left half.",
        flag_values=values,
    )
    absl_flags.DEFINE_enum(
        "input_channels", None, CHANNELS, "Number of channels of the inputs, like --channels.", flag_values=values
    )
    absl_flags.DEFINE_string(
        "conditions",
        None,
        "CSV file, local or gs://, with a column file_name and a column of numbers for each condition, such as labels "
        "of 0 and 1 or quantities from -1 to 1. They replace classes for --model=conditional.",
        flag_values=values,
    )


def training_flags(has_inputs: bool, has_conditions: bool) -> str:
    """Returns the flags of the train command for a dataset."""
    if has_conditions:
        return "--recipe=photos --model=conditional"
    return "--recipe=pix2pix" if has_inputs else "--recipe=photos"


def is_paired(values: absl_flags.FlagValues | types.SimpleNamespace) -> bool:
    """Returns whether the flags ask for pairs."""
    return values.paired != _NONE


def check(values: absl_flags.FlagValues) -> None:
    """Checks that the flags go together.

    Raises:
        ConfigError: If a flag needs pairs, or does not work with pairs or conditions.
    """
    if values.conditions is not None:
        others = {"paired": is_paired(values)} | {
            name: values[name].value is not None for name in ("source_b", "classes", "label_field")
        }
        for name in (name for name, is_stated in others.items() if is_stated):
            raise ConfigError(
                f"conditions={quote(values.conditions)} does not work with {name}={quote(values[name].value)}, because "
                "conditions replace the classes of single images; omit one of them."
            )
    for name in ("input", "input_channels"):
        if not is_paired(values) and values[name].value is not None:
            raise ConfigError(f"{name}={quote(values[name].value)} needs pairs; pass --paired too, or omit it.")
    if is_paired(values) and values.source_b is not None:
        raise ConfigError(
            f"source_b={quote(values.source_b)} is a second domain without pairs, and paired={values.paired} has both "
            "images in one source; omit one of them."
        )
    if is_paired(values) and values["statistics"].value != "false":
        raise ConfigError(
            f"statistics={values.statistics} does not work with paired={values.paired}, because the metrics of pairs "
            "have no statistics; remove one of them."
        )


def description_of(values: absl_flags.FlagValues) -> types.SimpleNamespace:
    """Returns the flags that `open_examples` reads. Unlike all flags of a command, they can be pickled."""
    return types.SimpleNamespace(**{name: values[name].value for name in _DESCRIPTION})


@contextlib.contextmanager
def open_examples(name: str, options: SourceOptions, values: types.SimpleNamespace) -> Iterator[Source]:
    """Opens a source, or pairs or images with conditions, while the context is active.

    Args:
        name: Name of the source.
        options: Options of the source.
        values: Result of `description_of`.

    Raises:
        ConfigError, DataError, StorageError: As `open_source`, `pair_halves`, `pair_folders` and `ConditionedSource`.
    """
    if values.conditions is not None:  # they replace the classes, which the source may lack
        options = dataclasses.replace(options, label_field=NO_LABELS)
    with open_source(name, options=options) as images:
        yield _examples_of(images, name, values)


def _examples_of(source: Source, name: str, values: types.SimpleNamespace) -> Source:
    """Returns the pairs, or images with conditions, of a source as the flags describe them, or the source itself.

    Args:
        source: Open source.
        name: Name of the source, for messages.
        values: Result of `description_of`.

    Raises:
        ConfigError, DataError, StorageError: As `pair_halves`, `pair_folders` and `ConditionedSource`.
    """
    if values.conditions is not None:
        return ConditionedSource(source, values.conditions, values.max_bad_images)
    if not is_paired(values):
        return source
    if values.paired == _SIDE_BY_SIDE:
        return pair_halves(source, values.input)
    return pair_folders(source, name, values.input, values.max_bad_images)


def stated_options(values: absl_flags.FlagValues) -> dict[str, str]:
    """Returns the options that the user states, for `dataset.json`."""
    stated = {"conditions": values.conditions}
    if is_paired(values):
        stated |= {"paired": values.paired, "input": values.input}
    return {name: value for name, value in stated.items() if value is not None}
