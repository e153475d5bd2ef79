"""Runs a command: parses its flags, and turns errors into one sentence and an exit code."""

import contextlib
import logging
import math
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TextIO

from absl import flags

from trainer import signals
from trainer.config.fields import join_words
from trainer.config.flags import explain, with_underscores
from trainer.errors import ConfigError, ExitCode, TrainerError, escape, quote, shorten
from trainer.logging import discard_output, install_handler, is_terminal, log_fields, prepare_streams
from trainer.storage import Location, locate
from trainer.storage.local import LocalLocation
from trainer.storage.local_files import SYSTEM_REMEDIES, describe_os_error

_logger = logging.getLogger(__name__)

_PROGRAM = "{command}"
"""Placeholder in usage texts for the command as the user typed it."""


def output_file(flag: str, name: str, kinds: Mapping[str, str]) -> Location:
    """Returns the location of a file to write, checked before the command does its work.

    Args:
        flag: Name of the flag, for messages.
        name: Local path, or `gs://BUCKET/NAME`.
        kinds: Description of each allowed kind of file, by file name extension.

    Raises:
        ConfigError: If the extension is unknown, the name is that of a folder, or the file's folder does not exist or
            is not writable.
    """
    file = locate(name)
    if PurePosixPath(file.name).suffix.lower() not in kinds:
        raise ConfigError(f"--{flag}={name} has an unknown extension; write {join_words([*kinds.values()])}.")
    if isinstance(file, LocalLocation):
        _check_parent(flag, file)
        if file.path.exists() and not file.path.is_file():
            raise ConfigError(f"--{flag}={name} is a folder, a pipe or a device; give the name of a file.")
    return file


def output_folder(flag: str, name: str) -> Location:
    """Returns the location of a folder to write, which may be new, checked before the command does its work.

    Args:
        flag: Name of the flag, for messages.
        name: Local path, or `gs://BUCKET/NAME`.

    Raises:
        ConfigError: If it is a file, or its folder does not exist or is not writable.
    """
    folder = locate(name)
    if isinstance(folder, LocalLocation):
        _check_parent(flag, folder)
        if folder.path.exists() and not folder.path.is_dir():
            raise ConfigError(f"--{flag}={name} is a file; give another folder.")
    return folder


def _check_parent(flag: str, location: LocalLocation) -> None:
    """Rejects a local file or folder that cannot be created or replaced."""
    folder = location.path if location.path.is_dir() else location.path.parent
    if not folder.is_dir():
        if file := next((path for path in (folder, *folder.parents) if path.is_file()), None):
            raise ConfigError(f"--{flag}={location} is below {file}, which is a file; give another path.")
        raise ConfigError(f"--{flag}={location} is in a folder that does not exist; create {folder} first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--{flag}={location} is in a folder that is not writable; give another one.")


def command(
    usage: str,
    define_flags: Callable[[flags.FlagValues], None],
    run_command: Callable[..., None],
    *,
    resumes: bool = False,
    takes_words: bool = False,
) -> Callable[[Sequence[str]], int]:
    """Returns the `main` function of a command, which parses a command line and runs the command.

    Its argument is a list: the name of the command for `--help`, such as `gan-trainer train`, and then the arguments of
    the command. `--job-dir` is the same as `--job_dir`. It returns the exit code: one of `ExitCode`, or that of a
    process of a job on this machine.

    Args:
        usage: Text that `--help` prints above the flags. `{command}` stands for the name of the command.
        define_flags: Function that defines the flags.
        run_command: Function of the flags that does the work. If `takes_words`, its second argument is a list of the
            arguments that are not flags, wherever they are.
        resumes: True if the command resumes from a checkpoint when it runs again.
        takes_words: True if arguments that are not flags are allowed.
    """

    def main(argv: Sequence[str]) -> int:
        prepare_streams()
        install_handler()
        values = flags.FlagValues()
        define_flags(values)
        advice = "run the same command again to resume from the last checkpoint" if resumes else ""
        try:
            with signals.raised():
                if {"--help", "-help", "-h"} & set(argv[1:]):
                    print(f"{usage.replace(_PROGRAM, argv[0])}\n{values.get_help(include_special_flags=False)}")
                else:
                    words = _parse(argv, values, takes_words)
                    if takes_words:
                        run_command(values, words)
                    else:
                        run_command(values)
                sys.stdout.flush()
        except flags.Error as error:
            return _fail(explain(error, values), ExitCode.BAD_FLAGS)
        except TrainerError as error:
            return _fail(str(error), ExitCode.BAD_FLAGS if isinstance(error, ConfigError) else error.exit_code)
        except (KeyboardInterrupt, signals.Terminated) as error:
            return signals.end(error, advice)
        except BrokenPipeError:
            if _has_reader(sys.stdout):
                raise
            discard_output()
            return ExitCode.BROKEN_PIPE
        except Exception as error:
            problem = _describe_system_error(error)
            if problem:
                return _fail(f"{problem}{advice and ', and '}{advice}.", ExitCode.ERROR)
            if is_terminal(sys.stderr):
                raise
            # One log entry for the whole traceback.
            _logger.error("This error is not foreseen; please report it.", extra=log_fields({}, traceback.format_exc()))
            return ExitCode.ERROR
        return ExitCode.DONE

    return main


def _describe_system_error(error: Exception) -> str:
    """Returns the sentence, without its end, of an error that the system caused; empty for other errors.

    TensorFlow raises its own exceptions, whose messages end in the text of the system.
    """
    if isinstance(error, OSError):
        code, file = error.errno, error.filename2 or error.filename or "a file"
    elif type(error).__module__.startswith("tensorflow."):
        line = next((line for line in str(error).splitlines() if "; " in line), "")
        code = next((code for code in SYSTEM_REMEDIES if line.partition("; ")[2].startswith(os.strerror(code))), None)
        file = line.partition("; ")[0].rpartition(" ")[2]
    else:
        code, file = None, ""
    if code in SYSTEM_REMEDIES:
        return describe_os_error(OSError(code, os.strerror(code)), file, "opened, read or written")
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":  # also a full disk, above
        return (
            f"the memory is full ({str(error).partition(chr(10))[0]}); use fewer or smaller images, batches or networks"
        )
    return ""


def _parse(argv: Sequence[str], values: flags.FlagValues, takes_words: bool) -> list[str]:
    """Parses the flags, and returns the other arguments."""
    values.set_gnu_getopt(takes_words)  # flags may follow other arguments
    arguments = [argv[0], *(with_underscores(argument) for argument in argv[1:])]
    if not takes_words and len(argv) > 1 and not argv[1].startswith("-"):  # before absl misses required flags
        raise _not_a_flag(argv[1])
    try:
        words = values(arguments)[1:]
    except flags.Error:
        raise
    except ValueError as error:  # --noname=value
        raise ConfigError(f"{' '.join(str(error).split())}; write --name=value.") from error
    for name in values:
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):  # absl's bounds accept NaN
            raise ConfigError(f"--{name}={value} is not a finite number; give a number, such as 0.5.")
    if words and not takes_words:
        raise _not_a_flag(words[0])
    return words


def _not_a_flag(word: str) -> ConfigError:
    return ConfigError(f"{quote(word)} is not a flag; write flags as --name=value.")


def _has_reader(stream: TextIO) -> bool:
    """Returns whether the other end of a pipe is still open."""
    poll = select.poll()
    poll.register(stream, select.POLLERR)
    return not poll.poll(0)


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # after SIGHUP, there may be no terminal
        print(f"error: {escape(shorten(message))}", file=sys.stderr, flush=True)
    return code
