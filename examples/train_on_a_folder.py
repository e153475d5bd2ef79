"""Prepares a folder of images, trains on it, and writes a grid of samples.

Run `python examples/train_on_a_folder.py FOLDER`. The prepared set and the run go to runs/folder; run the script again
to resume. The recipe chooses the number of steps, for about half an hour on two CPU cores, and for longer on a GPU.
STEPS=20 shows that everything works. Then delete runs/folder/run, because a run keeps its schedules and intervals.
"""

import os
import sys
from pathlib import Path

from trainer.__main__ import main

STEPS = os.environ.get("STEPS")
dataset, run = Path("runs/folder/data"), Path("runs/folder/run")


def run_command(*arguments: str) -> None:
    """Runs a command of the package, and exits with its code if it fails."""
    if code := main(["trainer", *arguments]):
        sys.exit(code)


if __name__ == "__main__":  # `prepare` decodes images in several processes, which import this file
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/train_on_a_folder.py FOLDER")
    if not (dataset / "dataset.json").exists():
        run_command("prepare", f"--source={sys.argv[1]}", f"--out={dataset}", "--image_size=32,32", "--channels=3")
    steps = [f"--steps={STEPS}"] if STEPS else []
    run_command("train", "--recipe=photos", f"--dataset={dataset}", f"--job_dir={run}", *steps)
    run_command("generate", f"--job_dir={run}", "--num_images=16", "--out=runs/folder/samples.png")
