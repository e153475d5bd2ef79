"""`python -m trainer.task`: the module that Vertex AI runs. It is the `train` command."""

import sys

from trainer import signals


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    from trainer.cli import train  # after the signals are handled: it imports the libraries

    return train.main(argv)


if __name__ == "__main__":
    signals.exit_with(lambda: main(["python -m trainer.task", *sys.argv[1:]]))
