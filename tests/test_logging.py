"""Output of the commands: one line per message, escaped and of limited length, whatever values it quotes."""

import datetime
import errno
import json
import logging as standard_logging
import os
import re

import pytest
import tensorflow as tf
from hostile import is_clean

from trainer import __main__ as commands, logging
from trainer.cli import app
from trainer.errors import DataError

VALUES = {
    "line breaks": "a\nerror: all is well\r\n",
    "escapes": "\x1b]0;owned\x07\x1b[2J\x9b2J",
    "separators": "a\x0b\x0c\x1c\x85\u2028\u2029b",
    "directions": "\u202egnp.exe\u2066",
    "deletions": "rm -rf\x08\x08\x7f",
    "very long": "x" * 200_000,
    "very long escapes": "\x1b" * 200_000,
}
each_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


def check_line(text):
    """Asserts that a text is one short and clean line."""
    assert text.endswith("\n") and is_clean(text[:-1]) and len(text) < 30_000


def log(message, *, terminal, monkeypatch, **extra):
    monkeypatch.setattr(logging, "is_terminal", lambda stream=None: terminal)
    logging.install_handler()
    standard_logging.getLogger("trainer.test").warning(message, **extra)


@each_value
def test_a_log_message_is_one_line(value, monkeypatch, capsys):
    log(f"Skipped {value}.", terminal=True, monkeypatch=monkeypatch)
    out = capsys.readouterr().out
    assert out.startswith(logging._CLEAR_LINE)
    check_line(out.removeprefix(logging._CLEAR_LINE))
    log(f"Skipped {value}.", terminal=False, monkeypatch=monkeypatch, extra=logging.log_fields({"name": value}))
    entry = json.loads(out := capsys.readouterr().out)
    check_line(out)
    assert is_clean(entry["message"]) and entry["message"].startswith("Skipped") and entry["message"].endswith(".")


def test_a_log_entry_has_a_time_that_cloud_logging_reads(monkeypatch, capsys):
    before = datetime.datetime.now(datetime.timezone.utc)
    log("Hello.", terminal=False, monkeypatch=monkeypatch)
    time = json.loads(capsys.readouterr().out)["time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", time)
    age = before - datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
    assert abs(age.total_seconds()) < 60


def test_the_text_of_a_log_message_keeps_its_lines(monkeypatch, capsys):
    text = "Traceback:\n  line\x1b[2J\n" + "  another\n" * 1000
    for terminal in (True, False):
        log("Failed.", terminal=terminal, monkeypatch=monkeypatch, extra=logging.log_fields({}, text))
        out = capsys.readouterr().out
        message = out.removeprefix(logging._CLEAR_LINE) if terminal else json.loads(out)["message"] + "\n"
        assert message.startswith("Failed.\nTraceback:\n") and message.count("\n") > 1000 and "\x1b" not in message


@each_value
def test_a_printed_line_is_one_line(value, capsys):
    logging.print_line(f"Wrote {value}.")
    check_line(capsys.readouterr().out)


def command(act, *arguments):
    return app.command("usage", lambda values: None, lambda values: act())(["gan-trainer x", *arguments])


def fail_with(error):
    def fail():
        raise error

    return fail


@each_value
def test_the_error_of_a_command_is_one_line(value, capsys):
    errors = (DataError(f"{value} is wrong; correct it."), PermissionError(13, "Permission denied", value))
    codes = [command(fail_with(error)) for error in errors]
    codes += [command(lambda: None, f"--{value}=1"), command(lambda: None, value)]
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert codes == [1, 1, 2, 2] and len(lines) == 4
    for line in lines:
        assert line.startswith("error: ")
        check_line(line)


def tensorflow_error(kind, text):
    return kind(None, None, f"{{{{function_node __wrapped__Save}}}} /disk/x; {text}\n\tFailed to flush [Op:Save]")


SYSTEM_ERRORS = {
    **{
        errno.errorcode[code]: OSError(code, os.strerror(code), "/disk/x")
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EACCES)
    },
    "two files": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/partial", None, "/disk/x"),
    "tensorflow full disk": tensorflow_error(tf.errors.ResourceExhaustedError, os.strerror(errno.ENOSPC)),
    "tensorflow handles": tensorflow_error(tf.errors.ResourceExhaustedError, os.strerror(errno.EMFILE)),
    "tensorflow large file": tensorflow_error(tf.errors.OutOfRangeError, os.strerror(errno.EFBIG)),
    "tensorflow permission": tensorflow_error(tf.errors.PermissionDeniedError, os.strerror(errno.EACCES)),
}


@pytest.mark.parametrize("error", SYSTEM_ERRORS.values(), ids=SYSTEM_ERRORS)
def test_an_error_of_the_disk_is_one_line_with_its_file(error, capsys):
    assert command(fail_with(error)) == 1
    line = capsys.readouterr().err
    check_line(line)
    assert line.startswith("error: /disk/x ") and any(os.strerror(code) in line for code in errno.errorcode)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        ValueError("x"),
        tf.errors.InternalError(None, None, "No space left on device"),
    ],
)
def test_another_error_is_one_entry_of_the_log_with_its_stack(error, capsys):
    assert command(fail_with(error)) == 1
    captured = capsys.readouterr()
    assert "Traceback" in json.loads(captured.out)["message"] and not captured.err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 TiB"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor; No space for it"),
    ],
)
def test_a_full_memory_is_one_line(error, capsys):
    assert command(fail_with(error)) == 1
    line = capsys.readouterr().err
    check_line(line)
    assert line.startswith("error: ") and "allocat" in line


@each_value
def test_an_unknown_command_is_quoted_in_one_line(value, capsys):
    assert commands.main(["gan-trainer", value]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    check_line(error.partition("\n")[0] + "\n")
