"""`gan-trainer COMMAND`, or `python -m trainer COMMAND`: dispatches to the module of a command."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trainer import __version__, signals
from trainer.errors import quote
from trainer.registry import did_you_mean

_COMMANDS = {
    "train": ("trainer.cli.train", "train a GAN"),
    "prepare": ("trainer.cli.prepare", "prepare a dataset from images"),
    "merge": ("trainer.cli.merge", "merge prepared datasets"),
    "inspect": ("trainer.cli.inspect", "describe a dataset"),
    "evaluate": ("trainer.cli.evaluate", "measure a run's generator, or any images"),
    "generate": ("trainer.cli.generate", "generate images with a run's generator"),
    "explore": ("trainer.cli.explore", "serve a page that shows a run's latent space"),
    "report": ("trainer.cli.report", "write a page about a run, or a comparison of runs"),
    "export": ("trainer.cli.export", "write a run's generator as a SavedModel"),
    "serve": ("trainer.cli.serve", "answer requests with an exported model"),
    "deploy": ("trainer.cli.deploy", "deploy an exported model to a Vertex AI endpoint"),
    "batch": ("trainer.cli.batch", "generate images with a Vertex AI batch prediction job"),
    "local": ("trainer.cli.local", "run a Vertex AI job file on this machine"),
    "submit": ("trainer.cli.submit", "send a job file to Vertex AI"),
    "jobs": ("trainer.cli.jobs", "list, describe, follow or cancel jobs on Vertex AI"),
}
_HELP = ("--help", "-h", "help")
_SCRIPT = "gan-trainer"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; without a command, lists the commands. `--version` prints the version.

    Args:
        argv: Program, command and arguments. None for the process's own.
    """
    argv = sys.argv if argv is None else argv
    program = _SCRIPT if Path(argv[0]).stem == _SCRIPT else "python -m trainer"
    command = argv[1] if len(argv) > 1 else _HELP[0]
    if command in _COMMANDS:
        module = importlib.import_module(_COMMANDS[command][0])
        return module.main([f"{program} {command}", *argv[2:]])
    if command == "--version":
        return _print([program], lambda values: print(f"{_SCRIPT} {__version__}"))
    lines = [f"  {name:<10}{summary}" for name, (_, summary) in _COMMANDS.items()]
    usage = "\n".join(
        [f"{program} COMMAND [FLAGS]", "", "Commands:", *lines, "", f"{program} COMMAND --help lists flags."]
    )
    if command in _HELP:
        return _print([program, _HELP[0]], lambda values: None, usage)
    advice = did_you_mean(command, _COMMANDS, "choose one of these.")
    print(f"error: {quote(command)} is not a command; {advice}\n\n{usage}", file=sys.stderr)
    return 2


def _print(argv: Sequence[str], print_text: Callable[[Any], None], usage: str = "") -> int:
    """Prints a text or the usage as commands do, also into a closed pipe or a full disk. Returns the exit code."""
    from trainer.cli import app

    return app.command(usage, lambda values: None, print_text)(argv)


def script() -> NoReturn:
    """Runs a command in its own process."""
    signals.exit_with(main)


if __name__ == "__main__":
    script()
