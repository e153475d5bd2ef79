"""Ctrl-C, SIGTERM and SIGHUP end a command with one sentence and the right exit code at every moment."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import keras
import pytest
from conftest import tiny_gan

from trainer import signals
from trainer.cli import app

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
EXCEPTIONS = dict.fromkeys(CODES, signals.Terminated) | {signal.SIGINT: KeyboardInterrupt}


def handlers():
    return [signal.getsignal(number) for number in CODES]


@pytest.fixture(autouse=True)
def _same_handlers():
    """Checks that a test leaves the handlers of this process as they were."""
    before = handlers()
    yield
    assert handlers() == before


def swallow(number):
    """Receives a signal where Python drops the exception, as in a finalizer."""
    with contextlib.suppress(KeyboardInterrupt, signals.Terminated):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_raises_its_exception_again_if_that_was_dropped(number):
    with signals.raised():
        signals.check()
        with pytest.raises(EXCEPTIONS[number]):
            signal.raise_signal(number)
        with pytest.raises(EXCEPTIONS[number]):
            signals.check()
    signals.check()


@pytest.mark.parametrize("number", CODES)
def test_an_ignored_signal_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals.raised():
            signal.raise_signal(number)
            assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_another_thread_changes_no_handler():
    seen = []

    def record():
        with signals.raised():
            seen.append(handlers())

    before = handlers()
    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    assert seen == [before]


def command(act, **settings):
    return app.command("usage", lambda values: None, lambda values: act(), **settings)(["gan-trainer x"])


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("resumes", [True, False])
def test_a_command_ends_with_one_sentence(number, resumes, capsys):
    cleaned = []

    def act():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    assert command(act, resumes=resumes) == CODES[number]
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and cleaned
    assert ("resume" in stderr) == resumes
    assert number == signal.SIGINT or number.name in stderr


@pytest.mark.parametrize("number", CODES)
def test_a_signal_whose_exception_a_library_replaced_ends_a_command_with_one_sentence(number, capsys):
    def act():
        try:
            signal.raise_signal(number)
        except (KeyboardInterrupt, signals.Terminated):
            raise ImportError("initialization failed") from None

    assert command(act) == CODES[number]
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and "initialization" not in stderr


@pytest.mark.parametrize("number", CODES)
def test_what_continues_after_a_signal_is_in_its_sentence(number, capsys):
    def act():
        try:
            signal.raise_signal(number)
        except (KeyboardInterrupt, signals.Terminated) as error:
            raise signals.explained(error, "the job continues.") from None

    assert command(act) == CODES[number]
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and "the job continues" in stderr


def test_a_hangup_without_a_terminal_has_its_exit_code(monkeypatch):
    with open("/dev/full", "w") as closed:
        monkeypatch.setattr("sys.stderr", closed)
        assert command(lambda: signal.raise_signal(signal.SIGHUP)) == 129
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            closed.close()


@pytest.mark.parametrize("number", CODES)
def test_a_dropped_signal_ends_training_before_the_next_step(number, digits):
    gan = tiny_gan()
    dropping = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: swallow(number))
    with signals.raised(), pytest.raises(EXCEPTIONS[number]):
        gan.fit(digits.images[:32], batch_size=16, steps=5, callbacks=[dropping], verbose=0)
    assert gan.step == 0


@pytest.mark.parametrize("number", CODES)
def test_a_signal_after_the_work_changes_no_exit_code(number):
    code = f"""
import atexit, signal
from trainer import signals
atexit.register(lambda: (signal.raise_signal({int(number)}), signal.pause()))
signals.exit_with(lambda: 7)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (7, b"")


def test_an_interrupted_extension_module_changes_no_exit_code(tmp_path):
    # The interpreter remembers that code of an extension module was interrupted, and would end with SIGINT.
    (tmp_path / "interrupted.py").write_text("""
import ctypes
from trainer import signals
def main():
    run = ctypes.pythonapi.PyRun_String
    run.restype, run.argtypes = ctypes.py_object, [ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object]
    run(b"raise KeyboardInterrupt", 257, {}, {})
signals.exit_with(main)
""")
    search_path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "interrupted"]
    environment = os.environ | {"PYTHONPATH": search_path}
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)
    assert done.returncode == 130 and done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("module", ["absl.flags", "trainer.logging"])
@pytest.mark.parametrize("program", [["trainer.task"], ["trainer", "generate"]], ids="-".join)
def test_a_signal_while_a_command_starts_ends_it_with_one_sentence(program, module, number):
    arguments = [sys.executable, "-X", "importtime", "-m", *program, "--job_dir=/nowhere", "--out=x.png"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.split()[-1] == module for line in process.stderr)
        process.send_signal(number)
        stderr = [line for line in process.communicate(timeout=60)[1].splitlines() if "import time:" not in line]
    assert process.returncode == CODES[number]
    assert len(stderr) == 1 and stderr[0].startswith("error: ")
