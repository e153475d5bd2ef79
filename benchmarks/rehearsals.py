"""Counts how often a job of several machines that loses some of them ends with other bits than an undisturbed one.

    python -m benchmarks.rehearsals --kills=10
    python -m benchmarks.rehearsals --stalls=2
    python -m benchmarks.rehearsals --preempt_every=20 --workers=0 --steps=40000

Runs `scripts/multi_worker.yaml` with a chief and two workers (or as many as `--workers` says) by `python -m trainer
local` and small networks. Random workers are killed (SIGKILL) or made to stand still (SIGSTOP) at random moments, or
the runner takes machines away by itself; Vertex AI's rules restart the job. The SHA-256 over all state at its end is
compared with that of one process with as many mirrored devices. Needs Linux, where a process can be found by its
environment.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from absl import flags as absl_flags

from benchmarks.exact_resume import digest
from trainer.cli import app
from trainer.errors import ConfigError, TrainerError
from trainer.training.checkpoint.manifest import MANIFEST

FILE = Path(__file__).parent.parent / "scripts/multi_worker.yaml"
_ARGS = (
    "--recipe=vanilla",
    '--architecture_options={"generator_units": [16], "discriminator_units": [16], "dropout": 0.3}',
    *("--latent_dim=8", "--global_batch_size=24", "--jit_compile=off", "--metrics=none", "--noexport_model"),
    *("--checkpoint_every_steps=100", "--sample_every_steps=0", "--ema_half_life_images=100"),
    "--worker_timeout_secs=6",
)
_PATIENCE_SECS = 180.0


@dataclass
class Tally:
    """What was counted."""

    disturbances: int = 0
    jobs: int = 0
    mismatches: int = 0


def alone(folder: Path, more: Sequence[str] = (), *, num_machines: int = 3) -> str:
    """Trains in one process with as many mirrored devices as a job has machines; the digest of its end."""
    devices = ["--strategy=mirrored", f"--num_virtual_devices={num_machines}"]
    command = [sys.executable, "-m", "trainer.task", *_ARGS, *devices, f"--job_dir={folder}", *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return digest(folder)


class Job:
    """A job of several machines that runs on this one.

    Args:
        folder: Its run directory; what it prints goes to a file beside it.
        more: Flags of the trainer.
        options: Flags of `python -m trainer local`.
        num_workers: Machines beside the chief.
    """

    def __init__(self, folder: Path, more: Sequence[str] = (), options: Sequence[str] = (), *, num_workers: int = 2):
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.log")
        content = yaml.safe_load(FILE.read_text())
        content["workerPoolSpecs"][1]["replicaCount"] = num_workers
        if not num_workers:
            del content["workerPoolSpecs"][1]
        config = folder.with_name(f"{folder.name}.yaml")
        config.write_text(yaml.safe_dump(content))
        args = f"--args=^;^{';'.join((*_ARGS, *more))}"
        command = [sys.executable, "-m", "trainer", "local", f"--config={config}", f"--base_output_dir={folder}", args]
        with self.log.open("w") as log:
            self._process = subprocess.Popen([*command, *options], stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether the job has not ended."""
        return self._process.poll() is None

    def step(self) -> int:
        """The newest step that is committed."""
        found = (int(path.parent.name[len("step-") :]) for path in self.folder.glob(f"checkpoints/step-*/{MANIFEST}"))
        return max(found, default=0)

    def restarts(self) -> int:
        """How often the runner has started it again."""
        return self.log.read_text().count("; restarting ")

    def await_more(self, number: Callable[[], int]) -> bool:
        """Waits until one of this job's numbers, `step` or `restarts`, has grown; False where the job ends before.

        Raises:
            TimeoutError: It does not grow.
        """
        before, end = number(), time.monotonic() + _PATIENCE_SECS
        while number() <= before:
            if not self.is_running:
                return False
            if time.monotonic() > end:
                raise TimeoutError(f"no more than {before} {number.__name__} in {_PATIENCE_SECS:g} s; see {self.log}")
            time.sleep(0.02)
        return True

    def disturb(self, number: signal.Signals, worker: int) -> bool:
        """Sends a signal to a worker; False where it does not run."""
        for pid, spec in self._replicas():
            if (spec["task"]["type"], spec["task"]["index"]) == ("worker", worker):
                os.kill(pid, number)
                return True
        return False

    def wait(self) -> int:
        """Waits for the end; the exit code."""
        return self._process.wait()

    def _replicas(self) -> Iterator[tuple[int, dict]]:
        """Process and TF_CONFIG of every replica that runs."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                environ = Path(f"/proc/{pid}/environ").read_text().split("\0")
                for entry in environ:
                    if entry.startswith("TF_CONFIG="):
                        yield int(pid), json.loads(entry.removeprefix("TF_CONFIG="))


def disturbed(
    folder: Path,
    numbers: Sequence[signal.Signals],
    dice: random.Random,
    more: Sequence[str] = (),
    *,
    num_workers: int = 2,
) -> tuple[int, Job]:
    """Runs a job whose random workers get these signals, each at a random moment after another checkpoint.

    Returns:
        How many signals were sent before it ended, and the job.

    Raises:
        RuntimeError: It did not end well.
    """
    sent = 0
    with Job(folder, more, ["--max_restarts=1000", "--grace=5"], num_workers=num_workers) as job:
        while sent < len(numbers) and job.await_more(job.step):
            time.sleep(dice.uniform(0, 1))
            if job.disturb(numbers[sent], dice.randrange(num_workers)):
                sent += 1
                job.await_more(job.restarts)
        code = job.wait()
    if code != 0:
        raise RuntimeError(f"the job ended with status {code}; see {job.log}")
    return sent, job


def count(numbers: Sequence[signal.Signals], num_workers: int, seed: int, more: Sequence[str]) -> Tally:
    """Runs jobs until so many signals were sent, and compares each with an undisturbed one."""
    tally, dice = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        expected = alone(Path(root) / "alone", more, num_machines=1 + num_workers)
        while tally.disturbances < len(numbers):
            left = numbers[tally.disturbances :]
            folder = Path(root) / f"job-{tally.jobs}"
            sent, job = disturbed(folder, left, dice, more, num_workers=num_workers)
            tally.disturbances += sent
            tally.jobs += 1
            tally.mismatches += digest(job.folder) != expected
    return tally


def preempted(every_secs: float, num_workers: int, seed: int, more: Sequence[str]) -> Tally:
    """Runs a job whose machines the runner itself takes away, and compares it with an undisturbed one."""
    with tempfile.TemporaryDirectory() as root:
        started = time.monotonic()
        expected = alone(Path(root) / "alone", more, num_machines=1 + num_workers)
        undisturbed_secs, started = time.monotonic() - started, time.monotonic()
        options = [f"--preempt_every={every_secs:g}", f"--seed={seed}", "--max_restarts=1000"]
        with Job(Path(root) / "job", more, options, num_workers=num_workers) as job:
            code = job.wait()
        secs = time.monotonic() - started
        told = job.log.read_text().splitlines()
        if code != 0:
            raise RuntimeError("\n".join(told[-20:]))
        print(f"{undisturbed_secs:.0f} s in one process undisturbed, {secs:.0f} s in the job.")
        print(json.loads(told[-1])["message"])
        return Tally(json.loads(told[-1])["preemptions"], 1, int(digest(job.folder) != expected))


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    whole, number = absl_flags.DEFINE_integer, absl_flags.DEFINE_float
    whole("kills", 0, "How many workers are killed in all.", lower_bound=0, flag_values=values)
    whole("stalls", 0, "How many workers are made to stand still in all.", lower_bound=0, flag_values=values)
    number("preempt_every", None, "Seconds between preemptions of the runner's own.", flag_values=values)
    whole("workers", 2, "Machines beside the chief.", lower_bound=0, flag_values=values)
    whole("steps", 4000, "Of each job.", lower_bound=100, flag_values=values)
    whole("seed", 0, "Of the moments and the workers.", flag_values=values)


def act(values: absl_flags.FlagValues) -> None:
    """Prints a line for each kind of disturbance."""
    if not values.workers and (values.kills or values.stalls):
        raise ConfigError("kills and stalls need a worker; raise --workers.")
    more, mismatches = [f"--steps={values.steps}"], 0
    for name, number, wanted in (("kills", signal.SIGKILL, values.kills), ("stalls", signal.SIGSTOP, values.stalls)):
        if wanted:
            tally = count([number] * wanted, values.workers, values.seed, more)
            print(f"{tally.disturbances} {name} in {tally.jobs} jobs, {tally.mismatches} mismatches", flush=True)
            mismatches += tally.mismatches
    if values.preempt_every:
        tally = preempted(values.preempt_every, values.workers, values.seed, more)
        print(f"{tally.disturbances} preemptions in one job, {tally.mismatches} mismatches")
        mismatches += tally.mismatches
    if mismatches:
        raise TrainerError(f"{mismatches} jobs ended with other bits than an undisturbed one.")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return app.run(argv, __doc__ or "", define, act)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
