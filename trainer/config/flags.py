"""Command-line flags derived from `TrainConfig`: one flag per setting."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from absl import flags

from trainer.config.train_config import TrainConfig


class _WholeNumberParser(flags.ArgumentParser[int]):
    """Reads 3 and, as tuning services write it, 3.0."""

    syntactic_help = "a whole number"

    def parse(self, argument: Any) -> int:
        number = float(argument)
        if number != int(number):
            raise ValueError(f"{argument} is not a whole number")
        return int(number)


class _ListParser(flags.ArgumentParser[tuple[Any, ...]]):
    """Reads 0,3 as (0, 3), and r1,r2 as ("r1", "r2"); nothing as ().

    Args:
        kind: Of the members: int or str.
    """

    def __init__(self, kind: Callable[[str], Any]):
        super().__init__()
        self.syntactic_help = "whole numbers separated by commas" if kind is int else "words separated by commas"
        self._kind = kind

    def parse(self, argument: Any) -> tuple[Any, ...]:
        return tuple(self._kind(part) for part in str(argument).split(",") if part)


class _OptionalParser(flags.ArgumentParser[Any]):
    """Reads `none` as None, and leaves the rest to another parser."""

    def __init__(self, parser: flags.ArgumentParser[Any]):
        super().__init__()
        self.syntactic_help = f"{parser.syntactic_help or 'a value'}, or none"
        self._parser = parser

    def parse(self, argument: Any) -> Any:
        return None if str(argument).lower() == "none" else self._parser.parse(argument)


class _ObjectParser(flags.ArgumentParser[dict[str, Any]]):
    """Reads a JSON object."""

    syntactic_help = "a JSON object"

    def parse(self, argument: Any) -> dict[str, Any]:
        value = json.loads(argument)
        if not isinstance(value, dict):
            raise ValueError(f"{argument} is not a JSON object")
        return value


def define_config(values: flags.FlagValues) -> None:
    """Defines one flag a setting, all of them None until given."""
    hints = typing.get_type_hints(TrainConfig)
    for spec in dataclasses.fields(TrainConfig):
        choices = spec.metadata["choices"]
        text = spec.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        if hints[spec.name] is bool:
            flags.DEFINE_bool(spec.name, None, text, flag_values=values)
        else:
            parser = _parser(hints[spec.name])
            flags.DEFINE(parser, spec.name, None, text, flag_values=values, serializer=flags.ArgumentSerializer())


def define_recipe(values: flags.FlagValues) -> None:
    """Defines the flag `--recipe` of commands that read a run."""
    text = (
        "Recipe of the run. Needed if it is MODULE:FUNCTION and the run is in a bucket, because the module is imported."
    )
    flags.DEFINE_string("recipe", None, text, flag_values=values)


def _parser(hint: Any) -> flags.ArgumentParser[Any]:
    """The parser for the type of a setting."""
    if isinstance(hint, types.UnionType):
        return _OptionalParser(_parser(next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)))
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _ListParser(members[0])
    if origin is not None:
        return _ObjectParser()
    return {int: _WholeNumberParser, float: flags.FloatParser, str: flags.ArgumentParser}[hint]()


def takes_whole_numbers(name: str) -> bool:
    """Whether the values of a setting are whole numbers, or lists of them."""
    hint = typing.get_type_hints(TrainConfig)[name]
    return hint is int or int in typing.get_args(hint)


def given(values: flags.FlagValues) -> dict[str, Any]:
    """The settings of `TrainConfig` that were given on the command line."""
    names = (spec.name for spec in dataclasses.fields(TrainConfig))
    return {name: values[name].value for name in names if values[name].present}


def with_underscores(argument: str) -> str:
    """An argument with the name of its flag as it is defined: `--job-dir=x` as `--job_dir=x`."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
