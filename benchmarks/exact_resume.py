"""Counts how often a run that was killed ends with other bits than one that was not.

    python -m benchmarks.exact_resume --kills=50

Runs the same command again and again, kills it with SIGKILL at a random moment, and starts it anew until it finishes;
then compares the SHA-256 over all state (weights, batch-norm moments, both optimisers, average, counters) with that of
an undisturbed run. Networks are small, with dropout and batch norm; checkpoints come every 20 steps.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags

_KILLS = flags.DEFINE_integer("kills", 50, "How many kills in all, over both recipes.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

_COMMON = ["--metrics=none", "--checkpoint_every_steps=20", "--sample_every_steps=100", "--ema_half_life_images=1000"]
_COMMANDS = {
    "vanilla": [
        "--steps=2000",
        "--global_batch_size=32",
        '--architecture_options={"generator_units": [64, 128], "discriminator_units": [128, 64], "dropout": 0.3}',
    ],
    "dcgan": [
        "--steps=600",
        "--global_batch_size=32",
        '--architecture_options={"generator_filters": [16, 8], "generator_strides": [2, 2], "dropout": 0.3, '
        '"discriminator_filters": [8, 16], "discriminator_batch_norm": "all"}',
    ],
}


@dataclass
class Tally:
    """What was counted."""

    kills: int = 0
    runs: int = 0
    mismatches: int = 0


def command(recipe: str, job_dir: Path, more: tuple[str, ...] = ()) -> list[str]:
    """The command line of a run."""
    start = [sys.executable, "-m", "trainer.task", f"--recipe={recipe}", f"--job_dir={job_dir}"]
    return [*start, *_COMMON, *_COMMANDS[recipe], *more]


def digest(job_dir: Path) -> str:
    """SHA-256 over all state of the newest checkpoint."""
    newest = max(job_dir.glob("checkpoints/step-*/MANIFEST.json"))
    return json.loads(newest.read_text())["state_sha256"]


def undisturbed(recipe: str, folder: Path, more: tuple[str, ...] = ()) -> tuple[str, float]:
    """Digest and seconds of a run that nobody kills."""
    started = time.monotonic()
    subprocess.run(command(recipe, folder, more), check=True, stdout=subprocess.DEVNULL)
    return digest(folder), time.monotonic() - started


def killed(
    recipe: str,
    folder: Path,
    moments: random.Random,
    longest: float,
    kills: int,
    tally: Tally,
    more: tuple[str, ...] = (),
) -> str:
    """Digest of a run that is killed `kills` times, each time up to `longest` seconds after its start."""
    while True:
        with subprocess.Popen(command(recipe, folder, more), stdout=subprocess.DEVNULL) as process:
            try:
                timeout = moments.uniform(0, longest) if tally.kills < kills else None
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                tally.kills += 1
                continue
        if code != 0:
            raise RuntimeError(f"the run in {folder} ended with status {code}")
        return digest(folder)


def count(recipe: str, kills: int, seed: int, more: tuple[str, ...] = ()) -> Tally:
    """Kills runs of a recipe until there were `kills`, and finishes every one of them."""
    tally, moments = Tally(), random.Random(f"{seed}/{recipe}")
    with tempfile.TemporaryDirectory() as root:
        expected, seconds = undisturbed(recipe, Path(root, "undisturbed"), more)
        while tally.kills < kills:
            got = killed(recipe, Path(root, f"run-{tally.runs}"), moments, seconds, kills, tally, more)
            tally.runs += 1
            tally.mismatches += got != expected
    return tally


def main(_: list[str]) -> None:
    """Prints one line a recipe and the sum."""
    total = Tally()
    for index, recipe in enumerate(_COMMANDS):
        kills = (_KILLS.value + index) // len(_COMMANDS)
        tally = count(recipe, kills, _SEED.value)
        print(f"{recipe}: {tally.kills} kills in {tally.runs} runs, {tally.mismatches} mismatches", flush=True)
        total = Tally(*(a + b for a, b in zip(vars(total).values(), vars(tally).values(), strict=True)))
    print(f"all: {total.kills} kills in {total.runs} runs, {total.mismatches} mismatches")
    sys.exit(bool(total.mismatches))


if __name__ == "__main__":
    app.run(main)
