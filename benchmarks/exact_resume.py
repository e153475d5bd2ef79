"""Counts how often a killed and resumed run ends with other bits than an undisturbed run.

    python -m benchmarks.exact_resume --kills=50
    python -m benchmarks.exact_resume --kills=30 --in_bucket

Each run is killed with SIGKILL at a random moment and started again, until it finishes. Then the SHA-256 over all state
(weights, batch-norm moments, optimizers, EMA, counters) is compared with that of an undisturbed run. The networks are
small, with dropout and batch norm; checkpoints are written every 20 steps.

With `--in_bucket` the run directory is in a bucket of a server on this machine, and runs are killed while a file of a
checkpoint is uploaded, its manifest is written, or an old checkpoint is deleted.
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

from trainer.storage import locate
from trainer.testing.bucket_server import bucket_server, new_bucket
from trainer.testing.fault_proxy import Fault, FaultProxy, ProxiedRequest, fault_proxy, no_faults
from trainer.training.checkpoint.manifest import MANIFEST

_KILLS = flags.DEFINE_integer("kills", 50, "Total number of kills over both recipes.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random moments.")
_IN_BUCKET = flags.DEFINE_bool("in_bucket", False, "Kill runs while they write checkpoints to a bucket.")

_COMMON = [
    "--metrics=none",
    "--noexport_model",
    "--checkpoint_every_steps=20",
    "--sample_every_steps=100",
    "--ema_half_life_images=1000",
]
_RECIPE_FLAGS = {
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

Killer = Callable[[subprocess.Popen], bool]
"""Waits for a process and kills it at some moment; returns whether it did so before the process ended."""


@dataclass
class Tally:
    """Counts of kills, finished runs and runs with other bits."""

    kills: int = 0
    runs: int = 0
    mismatches: int = 0


def command(recipe: str, job_dir: str, extra_flags: tuple[str, ...] = ()) -> list[str]:
    """Returns the command line of a run."""
    program = [sys.executable, "-m", "trainer.task", f"--recipe={recipe}", f"--job_dir={job_dir}"]
    return [*program, *_COMMON, *_RECIPE_FLAGS[recipe], *extra_flags]


def digest(job_dir: str | Path) -> str:
    """Returns the SHA-256 over all state in the newest checkpoint."""
    checkpoints = locate(job_dir) / "checkpoints"
    newest = max(entry.name for entry in checkpoints.entries() if entry.name.endswith(f"/{MANIFEST}"))
    return json.loads((checkpoints / newest).read_bytes())["state_sha256"]


def kill_at_random_time(rng: random.Random, max_secs: float) -> Killer:
    """Returns a killer that acts at most `max_secs` after the start."""

    def kill(process: subprocess.Popen) -> bool:
        try:
            process.wait(rng.uniform(0, max_secs))
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            return True

    return kill


def kill_at_random_request(rng: random.Random, num_requests: int, proxy: FaultProxy) -> Killer:
    """Returns a killer that acts at one of the next requests that change a checkpoint in a bucket.

    The server handles the request or does not receive it, at random.

    Args:
        rng: Random numbers.
        num_requests: Number of requests to choose from.
        proxy: Proxy through which the process reaches its bucket.
    """

    def kill(process: subprocess.Popen) -> bool:
        remaining = itertools.count(rng.randrange(num_requests), -1)
        killed = threading.Event()

        def choose_fault(request: ProxiedRequest) -> Fault | None:
            if not _changes_checkpoint(request) or next(remaining) > 0:
                return None
            process.kill()
            killed.set()
            return rng.choice([Fault.DROPPED_REQUEST, Fault.LOST_RESPONSE])

        proxy.policy = choose_fault
        process.wait()
        proxy.policy = no_faults
        return killed.is_set()

    return kill


def _changes_checkpoint(request: ProxiedRequest) -> bool:
    return request.method != "GET" and "/checkpoints/" in request.object_name


def finish(run_command: list[str], kill: Killer, max_kills: int) -> int:
    """Restarts a command until it finishes, and kills it up to `max_kills` times.

    Returns:
        The number of kills.

    Raises:
        RuntimeError: If the command fails.
    """
    num_kills = 0
    while True:
        with subprocess.Popen(run_command, stdout=subprocess.DEVNULL) as process:
            if num_kills < max_kills and kill(process):
                num_kills += 1
                continue
            if process.wait() != 0:
                raise RuntimeError(f"{' '.join(run_command)} exited with code {process.returncode}.")
            return num_kills


def count(recipe: str, kills: int, seed: int, extra_flags: tuple[str, ...] = (), in_bucket: bool = False) -> Tally:
    """Kills and finishes runs of a recipe, and compares each with an undisturbed run.

    Args:
        recipe: Name of the recipe.
        kills: Total number of kills.
        seed: Seed of the random moments.
        extra_flags: More flags of the trainer.
        in_bucket: True for run directories in a bucket.
    """
    tally, rng = Tally(), random.Random(f"{seed}/{recipe}")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        if in_bucket:
            proxy = stack.enter_context(fault_proxy(stack.enter_context(bucket_server(Path(root)))))
            root = new_bucket()
        started = time.monotonic()
        subprocess.run(command(recipe, f"{root}/undisturbed", extra_flags), check=True, stdout=subprocess.DEVNULL)
        if in_bucket:
            kill = kill_at_random_request(rng, sum(map(_changes_checkpoint, proxy.requests)), proxy)
        else:
            kill = kill_at_random_time(rng, time.monotonic() - started)
        while tally.kills < kills:
            job_dir = f"{root}/run-{tally.runs}"
            tally.kills += finish(command(recipe, job_dir, extra_flags), kill, kills - tally.kills)
            tally.runs += 1
            tally.mismatches += digest(job_dir) != digest(f"{root}/undisturbed")
    return tally


def main(_: list[str]) -> None:
    """Prints one line per recipe and the total."""
    total = Tally()
    for index, recipe in enumerate(_RECIPE_FLAGS):
        kills = (_KILLS.value + index) // len(_RECIPE_FLAGS)
        tally = count(recipe, kills, _SEED.value, in_bucket=_IN_BUCKET.value)
        print(f"{recipe}: {tally.kills} kills in {tally.runs} runs, {tally.mismatches} mismatches", flush=True)
        total = Tally(*(a + b for a, b in zip(vars(total).values(), vars(tally).values(), strict=True)))
    print(f"all: {total.kills} kills in {total.runs} runs, {total.mismatches} mismatches")
    sys.exit(bool(total.mismatches))


if __name__ == "__main__":
    app.run(main)
