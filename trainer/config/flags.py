"""Command-line flags derived from `TrainConfig`: one flag per setting."""

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from trainer.config.fields import join_words
from trainer.config.train_config import TrainConfig
from trainer.errors import ConfigError, quote
from trainer.registry import nearest_name
from trainer.storage import documents, parse_json

_MAX_NAME_LENGTH = 100
_FLAGS_OF_ABSL = ("flagfile", "undefok")
"""Flags that absl always has. One reads a file of any size, and the other hides misspelled flags."""


class _WholeNumberParser(flags.ArgumentParser[int]):
    """Parses `3`, and `3.0` as tuning services write it."""

    syntactic_help = "a whole number"

    def parse(self, argument: Any) -> int:
        try:
            return int(argument)
        except ValueError:
            number = float(argument)
        if not number.is_integer():
            raise ValueError(f"{argument} is not a whole number")
        return int(number)


class _ListParser(flags.ArgumentParser[tuple[str, ...]]):
    """Parses `r1,r2` and `r1, r2` as `("r1", "r2")`, and an empty string as `()`."""

    syntactic_help = "words separated by commas"

    def parse(self, argument: Any) -> tuple[str, ...]:
        parts = (part.strip() for part in str(argument).split(","))
        return tuple(part for part in parts if part)


class _OptionalParser(flags.ArgumentParser[Any]):
    """Parses `none` as None, and any other text with another parser."""

    def __init__(self, parser: flags.ArgumentParser[Any]):
        super().__init__()
        self.syntactic_help = f"{parser.syntactic_help or 'a value'}, or none"
        self._parser = parser

    def parse(self, argument: Any) -> Any:
        return None if str(argument).lower() == "none" else self._parser.parse(argument)


class _ObjectParser(flags.ArgumentParser[dict[str, Any]]):
    """Parses a JSON object."""

    syntactic_help = "a JSON object"

    def parse(self, argument: Any) -> dict[str, Any]:
        return parse_json(str(argument), "the value", documents.record({}), remedy="write a JSON object")


def define_command(values: flags.FlagValues) -> None:
    """Defines the flags of the trainer that are no settings."""
    flags.DEFINE_bool("dry_run", False, "Print the resolved config as JSON, and write nothing.", flag_values=values)
    flags.DEFINE_bool(
        "wait_for_lease",
        False,
        "If another process is writing the run directory, wait until it ends. If False, exit.",
        flag_values=values,
    )


def define_config(values: flags.FlagValues, names: Sequence[str] | None = None) -> None:
    """Defines one flag per setting. Each is None unless it is on the command line.

    Args:
        values: Flags of the command.
        names: Names of the settings. None: all settings.
    """
    hints = typing.get_type_hints(TrainConfig)
    for spec in dataclasses.fields(TrainConfig):
        if names is not None and spec.name not in names:
            continue
        choices = spec.metadata["choices"]
        text = spec.metadata["help"] + (f" Choices: {', '.join(choices)}." if choices else "")
        if hints[spec.name] is bool:
            flags.DEFINE_bool(spec.name, None, text, flag_values=values)
        else:
            parser = _parser(hints[spec.name])
            flags.DEFINE(parser, spec.name, None, text, flag_values=values, serializer=flags.ArgumentSerializer())


def define_checkpoint(values: flags.FlagValues) -> None:
    """Defines the flags of commands that restore a run: `--checkpoint` and `--recipe`."""
    flags.DEFINE_string("checkpoint", "best", "Checkpoint to use: best, latest, or a step.", flag_values=values)
    text = (
        "Recipe of the run. Required if it is MODULE:FUNCTION and the run is in a bucket, because the command imports "
        "the module."
    )
    flags.DEFINE_string("recipe", None, text, flag_values=values)


def _parser(hint: Any) -> flags.ArgumentParser[Any]:
    """Returns the parser for the type of a setting."""
    if isinstance(hint, types.UnionType):
        return _OptionalParser(_parser(next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)))
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _ListParser()
    if origin is not None:
        return _ObjectParser()
    return {int: _WholeNumberParser, float: flags.FloatParser, str: flags.ArgumentParser}[hint]()


def takes_whole_numbers(name: str) -> bool:
    """Returns whether a setting takes a whole number."""
    hint = typing.get_type_hints(TrainConfig)[name]
    return hint is int or int in typing.get_args(hint)


def parsed_settings(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the settings of `TrainConfig` that are on the command line."""
    names = (spec.name for spec in dataclasses.fields(TrainConfig) if spec.name in values)
    return {name: values[name].value for name in names if values[name].present}


def explain(error: flags.Error, values: flags.FlagValues) -> str:
    """Returns absl's error about a command line as one sentence with a remedy."""
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname == "help":
            return "--help takes no value; write --help alone."
        nearest = nearest_name(error.flagname, list(values))
        question = f"did you mean --{nearest}? " if nearest else ""
        return f"--{error.flagname} is not a flag; {question}--help lists the flags."
    if (match := re.match(r"Missing value for flag --?(\w+)$", str(error))) and match[1] in values:
        return f"--{match[1]} has no value; write --{match[1]}=VALUE."
    match = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if match is None or match[1] not in values:
        return f"{' '.join(str(error).split()).rstrip('.')}; write --name=value."
    name, value = match.groups()
    if values[name].value is None and value == "None":
        return f"--{name} is missing; write --{name}=VALUE."
    parser = values[name].parser
    choices = join_words(parser.enum_values if isinstance(parser, flags.EnumParser) else ["true", "false"])
    expected = parser.syntactic_help or choices
    return f"--{name}={quote(value)[1:-1]} does not fit; --{name} takes {expected}."


def with_underscores(argument: str) -> str:
    """Returns an argument with underscores in the flag's name: `--job_dir=x` for `--job-dir=x`.

    Raises:
        ConfigError: If the name is far too long for a flag. absl cannot search for the nearest name then.
    """
    if not argument.startswith("-"):
        return argument
    name, equals, value = argument.partition("=")
    if len(name) > _MAX_NAME_LENGTH:
        raise ConfigError(f"{quote(name)} is not a flag; --help lists the flags.")
    if name.lstrip("-") in _FLAGS_OF_ABSL:
        raise ConfigError(f"--{name.lstrip('-')} is not a flag; --help lists the flags.")
    if not argument.startswith("--"):
        return argument
    return "--" + name[2:].replace("-", "_") + equals + value
