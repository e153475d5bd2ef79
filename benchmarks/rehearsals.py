"""Counts how often a job on several machines that loses some of them ends with other bits than an undisturbed job.

    python -m benchmarks.rehearsals --kills=10
    python -m benchmarks.rehearsals --stalls=2
    python -m benchmarks.rehearsals --preempt_every=20 --workers=0 --steps=40000

Runs `scripts/multi_worker.yaml` with small networks, a chief and `--workers` workers by `python -m trainer local`.
Random workers are killed (SIGKILL) or stopped (SIGSTOP) at random moments, or the runner preempts machines itself; the
job restarts by Vertex AI's rules. The SHA-256 over all state at the end is compared with that of one process with the
same number of mirrored devices. Requires Linux, because processes are identified by their environment in /proc.
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
from pathlib import Path

import yaml
from absl import flags as absl_flags

from benchmarks.tally import Tally, digest
from trainer.cli import app
from trainer.errors import ConfigError, TrainerError
from trainer.storage.run_directory import checkpoint_step
from trainer.training.checkpoint.manifest import MANIFEST

JOB_FILE = Path(__file__).parent.parent / "scripts/multi_worker.yaml"
_ARGS = (
    "--recipe=vanilla",
    '--architecture_options={"generator_units": [16], "discriminator_units": [16], "dropout": 0.3}',
    *("--latent_dim=8", "--global_batch_size=24", "--jit_compile=off", "--metrics=none", "--noexport_model"),
    *("--checkpoint_every_steps=100", "--sample_every_steps=0", "--ema_half_life_images=100"),
    "--worker_timeout_secs=6",
)
_TIMEOUT_SECS = 180.0


def undisturbed_digest(folder: Path, extra_flags: Sequence[str] = (), *, num_devices: int = 3) -> str:
    """Trains in one process with mirrored devices and returns the digest of the final state."""
    devices = ["--strategy=mirrored", f"--num_virtual_devices={num_devices}"]
    command = [sys.executable, "-m", "trainer.task", *_ARGS, *devices, f"--job_dir={folder}", *extra_flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return digest(folder)


class Job:
    """A job whose machines are processes on this machine.

    Args:
        folder: Run directory. The log is a file next to it.
        extra_flags: More flags of the trainer.
        options: Flags of `python -m trainer local`.
        num_workers: Number of workers besides the chief.
    """

    def __init__(
        self, folder: Path, extra_flags: Sequence[str] = (), options: Sequence[str] = (), *, num_workers: int = 2
    ):
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.log")
        content = yaml.safe_load(JOB_FILE.read_text())
        content["workerPoolSpecs"][1]["replicaCount"] = num_workers
        if not num_workers:
            del content["workerPoolSpecs"][1]
        config = folder.with_name(f"{folder.name}.yaml")
        config.write_text(yaml.safe_dump(content))
        args = f"--args=^;^{';'.join((*_ARGS, *extra_flags))}"
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
        """True until the job has ended."""
        return self._process.poll() is None

    def step(self) -> int:
        """Returns the step of the newest committed checkpoint."""
        steps = (checkpoint_step(path.parent.name) for path in self.folder.glob(f"checkpoints/*/{MANIFEST}"))
        return max((step for step in steps if step is not None), default=0)

    def restarts(self) -> int:
        """Returns how often the runner has restarted the job."""
        return self.log.read_text().count("; restarting ")

    def await_increase(self, counter: Callable[[], int]) -> bool:
        """Waits until a counter of this job, `step` or `restarts`, increases.

        Returns:
            False if the job ends first.

        Raises:
            TimeoutError: If the counter does not increase.
        """
        before, deadline = counter(), time.monotonic() + _TIMEOUT_SECS
        while counter() <= before:
            if not self.is_running:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"{counter.__name__} did not exceed {before} in {_TIMEOUT_SECS:g} s; see {self.log}")
            time.sleep(0.02)
        return True

    def send_signal(self, signal_number: signal.Signals, worker: int) -> bool:
        """Sends a signal to a worker; returns False if the worker is not running."""
        for pid, spec in self._replicas():
            if (spec["task"]["type"], spec["task"]["index"]) == ("worker", worker):
                os.kill(pid, signal_number)
                return True
        return False

    def wait(self) -> int:
        """Waits for the end of the job and returns its exit code."""
        return self._process.wait()

    def _replicas(self) -> Iterator[tuple[int, dict]]:
        """Yields process ID and TF_CONFIG of every running replica."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                environ = Path(f"/proc/{pid}/environ").read_text().split("\0")
                for entry in environ:
                    if entry.startswith("TF_CONFIG="):
                        yield int(pid), json.loads(entry.removeprefix("TF_CONFIG="))


