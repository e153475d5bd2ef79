"""The frame of every command: parses flags, runs the command, and turns errors into one sentence and an exit code."""

import logging
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TextIO

from absl import flags

from trainer.config.flags import with_underscores
from trainer.errors import ConfigError, ExitCode, TrainerError, escape, escape_lines
from trainer.logging import discard_output, escape_unprintable, install_handler, is_terminal
from trainer.storage import Location, locate
from trainer.storage.local import LocalLocation

_logger = logging.getLogger(__name__)


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
    escape_unprintable()
    install_handler()
    values = flags.FlagValues()
    define(values)
    if {"--help", "-h"} & set(argv[1:]):
        print(f"{usage}\n{values.get_help()}")
        return ExitCode.DONE
    try:
        extra = values([argv[0], *(with_underscores(argument) for argument in argv[1:])])[1:]
        if extra:
            raise ConfigError(f"{extra[0]!r} is not a flag; flags are written --name=value.")
        act(values)
        sys.stdout.flush()
    except flags.Error as error:
        return _fail(escape_lines(error), ExitCode.BAD_FLAGS)
    except TrainerError as error:
        return _fail(escape(error), ExitCode.BAD_FLAGS if isinstance(error, ConfigError) else error.exit_code)
    except KeyboardInterrupt:
        advice = "; run the same command again to go on from the last checkpoint" if resumes else ""
        return _fail(f"interrupted{advice}.", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        if _is_read(sys.stdout):
            raise
        discard_output()
        return ExitCode.BROKEN_PIPE
    except Exception:
        if is_terminal(sys.stderr):
            raise
        _logger.error(traceback.format_exc())  # one entry of a log, not one a line
        return ExitCode.ERROR
    return ExitCode.DONE


def _is_read(stream: TextIO) -> bool:
    """Whether there is still somebody to read what is written."""
    poll = select.poll()
    poll.register(stream, select.POLLERR)
    return not poll.poll(0)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
