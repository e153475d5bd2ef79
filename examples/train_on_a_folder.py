"""Prepares a folder of images, trains on it, and writes a grid of samples.

Run `python examples/train_on_a_folder.py FOLDER`. The prepared set and the run go to runs/folder; run the script again
to resume. STEPS sets the number of steps: 20 show that everything works, thousands on a GPU are needed for good images.
"""

import os
import sys
from pathlib import Path

from trainer.__main__ import main

STEPS = int(os.environ.get("STEPS", "20"))
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
    small = '{"generator_filters": [64, 32], "discriminator_filters": [32, 64]}'
    settings = ["--recipe=r1", f"--architecture_options={small}", "--global_batch_size=16", "--horizontal_flips"]
    settings += ["--num_metric_samples=1000"]  # for evaluations that take seconds on a CPU
    run_command("train", *settings, f"--dataset={dataset}", f"--job_dir={run}", f"--steps={STEPS}")
    run_command("generate", f"--job_dir={run}", "--num_images=16", "--out=runs/folder/samples.png")
