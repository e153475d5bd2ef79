"""Checks of refused inputs: the type of the error and the facts that its message names, never its prose.

Every test imports it as `from refusals import ...`: pytest puts the folder of conftest.py on the path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Refusal:
    """One row of a table of refused inputs.

    Attributes:
        name: The name of the row, for the test's identifier.
        act: The function that meets the refused input.
        error: The type of the error that it raises.
        mentions: The strings that the message contains: the setting or file, and the value.
    """

    name: str
    act: Callable[..., object]
    error: type[Exception]
    mentions: tuple[str, ...]


def check_refusal(act: Callable[[], object], error: type[Exception], *mentions: str) -> None:
    """Asserts that a call is refused with one line that names the given facts.

    Args:
        act: The function to call.
        error: The type of the expected error. A subclass passes too.
        *mentions: The strings that the message must contain.
    """
    with pytest.raises(error) as caught:
        act()
    # str() of a KeyError is the representation of its message.
    message = str(caught.value.args[0]) if isinstance(caught.value, KeyError) else str(caught.value)
    assert message.strip(), f"{type(caught.value).__name__} has no message"
    assert "\n" not in message, f"the message has more than one line: {message!r}"
    _check_mentions(message, mentions)


def check_command_refusal(
    main: Callable[[list[str]], object],
    argv: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    exit_code: int,
    *mentions: str,
) -> None:
    """Asserts that a command ends with an exit code and one line on stderr that names the given facts.

    Args:
        main: The command's function. It returns the exit code or raises SystemExit with it.
        argv: The arguments of the command.
        capsys: The fixture that captures the output.
        exit_code: The expected exit code.
        *mentions: The strings that the line must contain.
    """
    capsys.readouterr()
    try:
        code = main(list(argv))
    except SystemExit as error:
        code = error.code
    stderr = capsys.readouterr().err
    assert code == exit_code, f"exit code {code!r} instead of {exit_code}; stderr: {stderr!r}"
    assert "Traceback" not in stderr, f"stderr has a traceback: {stderr}"
    assert stderr.startswith("error: "), f"stderr does not start with 'error: ': {stderr!r}"
    assert stderr.count("\n") == 1 and stderr.endswith("\n"), f"stderr is not one line: {stderr!r}"
    _check_mentions(stderr, mentions)


def _check_mentions(message: str, mentions: Sequence[str]) -> None:
    for mention in mentions:
        assert mention in message, f"{mention!r} is not mentioned: {message!r}"
