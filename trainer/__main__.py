"""`python -m trainer COMMAND`: one line a command."""

import importlib
import sys

_COMMANDS = {
    "train": ("trainer.cli.train", "train a GAN (the same as python -m trainer.task)"),
    "prepare": ("trainer.cli.prepare", "make a data set of a folder of pictures"),
    "inspect": ("trainer.cli.inspect", "say what a data set holds"),
    "local": ("trainer.cli.local", "run a Vertex AI job file on this machine, by Vertex AI's rules"),
    "evaluate": ("trainer.cli.evaluate", "measure a run's generator"),
    "export": ("trainer.cli.export", "write a run's generator as a SavedModel, to be served"),
    "generate": ("trainer.cli.generate", "make images with a run's generator"),
    "submit": ("trainer.cli.submit", "send a job to Vertex AI"),
    "jobs": ("trainer.cli.jobs", "list, describe and cancel jobs on Vertex AI"),
}


def main(argv: list[str]) -> int:
    """Runs a command; without one, lists them."""
    if len(argv) < 2 or argv[1] not in _COMMANDS:
        asked = argv[1] if len(argv) > 1 else "--help"
        lines = [f"  python -m trainer {name:<10}{text}" for name, (_, text) in _COMMANDS.items()]
        known = "\n".join(["Commands (each takes --help):", *lines])
        if asked in ("--help", "-h", "help"):
            print(known)
            return 0
        print(f"error: {asked!r} is not a command.\n{known}", file=sys.stderr)
        return 2
    module = importlib.import_module(_COMMANDS[argv[1]][0])
    return module.main([f"{argv[0]} {argv[1]}", *argv[2:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
