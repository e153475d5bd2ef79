"""Command lines: flags derived from `TrainConfig`, and one sentence for every mistake."""

import dataclasses
import json
import os
import select
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TextIO

from absl import flags

from trainer import console
from trainer.config import TrainConfig
from trainer.errors import ConfigError, TrainerError
from trainer.storage import Location, locate
from trainer.storage.locations import LocalLocation
from trainer.storage.safe_names import shown, shown_lines

_UNFORESEEN = 1
_BAD_FLAGS = 2
_INTERRUPTED = 130
_UNREAD = 141


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
    """Defines `--recipe` of the commands that read a run."""
    text = "Recipe of the run. Needed where it is MODULE:FUNCTION and the run lies in a bucket: the module is imported."
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


def file_to_write(flag: str, given: str, kinds: Mapping[str, str]) -> Location:
    """The file that a command was told to write, checked before the work that it takes to have its content.

    Args:
        flag: Where it was given.
        given: A local path, or `gs://BUCKET/NAME`.
        kinds: What may be written, in words, by the ending of the name.

    Raises:
        ConfigError: The name ends in another way, is that of a folder, or lies in a folder that is not there or that
            cannot be written.
        StorageError: It names no bucket.
    """
    file = locate(given)
    if PurePosixPath(file.name).suffix not in kinds:
        raise ConfigError(f"{flag}={given} has an unknown ending; write {' or '.join(kinds.values())}.")
    if isinstance(file, LocalLocation):
        folder = file.path.parent
        if not folder.is_dir():
            raise ConfigError(f"{flag}={given} lies in a folder that does not exist; make {folder} first.")
        if file.path.is_dir():
            raise ConfigError(f"{flag}={given} is a folder; give the name of a file.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"{flag}={given} lies in a folder that you may not write to; give another one.")
    return file


def run(
    argv: Sequence[str],
    usage: str,
    define: Callable[[flags.FlagValues], None],
    act: Callable[[flags.FlagValues], None],
    *,
    resumes: bool = False,
) -> int:
    """Parses a command line and acts on it.

    Args:
        argv: The program's name, then its arguments; `--job-dir` means `--job_dir`.
        usage: What the command does, for `--help`.
        define: Defines the flags.
        act: Does the work.
        resumes: Whether it goes on from a checkpoint when it is run again.

    Returns:
        The exit code: 0 done, 1 user error (or one that was not foreseen), 2 bad flags, 130 interrupted, 141 nobody
        reads the output, 143 stopped by SIGTERM.
    """
    console.escape_unprintable()
    values = flags.FlagValues()
    define(values)
    if {"--help", "-h"} & set(argv[1:]):
        print(f"{usage}\n{values.get_help()}")
        return 0
    try:
        extra = values([argv[0], *(with_underscores(argument) for argument in argv[1:])])[1:]
        if extra:
            raise ConfigError(f"{extra[0]!r} is not a flag; flags are written --name=value.")
        act(values)
        sys.stdout.flush()
    except flags.Error as error:
        return _fail(shown_lines(error), _BAD_FLAGS)
    except TrainerError as error:
        return _fail(shown(error), _BAD_FLAGS if isinstance(error, ConfigError) else error.exit_code)
    except KeyboardInterrupt:
        advice = "; run the same command again to go on from the last checkpoint" if resumes else ""
        return _fail(f"interrupted{advice}.", _INTERRUPTED)
    except BrokenPipeError:
        if _is_read(sys.stdout):
            raise
        console.discard_output()
        return _UNREAD
    except Exception:
        if console.is_terminal(sys.stderr):
            raise
        console.say(traceback.format_exc(), severity="ERROR")  # one entry of a log, not one a line
        return _UNFORESEEN
    return 0


def _is_read(stream: TextIO) -> bool:
    """Whether there is still somebody to read what is written."""
    poll = select.poll()
    poll.register(stream, select.POLLERR)
    return not poll.poll(0)


def with_underscores(argument: str) -> str:
    """An argument with the name of its flag as it is defined: `--job-dir=x` as `--job_dir=x`."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
