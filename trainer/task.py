"""`python -m trainer.task`: the module that Vertex AI runs. It is the `train` command."""

import sys

from trainer.cli.train import main

if __name__ == "__main__":
    sys.exit(main(["python -m trainer.task", *sys.argv[1:]]))