def run_disturbed(
    folder: Path,
    signals: Sequence[signal.Signals],
    rng: random.Random,
    extra_flags: Sequence[str] = (),
    *,
    num_workers: int = 2,
) -> tuple[int, Job]:
    """Runs a job and sends signals to random workers, each at a random moment after another checkpoint.

    Args:
        folder: Run directory.
        signals: Signals to send.
        rng: Random numbers.
        extra_flags: More flags of the trainer.
        num_workers: Number of workers besides the chief.

    Returns:
        The number of signals that were sent before the job ended, and the job.

    Raises:
        RuntimeError: If the job failed.
    """
    num_sent = 0
    with Job(folder, extra_flags, ["--max_restarts=1000", "--grace_secs=5"], num_workers=num_workers) as job:
        while num_sent < len(signals) and job.await_increase(job.step):
            time.sleep(rng.uniform(0, 1))
            if job.send_signal(signals[num_sent], rng.randrange(num_workers)):
                num_sent += 1
                job.await_increase(job.restarts)
        code = job.wait()
    if code != 0:
        raise RuntimeError(f"the job exited with code {code}; see {job.log}")
    return num_sent, job


def count(signals: Sequence[signal.Signals], num_workers: int, seed: int, extra_flags: Sequence[str]) -> Tally:
    """Runs jobs until all signals are sent, and compares each job with an undisturbed run."""
    tally, rng = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        expected = undisturbed_digest(Path(root) / "undisturbed", extra_flags, num_devices=1 + num_workers)
        while tally.disturbances < len(signals):
            remaining = signals[tally.disturbances :]
            folder = Path(root) / f"job-{tally.runs}"
            num_sent, job = run_disturbed(folder, remaining, rng, extra_flags, num_workers=num_workers)
            tally.disturbances += num_sent
            tally.runs += 1
            tally.mismatches += digest(job.folder) != expected
    return tally


def count_preemptions(every_secs: float, num_workers: int, seed: int, extra_flags: Sequence[str]) -> Tally:
    """Runs a job whose machines the runner preempts, and compares it with an undisturbed run."""
    with tempfile.TemporaryDirectory() as root:
        started = time.monotonic()
        expected = undisturbed_digest(Path(root) / "undisturbed", extra_flags, num_devices=1 + num_workers)
        undisturbed_secs, started = time.monotonic() - started, time.monotonic()
        options = [f"--preempt_every_secs={every_secs:g}", f"--seed={seed}", "--max_restarts=1000"]
        with Job(Path(root) / "job", extra_flags, options, num_workers=num_workers) as job:
            code = job.wait()
        secs = time.monotonic() - started
        log = job.log.read_text().splitlines()
        if code != 0:
            raise RuntimeError("\n".join(log[-20:]))
        print(f"{undisturbed_secs:.0f} s undisturbed in one process, {secs:.0f} s in the job.")
        print(json.loads(log[-1])["message"])
        return Tally(json.loads(log[-1])["preemptions"], 1, int(digest(job.folder) != expected))


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    integer, number = absl_flags.DEFINE_integer, absl_flags.DEFINE_float
    integer("kills", 0, "Total number of workers to kill.", lower_bound=0, flag_values=values)
    integer("stalls", 0, "Total number of workers to stop.", lower_bound=0, flag_values=values)
    number("preempt_every", None, "Number of seconds between preemptions by the runner.", flag_values=values)
    integer("workers", 2, "Number of workers besides the chief.", lower_bound=0, flag_values=values)
    integer("steps", 4000, "Number of steps of each job.", lower_bound=100, flag_values=values)
    integer("seed", 0, "Seed of the moments and the workers.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints one line per kind of disturbance."""
    if not values.workers and (values.kills or values.stalls):
        raise ConfigError(
            f"kills={values.kills} and stalls={values.stalls} need a worker, but workers=0; increase --workers."
        )
    extra_flags, mismatches = [f"--steps={values.steps}"], 0
    for name, signal_number, times in (
        ("kills", signal.SIGKILL, values.kills),
        ("stalls", signal.SIGSTOP, values.stalls),
    ):
        if times:
            tally = count([signal_number] * times, values.workers, values.seed, extra_flags)
            print(f"{tally.disturbances} {name} in {tally.runs} jobs, {tally.mismatches} mismatches", flush=True)
            mismatches += tally.mismatches
    if values.preempt_every:
        tally = count_preemptions(values.preempt_every, values.workers, values.seed, extra_flags)
        print(f"{tally.disturbances} preemptions in one job, {tally.mismatches} mismatches")
        mismatches += tally.mismatches
    if mismatches:
        raise TrainerError(f"{mismatches} jobs ended with other bits than an undisturbed run.")


main = app.command(__doc__ or "", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
