"""Starts pairs of processes on one run directory, kills them at random moments, and counts lost checkpoints.

    python -m benchmarks.lease --pairs=100
    python -m benchmarks.lease --pairs=100 --in_bucket
    python -m benchmarks.lease --trainers=10

The two processes of a pair start at random offsets, some of them with different seeds, and are killed (SIGKILL) or
paused (SIGSTOP) at random moments. Processes that were killed start again. At the end, one more process finishes the
run. The state at the end must be that of one process alone with the seed of the run, and each committed checkpoint
must follow the previous one.

With `--pairs`, the processes are programs without TensorFlow that use the run directory and its lease like the trainer;
their state is a chain of hashes. In a bucket of a server on this machine, each process takes itself for another
machine, and leases expire after a second. With `--trainers`, they are trainers with small networks.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from absl import flags as absl_flags

from benchmarks.tally import digest
from trainer.cli import app
from trainer.errors import ConfigError, TrainerError, count_of
from trainer.storage import RunDirectory, is_remote, lease, lease_owner, locate
from trainer.storage.base import Location
from trainer.storage.run_directory import CHECKPOINTS, CONFIG, checkpoint_name, checkpoint_step
from trainer.testing.bucket_server import bucket_server, new_bucket

NUM_STEPS, EVERY_STEPS, NUM_KEPT, STEP_SECS = 40, 4, 2, 0.02
_BUCKET_TIMES = {
    "RENEWAL_SECS": 0.2,
    "EXPIRY_SECS": 1.0,
    "_OBSERVATION_SECS": 0.5,
    "_BUCKET_POLL_SECS": 0.1,
}
_TRAINER_FLAGS = (
    *("--recipe=vanilla", "--dataset=digits", "--metrics=none", "--noexport_model", "--jit_compile=off"),
    '--architecture_options={"generator_units": [16], "discriminator_units": [16], "dropout": 0.3}',
    *("--global_batch_size=16", "--steps=4000", "--checkpoint_every_steps=100", "--sample_every_steps=0"),
)


@dataclass
class PairCounts:
    """Counts of pairs, of signals, and of refused processes; and a sentence for each failure."""

    pairs: int = 0
    kills: int = 0
    pauses: int = 0
    refusals: int = 0
    failures: list[str] = field(default_factory=list)


def state_after(step: int, seed: int) -> str:
    """Returns the state of a program after a number of steps."""
    state = str(seed)
    for number in range(step):
        state = hashlib.sha256(f"{state} {number}".encode()).hexdigest()
    return state


def run_program(job_dir: str, seed: int, journal: Path, *, waits: bool) -> None:
    """Runs a program without TensorFlow that writes a run directory like the trainer.

    Args:
        job_dir: Run directory.
        seed: Seed of the run.
        journal: File that receives a line after each committed checkpoint.
        waits: Whether to wait for the lease.

    Raises:
        ConfigError: If the directory has a run of another seed.
        LeaseError: If another program writes the directory.
    """
    if is_remote(job_dir):
        for name, value in _BUCKET_TIMES.items():
            setattr(lease, name, value)
        lease_owner._machine = lambda: f"machine {os.getpid()}"
    with RunDirectory(job_dir).hold_lease(waits=waits) as own_lease:
        _train(locate(job_dir), seed, journal, own_lease)


def _train(root: Location, seed: int, journal: Path, own_lease: lease.Lease) -> None:
    config, checkpoints = root / CONFIG, root / CHECKPOINTS
    if config.exists() and json.loads(config.read_bytes())["seed"] != seed:
        raise ConfigError(f"seed={seed} is not that of the run in {root}; use the same seed, or another directory.")
    own_lease.verify()
    config.write_bytes(json.dumps({"seed": seed}).encode())
    step = max(_steps(checkpoints), default=0)
    state = (checkpoints / checkpoint_name(step)).read_bytes().decode() if step else str(seed)
    while step < NUM_STEPS:
        own_lease.verify(math.inf)
        time.sleep(STEP_SECS)
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        step += 1
        if step % EVERY_STEPS == 0:
            own_lease.verify()
            (checkpoints / checkpoint_name(step)).write_bytes(state.encode(), only_new=True)
            with journal.open("a") as file:
                file.write(f"{step}\n")
            checkpoints.delete([checkpoint_name(old) for old in _steps(checkpoints)[:-NUM_KEPT]])


def _steps(checkpoints: Location) -> list[int]:
    steps = (checkpoint_step(entry.name) for entry in checkpoints.entries(recursive=False))
    return sorted(step for step in steps if step is not None)


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def disturb(commands: Sequence[Sequence[str]], secs: float, rng: random.Random, tally: PairCounts) -> None:
    """Starts each command at a random moment, and sends signals to the processes until the time has passed.

    Args:
        commands: Arguments of the interpreter, one command per process.
        secs: Number of seconds.
        rng: Random numbers.
        tally: Counts to which the signals and refusals are added.
    """
    end = time.monotonic() + secs
    starts = [time.monotonic() + rng.uniform(0, secs / 4) for _ in commands]
    processes: list[subprocess.Popen[bytes] | None] = [None] * len(commands)
    paused: set[int] = set()
    while time.monotonic() < end:
        time.sleep(rng.uniform(0, 0.1))
        for index, process in enumerate(processes):
            if process is None or process.poll() is not None:
                if time.monotonic() >= starts[index]:
                    tally.refusals += process is not None and process.returncode == 1
                    processes[index] = _start(commands[index])
                    starts[index] = time.monotonic() + rng.uniform(0, secs / 8)
                paused.discard(index)
            elif index in paused:
                if rng.random() < 0.05:
                    process.send_signal(signal.SIGCONT)
                    paused.discard(index)
            elif rng.random() < 0.3 / secs:
                tally.pauses += 1
                process.send_signal(signal.SIGSTOP)
                paused.add(index)
            elif rng.random() < 0.6 / secs:
                tally.kills += 1
                process.kill()
                process.wait()
    remaining = [process for process in processes if process is not None]
    for process in remaining:  # all of them, because one may wait for the lease of a paused one
        process.send_signal(signal.SIGCONT)
    for process in remaining:
        if rng.random() < 0.5:
            process.kill()
            tally.kills += 1
        process.wait()


def check_pair_of_programs(job_dir: str, folder: Path, rng: random.Random, tally: PairCounts) -> None:
    """Runs one pair of programs, and adds its counts and failures to a tally.

    Args:
        job_dir: Run directory.
        folder: Local folder for the journal.
        rng: Random numbers.
        tally: Counts.
    """
    journal, seeds = folder / "journal", (0, rng.choice((0, 1)))
    journal.touch()

    def command(seed: int, waits: bool) -> list[str]:
        return ["-m", "benchmarks.lease", f"--program={job_dir}", f"--seed={seed}", f"--journal={journal}"] + (
            ["--waits"] if waits else []
        )

    disturb([command(seed, rng.random() < 0.5) for seed in seeds], 6.0, rng, tally)
    codes = [subprocess.run([sys.executable, *command(seed, True)], check=False).returncode for seed in set(seeds)]
    root = locate(job_dir)
    seed = json.loads((root / CONFIG).read_bytes())["seed"]
    steps = [int(line) for line in journal.read_text().split()]
    state = (root / CHECKPOINTS / checkpoint_name(NUM_STEPS)).read_bytes().decode()
    if state != state_after(NUM_STEPS, seed):
        tally.failures.append(f"{job_dir} ends with other bits.")
    if steps != sorted(set(steps)):
        tally.failures.append(f"{job_dir} has lost a checkpoint: {steps}.")
    if 0 not in codes or (root / lease.LEASE).exists():
        tally.failures.append(f"{job_dir} has the exit codes {codes}, or its lease was not deleted.")
    tally.pairs += 1


def check_pair_of_trainers(folder: Path, expected: Sequence[str], rng: random.Random, tally: PairCounts) -> None:
    """Runs one pair of trainers, and adds its counts and failures to a tally.

    Args:
        folder: Local folder for the run directory.
        expected: Digest of the state of an undisturbed run, by seed.
        rng: Random numbers.
        tally: Counts.
    """
    job_dir, seeds = folder / "run", (0, rng.choice((0, 1)))

    def command(seed: int) -> list[str]:
        return ["-m", "trainer.task", *_TRAINER_FLAGS, f"--job_dir={job_dir}", f"--seed={seed}"]

    disturb([command(seed) for seed in seeds], 40.0, rng, tally)
    codes = [subprocess.run([sys.executable, *command(seed)], check=False).returncode for seed in set(seeds)]
    seed = json.loads((job_dir / CONFIG).read_text())["seed"]
    if 0 not in codes or digest(job_dir) != expected[seed]:
        tally.failures.append(f"{job_dir} with the seeds {seeds} ends with the exit codes {codes} or other bits.")
    tally.pairs += 1


def run_pairs(num_pairs: int, folder: Path, seed: int, *, in_bucket: bool) -> PairCounts:
    """Runs pairs of programs, and returns their tally.

    Args:
        num_pairs: Number of pairs.
        folder: Local folder for all files.
        seed: Seed of the random moments.
        in_bucket: Whether the run directories are in a bucket. Its server must be running.
    """
    tally, rng = PairCounts(), random.Random(seed)
    bucket = new_bucket() if in_bucket else ""
    for number in range(num_pairs):
        pair = folder / f"pair-{number}"
        pair.mkdir()
        check_pair_of_programs(f"{bucket or pair}/run", pair, rng, tally)
    return tally


def _report(kind: str, tally: PairCounts) -> None:
    print(
        f"{tally.pairs} pairs of {kind}, {tally.kills} kills, {tally.pauses} pauses, {tally.refusals} refusals, "
        f"{len(tally.failures)} failures",
        *tally.failures,
        sep="\n",
    )


def run_trainers(num_pairs: int, folder: Path, seed: int) -> PairCounts:
    """Runs pairs of trainers, and returns their tally. The arguments are those of `run_pairs`."""
    tally, expected = PairCounts(), []
    for run_seed in (0, 1):
        command = ["-m", "trainer.task", *_TRAINER_FLAGS, f"--job_dir={folder}/{run_seed}", f"--seed={run_seed}"]
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        expected.append(digest(folder / str(run_seed)))
    for number in range(num_pairs):
        pair = folder / f"trainers-{number}"
        pair.mkdir()
        check_pair_of_trainers(pair, expected, random.Random(seed + number), tally)
    return tally


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_integer(
        "pairs", 0, "Number of pairs of programs without TensorFlow.", lower_bound=0, flag_values=values
    )
    absl_flags.DEFINE_integer("trainers", 0, "Number of pairs of trainers.", lower_bound=0, flag_values=values)
    absl_flags.DEFINE_bool("in_bucket", False, "Put the run directories of programs into a bucket.", flag_values=values)
    absl_flags.DEFINE_integer("seed", 0, "Seed of the random moments, or of the run of a program.", flag_values=values)
    absl_flags.DEFINE_string(
        "program", None, "Run directory of a program; for the processes of a pair.", flag_values=values
    )
    absl_flags.DEFINE_string("journal", None, "File for the committed steps of a program.", flag_values=values)
    absl_flags.DEFINE_bool("waits", False, "Let a program wait for its lease.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Runs the pairs, or one program."""
    if values.program is not None and values.journal is not None:
        return run_program(values.program, values.seed, Path(values.journal), waits=values.waits)
    num_failures = 0
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        folder = Path(root)
        if values.pairs and values.in_bucket:
            stack.enter_context(bucket_server(folder))
        for kind, run, count in (
            ("programs", functools.partial(run_pairs, in_bucket=values.in_bucket), values.pairs),
            ("trainers", run_trainers, values.trainers),
        ):
            if count:
                tally = run(count, folder, values.seed)
                _report(kind, tally)
                num_failures += len(tally.failures)
    if num_failures:
        raise TrainerError(f"{count_of(num_failures, 'check')} failed.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
