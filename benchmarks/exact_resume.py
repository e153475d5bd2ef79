"""Counts how often a run that was killed ends with other bits than one that was not.

    python -m benchmarks.exact_resume --kills=50
    python -m benchmarks.exact_resume --kills=30 --in_bucket

Runs the same command again and again, kills it with SIGKILL at a random moment, and starts it anew until it finishes;
then compares the SHA-256 over all state (weights, batch-norm moments, both optimizers, average, counters) with that of
an undisturbed run. Networks are small, with dropout and batch norm; checkpoints come every 20 steps.

With `--in_bucket` the run directory lies in a bucket of a server on this machine, and the moments are those at which a
checkpoint's file is uploaded, its manifest is written, or an old one is deleted.
"""

import contextlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags

from tests.buckets import new_bucket, server
from tests.faults import Fault, Proxy, Request, through
from trainer.storage import locate
from trainer.training.checkpoint.manifest import MANIFEST

_KILLS = flags.DEFINE_integer("kills", 50, "How many kills in all, over both recipes.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_IN_BUCKET = flags.DEFINE_bool("in_bucket", False, "Kill while checkpoints are written to a bucket.")

_COMMON = [
    "--metrics=none",
    "--noexport_model",
    "--checkpoint_every_steps=20",
    "--sample_every_steps=100",
    "--ema_half_life_images=1000",
]
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

Kill = Callable[[subprocess.Popen], bool]
"""Waits for a process, and kills it at some moment; False where it ended before."""


@dataclass
class Tally:
    """What was counted."""

    kills: int = 0
    runs: int = 0
    mismatches: int = 0


def command(recipe: str, job_dir: str, more: tuple[str, ...] = ()) -> list[str]:
    """The command line of a run."""
    start = [sys.executable, "-m", "trainer.task", f"--recipe={recipe}", f"--job_dir={job_dir}"]
    return [*start, *_COMMON, *_COMMANDS[recipe], *more]


def digest(job_dir: str | Path) -> str:
    """SHA-256 over all state of the newest checkpoint."""
    checkpoints = locate(job_dir) / "checkpoints"
    newest = max(entry.name for entry in checkpoints.entries() if entry.name.endswith(f"/{MANIFEST}"))
    return json.loads((checkpoints / newest).read_bytes())["state_sha256"]


def at_any_time(dice: random.Random, longest: float) -> Kill:
    """Kills up to `longest` seconds after the start."""

    def kill(process: subprocess.Popen) -> bool:
        try:
            process.wait(dice.uniform(0, longest))
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            return True

    return kill


def at_any_request(dice: random.Random, most: int, proxy: Proxy) -> Kill:
    """Kills at one of the next `most` requests that change a checkpoint in a bucket, which the server hears or not."""

    def kill(process: subprocess.Popen) -> bool:
        left = itertools.count(dice.randrange(most), -1)
        killed = threading.Event()

        def fate(request: Request) -> Fault | None:
            if request.method == "GET" or "/checkpoints/" not in request.object_name or next(left) > 0:
                return None
            process.kill()
            killed.set()
            return dice.choice([Fault.DROPPED, Fault.LOST])

        proxy.fate = fate
        process.wait()
        proxy.fate = lambda request: None
        return killed.is_set()

    return kill


def finish(start: list[str], kill: Kill, kills: int) -> int:
    """Starts a command until it ends, and kills it up to `kills` times; how often it was killed."""
    killed = 0
    while True:
        with subprocess.Popen(start, stdout=subprocess.DEVNULL) as process:
            if killed < kills and kill(process):
                killed += 1
                continue
            if process.wait() != 0:
                raise RuntimeError(f"{' '.join(start)} ended with status {process.returncode}")
            return killed


def count(recipe: str, kills: int, seed: int, more: tuple[str, ...] = (), in_bucket: bool = False) -> Tally:
    """Kills runs of a recipe until there were `kills`, and finishes every one of them."""
    tally, dice = Tally(), random.Random(f"{seed}/{recipe}")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        if in_bucket:
            proxy = stack.enter_context(through(stack.enter_context(server(Path(root)))))
            root = new_bucket()
        started = time.monotonic()
        subprocess.run(command(recipe, f"{root}/undisturbed", more), check=True, stdout=subprocess.DEVNULL)
        if in_bucket:
            changes = [
                request
                for request in proxy.requests
                if request.method != "GET" and "/checkpoints/" in request.object_name
            ]
            kill = at_any_request(dice, len(changes), proxy)
        else:
            kill = at_any_time(dice, time.monotonic() - started)
        while tally.kills < kills:
            job_dir = f"{root}/run-{tally.runs}"
            tally.kills += finish(command(recipe, job_dir, more), kill, kills - tally.kills)
            tally.runs += 1
            tally.mismatches += digest(job_dir) != digest(f"{root}/undisturbed")
    return tally


def main(_: list[str]) -> None:
    """Prints one line a recipe and the sum."""
    total = Tally()
    for index, recipe in enumerate(_COMMANDS):
        kills = (_KILLS.value + index) // len(_COMMANDS)
        tally = count(recipe, kills, _SEED.value, in_bucket=_IN_BUCKET.value)
        print(f"{recipe}: {tally.kills} kills in {tally.runs} runs, {tally.mismatches} mismatches", flush=True)
        total = Tally(*(a + b for a, b in zip(vars(total).values(), vars(tally).values(), strict=True)))
    print(f"all: {total.kills} kills in {total.runs} runs, {total.mismatches} mismatches")
    sys.exit(bool(total.mismatches))


if __name__ == "__main__":
    app.run(main)
