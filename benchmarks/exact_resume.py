"""Counts how often a killed and resumed run ends with other bits than an undisturbed run, or leaves other files.

    python -m benchmarks.exact_resume --kills=200
    python -m benchmarks.exact_resume --kills=30 --in_bucket
    python -m benchmarks.exact_resume --kills=5 --only=cyclegan,streams

Each run is killed with SIGKILL at a random moment and started again, until it finishes. Then the SHA-256 over all state
(weights, batch-norm moments, optimizers, EMA, image pools, counters) is compared with that of an undisturbed run, and
so are the names of the files in the run directory. The folder for temporary files must be empty. The networks are
small; checkpoints are written every 20 steps.

With `--in_bucket` the run directory is in a bucket of a server on this machine, and runs are killed while a file of a
checkpoint is uploaded, its manifest is written, or an old checkpoint is deleted.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags as absl_flags
from PIL import Image

from benchmarks.tally import Tally, digest
from trainer.cli import app
from trainer.errors import TrainerError
from trainer.registry import check_known
from trainer.storage import locate
from trainer.testing.bucket_server import bucket_server, new_bucket
from trainer.testing.fault_proxy import Fault, FaultProxy, ProxiedRequest, fault_proxy, no_faults

_COMMON = [
    "--metrics=none",
    "--noexport_model",
    "--checkpoint_every_steps=20",
    "--sample_every_steps=100",
    "--ema_half_life_images=1000",
    "--global_batch_size=32",
]
_DENSE = [
    "--recipe=vanilla",
    "--steps=1500",
    '--architecture_options={"generator_units": [64, 128], "discriminator_units": [128, 64], "dropout": 0.3}',
]
_CONVOLUTIONS = {"generator_filters": [16, 8], "generator_strides": [2, 2], "discriminator_filters": [8, 16]}
_TRANSLATOR = {"generator_filters": 4, "discriminator_filters": 4, "depth": 2, "discriminator_layers": 1}
_DATASET = "DATASET"
"""Stands for a prepared set of two classes of different sizes, in several shards."""


def _convolutional(**options: object) -> list[str]:
    return ["--recipe=dcgan", "--steps=400", f"--architecture_options={json.dumps(_CONVOLUTIONS | options)}"]


KINDS = {
    "vanilla": _DENSE,
    "dcgan": [*_convolutional(dropout=0.3, discriminator_batch_norm="all"), "--precision=float32"],
    "spectral_norm": _convolutional(spectral_norm=True),
    "r1_r2_every_third": [*_DENSE, "--penalties=r1,r2", "--penalty_every_steps=3"],
    "ada": [*_DENSE, "--augment=ada", "--augment_probability=none"],
    "infogan": [*_DENSE, "--model=infogan", '--model_options={"num_categories": 10, "num_continuous": 2}'],
    "cyclegan": [
        *("--recipe=cyclegan", "--steps=120", "--architecture=unet_translator", "--global_batch_size=4"),
        *(f"--architecture_options={json.dumps(_TRANSLATOR)}", '--model_options={"pool_size": 20}'),
    ],
    "wgan_gp": [*_DENSE, "--loss=wasserstein", "--penalties=gradient_penalty", "--discriminator_repeats=3"],
    "schedules": [
        *(*_DENSE, "--learning_rate_decay=linear", "--beta_2_end=0.9", "--penalties=r1", "--penalty_weight_end=1"),
        *("--ema_schedule=cosine", "--ema_half_life_images=1000", "--augment=diffaugment", "--optimizer=adam"),
        "--augment_probability_end=0.1",
    ],
    "streams": [*_DENSE, f"--dataset={_DATASET}", "--num_chunks=3", "--horizontal_flips", "--balance_classes"],
    "bfloat16": [*_convolutional(dropout=0.3, discriminator_batch_norm="all"), "--precision=bfloat16"],
    "two_replicas": [*_DENSE, "--strategy=mirrored", "--num_virtual_devices=2"],
    "xla": [*_DENSE, "--jit_compile=on"],
    "divergence": ["--recipe=benchmarks.diverging_recipe:diverging", *_DENSE[1:]],
}
"""Flags of each kind of run."""

Killer = Callable[[subprocess.Popen], bool]
"""Waits for a process and kills it at some moment; returns whether it did so before the process ended."""


def command(kind: str, job_dir: str, dataset: Path, extra_flags: tuple[str, ...] = ()) -> list[str]:
    """Returns the command line of a run. `dataset` is the folder of the prepared set."""
    kind_flags = [flag.replace(_DATASET, str(dataset)) for flag in KINDS[kind]]
    return [sys.executable, "-m", "trainer.task", f"--job_dir={job_dir}", *_COMMON, *kind_flags, *extra_flags]


def prepare(folder: Path) -> None:
    """Writes a prepared set of 96 images in two classes."""
    pictures = folder.with_name("pictures")
    for number in range(96):
        path = pictures / ("a" if number % 4 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    arguments = [f"--source={pictures}", f"--out={folder}", "--image_size=16", "--num_workers=1", "--shard_mib=0.005"]
    subprocess.run([sys.executable, "-m", "trainer", "prepare", *arguments], check=True, stdout=subprocess.DEVNULL)


def files(job_dir: str | Path) -> set[str]:
    """Returns the names of all files of a run except event files, whose names differ in every process."""
    names = {entry.name for entry in locate(job_dir).entries()}
    return {name for name in names if not name.startswith("logs/events.out.tfevents.")}


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


def finish(training_command: list[str], kill: Killer, max_kills: int, scratch: Path) -> int:
    """Restarts a command until it finishes, and kills it up to `max_kills` times.

    Args:
        training_command: Command line.
        kill: Waits for a process and kills it.
        max_kills: Largest number of kills.
        scratch: Folder for temporary files.

    Returns:
        The number of kills.

    Raises:
        RuntimeError: If the command fails.
    """
    num_kills = 0
    while True:
        environment = {**os.environ, "TMPDIR": str(scratch)}
        with subprocess.Popen(training_command, stdout=subprocess.DEVNULL, env=environment) as process:
            if num_kills < max_kills and kill(process):
                num_kills += 1
                continue
            if process.wait() != 0:
                raise RuntimeError(f"{' '.join(training_command)} exited with code {process.returncode}.")
            return num_kills


def count(kind: str, kills: int, seed: int, extra_flags: tuple[str, ...] = (), in_bucket: bool = False) -> Tally:
    """Kills and finishes runs of a kind, and compares each with an undisturbed run.

    Args:
        kind: Name in `KINDS`.
        kills: Total number of kills.
        seed: Seed of the random moments.
        extra_flags: More flags of the trainer.
        in_bucket: True for run directories in a bucket.
    """
    tally, rng = Tally(), random.Random(f"{seed}/{kind}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch, dataset, root = folder / "scratch", folder / "dataset", str(folder)
        scratch.mkdir()
        if any(_DATASET in flag for flag in KINDS[kind]):
            prepare(dataset)
        if in_bucket:
            proxy = stack.enter_context(fault_proxy(stack.enter_context(bucket_server(folder))))
            root = new_bucket()
        started, undisturbed = time.monotonic(), f"{root}/undisturbed"
        subprocess.run(command(kind, undisturbed, dataset, extra_flags), check=True, stdout=subprocess.DEVNULL)
        if in_bucket:
            kill = kill_at_random_request(rng, sum(map(_changes_checkpoint, proxy.requests)), proxy)
        else:
            kill = kill_at_random_time(rng, time.monotonic() - started)
        while tally.disturbances < kills:
            job_dir = f"{root}/run-{tally.runs}"
            training_command = command(kind, job_dir, dataset, extra_flags)
            tally.disturbances += finish(training_command, kill, kills - tally.disturbances, scratch)
            tally.runs += 1
            tally.mismatches += digest(job_dir) != digest(undisturbed)
            leftovers = sorted(files(job_dir) - files(undisturbed)) + sorted(map(str, scratch.iterdir()))
            tally.leftovers += len(leftovers)
            for name in leftovers:
                print(f"{kind}: leftover {name}", file=sys.stderr)
            shutil.rmtree(scratch)
            scratch.mkdir()
    return tally


def _sentence(tally: Tally) -> str:
    kills = f"{tally.disturbances} kills in {tally.runs} runs"
    return f"{kills}, {tally.mismatches} mismatches, {tally.leftovers} leftover files"


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_integer(
        "kills", 50, "Total number of kills over all kinds of run.", lower_bound=1, flag_values=values
    )
    absl_flags.DEFINE_integer("seed", 0, "Seed of the random moments.", flag_values=values)
    absl_flags.DEFINE_bool(
        "in_bucket", False, "Kill runs while they write checkpoints to a bucket.", flag_values=values
    )
    absl_flags.DEFINE_list("only", [], "Kinds of run, separated by commas; empty for all.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints one line per kind of run, and the total."""
    for kind in values.only:
        check_known("kind of run", kind, KINDS)
    total, kinds = Tally(), values.only or list(KINDS)
    for index, kind in enumerate(kinds):
        kills = (values.kills + index) // len(kinds)
        if kills:
            tally = count(kind, kills, values.seed, in_bucket=values.in_bucket)
            print(f"{kind}: {_sentence(tally)}", flush=True)
            total += tally
    print(f"all: {_sentence(total)}")
    if total.mismatches or total.leftovers:
        raise TrainerError(f"{total.mismatches} runs ended with other bits, and {total.leftovers} files were left.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
