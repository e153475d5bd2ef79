"""Compares the training speed of this package with other implementations of the same GAN on the same machine.

    python -m benchmarks.throughput                                   all cases, about 30 minutes on two cores
    python -m benchmarks.throughput --cases=small --rounds=15         one case with more rounds
    python -m benchmarks.throughput --precisions=float32              all contenders in float32
    python -m benchmarks.throughput --cases=small --checkpoint        with the cost of checkpoints
    python -m benchmarks.throughput --peers=tf,keras --json=out.json  without PyTorch; all rounds in a file

Contenders: `tf` is a plain TensorFlow loop like the tutorial's. `keras` is Keras's `fit` with an overridden
`train_step`, the faster of XLA on and off. `torch` is PyTorch, the fastest of its memory formats and optimizer forms,
then the faster of eager and `torch.compile`, which needs a C++ compiler. Each contender, this package included, also
chooses the faster precision of `--precisions`. The column `variant` shows the form that won, and the file of `--json`
the speed of all of them in a trial. Only `torch` takes part in the case `stylegan2`.

All train networks of the same shapes (the number of weights is compared) with the same batch size, loss, optimizer and
phases on the same images, without augmentation, EMA and schedules. Each runs in its own process. Contenders take turns
in alternating order, so that noise of the machine affects all of them. A round in which other programs used the
processor is repeated. Waiting contenders block on their input; the last line of a case reports how idle they were.

- `images/s`: median over rounds, without compilation and warm-up. `best`: the best round. `spread`: interquartile range
  over median.
- `ours/it`: median over rounds of the ratio within a round. A value above 1 means that this package is faster.
- `ratio to the best`: our median over that of the best peer, then our best round over the best round of any peer.
- `constant input`: speed of our step with data gather and shuffle, over that of the same step on one constant batch. A
  value of 1 means that the input costs nothing.
- `bare products`: share of our step that its convolutions and matrix products take; see `products.py`. The case
  `stylegan2` has no such line, because its layers are not subclasses of Keras's.
- `checkpoint`: relative cost of a checkpoint every 200 steps, including the wait for the last one.
"""

import dataclasses
import functools
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import flags as absl_flags

from benchmarks import cases
from benchmarks.contenders import Worker, busy_seconds
from benchmarks.machine import is_installed, machine_facts
from benchmarks.peers import cpp_compiler
from trainer.cli import app
from trainer.errors import ConfigError, count_of, quote
from trainer.registry import check_known

_PRECISIONS = ("float32", "bfloat16")
_PATIENCE_SECS = 60.0
_NUM_ATTEMPTS = 3


def describe_machine() -> str:
    """Returns processor, number of cores and versions."""
    cpu, cores, *versions = machine_facts("keras", "torch").items()
    return f"{cpu[1]}, {count_of(cores[1], 'core')}, {', '.join(f'{name} {version}' for name, version in versions)}"


def measure(name: str, peers: list[str], values: absl_flags.FlagValues) -> dict[str, Any]:
    """Runs one case and prints its part of the table.

    Args:
        name: Name of the case.
        peers: Names of the peers, of which those that do not implement the case are omitted.
        values: Flags of the command.

    Returns:
        `contenders` by name (label, trials, turns), `products`, `disturbed` (number of repeated rounds) and, if
        requested, `checkpoint` (cost of each pair of runs).
    """
    case = cases.get(name)
    own_peers = [peer for peer in peers if peer in case.peers]
    num_steps = 0 if values.steps == "auto" else int(values.steps)
    with tempfile.TemporaryDirectory() as folder:
        case.save(Path(folder))

        def start(contender: str, precisions: list[str]) -> Worker:
            settings = case.batch_size, precisions, values.round_seconds, num_steps, case.steps_per_cycle
            return Worker(contender, Path(folder), *settings)

        workers = [start(contender, values.precisions) for contender in ("ours", *own_peers)]
        workers.append(start("ours-constant", [workers[0].precision]))
        _check_parameters(workers)
        result: dict[str, Any] = {"case": name, "disturbed": _run_rounds(workers, values)}
        result["contenders"] = {
            worker.name: {
                "label": worker.label,
                "trials": worker.trials,
                "omitted": worker.omitted,
                "turns": [dataclasses.asdict(turn) for turn in worker.turns],
            }
            for worker in workers
        }
        _print_rows(name, workers[:-1])
        result["products"] = _products(workers, values.quiet)
        if values.checkpoint:
            result["checkpoint"] = _checkpoint_cost(workers[0], Path(folder), case.batch_size, values)
        for worker in workers:
            worker.close()
    _print_summary(result, values.checkpoint_steps)
    return result


def _check_parameters(workers: list[Worker]) -> None:
    ours = workers[0].num_parameters
    for worker in workers:
        if worker.num_parameters != ours:
            raise RuntimeError(f"{worker.name} has {worker.num_parameters} weights, but ours has {ours}.")


def _run_rounds(workers: list[Worker], values: absl_flags.FlagValues) -> int:
    """Runs all turns and repeats rounds that other programs disturbed; returns the number of repeated rounds."""
    num_repeated = 0
    for number in range(values.rounds):
        while True:
            order = workers if number % 2 == 0 else workers[::-1]
            turns = {worker: worker.take_turn([other for other in workers if other is not worker]) for worker in order}
            if max(turn.foreign_cores for turn in turns.values()) <= values.quiet or num_repeated >= values.retakes:
                break
            num_repeated += 1
            _wait_for_quiet(values.quiet)
        for worker, turn in turns.items():
            worker.turns.append(turn)
    return num_repeated


def _products(workers: list[Worker], quiet_cores: float) -> dict[str, Any]:
    """Returns the result of `products.measure` from the least disturbed of a few attempts.

    Args:
        workers: Contenders, this package first.
        quiet_cores: Number of cores that other programs may use in the last attempt.
    """
    attempts = []
    for _ in range(_NUM_ATTEMPTS):
        reply, *_, foreign_cores = workers[0].measured_request(workers[1:], products=max(1, workers[0].num_steps // 8))
        attempts.append((foreign_cores, reply))
        if foreign_cores <= quiet_cores:
            break
        _wait_for_quiet(quiet_cores)
    return min(attempts, key=lambda attempt: attempt[0])[1]


def _checkpoint_cost(
    ours: Worker, folder: Path, batch_size: int, values: absl_flags.FlagValues
) -> list[dict[str, float]]:
    """Returns the relative cost of checkpoints and the cores of other programs for each pair of runs."""
    saving = Worker("ours-checkpoint", folder, batch_size, [ours.precision], values.round_seconds)
    costs: list[dict[str, float]] = []
    for number in range(values.checkpoint_rounds):
        _wait_for_quiet(values.quiet)
        pair = (ours, saving) if number % 2 == 0 else (saving, ours)
        replies = {worker: worker.measured_request([], steps=values.checkpoint_steps) for worker in pair}
        seconds = {worker: reply["seconds"] for worker, (reply, *_) in replies.items()}
        foreign_cores = max(cores for *_, cores in replies.values())
        costs.append({"cost": seconds[saving] / seconds[ours] - 1.0, "foreign_cores": foreign_cores})
    saving.close()
    return costs


def _wait_for_quiet(quiet_cores: float) -> None:
    deadline = time.monotonic() + _PATIENCE_SECS
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(2.0)
        if (busy_seconds() - before) / 2.0 <= quiet_cores:
            return


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(own / other for own, other in zip(ours, theirs, strict=True))


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def _print_rows(case: str, workers: list[Worker]) -> None:
    ours = workers[0].speeds
    for worker in workers:
        speeds = worker.speeds
        print(
            f"{case:<11} {worker.name:<6} {statistics.median(speeds):>9,.0f} {max(speeds):>7,.0f} "
            f"{_spread(speeds):>7.1%} {_median_ratio(ours, speeds):>8.3f}  {worker.label}",
            flush=True,
        )
        for label, reason in worker.omitted.items():
            print(f"            omitted, because it cannot run: {label}: {reason}", flush=True)


def _print_summary(result: dict[str, Any], checkpoint_steps: int) -> None:
    turns = {name: contender["turns"] for name, contender in result["contenders"].items()}
    speeds = {name: [turn["images_per_sec"] for turn in own_turns] for name, own_turns in turns.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    peers = [name for name in medians if not name.startswith("ours")]
    if peers:
        best = max(peers, key=medians.__getitem__)
        tops = {name: max(values) for name, values in speeds.items()}
        print(
            f"            ratio to the best ({best}): {medians['ours'] / medians[best]:.3f}, "
            f"of best rounds {tops['ours'] / max(tops[peer] for peer in peers):.3f}"
        )
    print(f"            constant input: {_median_ratio(speeds['ours'], speeds['ours-constant']):.3f}")
    products = result["products"]
    if "ours" in products:
        print(
            f"            bare products: {products['ours']['share']:.3f} of a step of "
            f"{1e3 * products['seconds_per_step']:.1f} ms (with Keras's own kernels {products['plain']['share']:.3f})"
        )
    if "checkpoint" in result:
        costs = [pair["cost"] for pair in result["checkpoint"]]
        details = ", ".join(f"{pair['cost']:+.1%} with {pair['foreign_cores']:.2f}" for pair in result["checkpoint"])
        print(
            f"            checkpoint every 200 of {checkpoint_steps} steps: {statistics.median(costs):+.1%} "
            f"({details} cores used by other programs)"
        )
    all_turns = [turn for own_turns in turns.values() for turn in own_turns]
    print(
        "            cores used by waiting contenders: "
        f"{max(turn['waiting_cores'] for turn in all_turns):.2f} at most; "
        f"by other programs: {statistics.median(turn['foreign_cores'] for turn in all_turns):.2f}, "
        f"{max(turn['foreign_cores'] for turn in all_turns):.2f} at most; {result['disturbed']} rounds repeated",
        flush=True,
    )


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    integer = functools.partial(absl_flags.DEFINE_integer, flag_values=values)
    number = functools.partial(absl_flags.DEFINE_float, flag_values=values)
    names = functools.partial(absl_flags.DEFINE_list, flag_values=values)
    names("cases", list(cases.CASES), f"Cases to measure, from {', '.join(cases.CASES)}.")
    names("peers", list(cases.PEERS), "Peers to measure; torch is omitted if it is not installed.")
    names("precisions", list(_PRECISIONS), "Precisions that contenders choose from.")
    integer("rounds", 7, "Number of turns of every contender.", lower_bound=1)
    absl_flags.DEFINE_string(
        "steps", "auto", "Steps per turn; auto for as many as fit into --round_seconds.", flag_values=values
    )
    number("round_seconds", 2.5, "Length of a turn in seconds, or more for lazy penalties.", lower_bound=0.1)
    number("quiet", 0.2, "Cores that other programs may use in a turn before its round is repeated.")
    integer("retakes", 20, "Maximum number of repeated rounds per case.", lower_bound=0)
    absl_flags.DEFINE_bool("checkpoint", False, "Also measure the cost of checkpoints.", flag_values=values)
    integer("checkpoint_steps", 600, "Steps of a run with checkpoints.", lower_bound=200)
    integer("checkpoint_rounds", 3, "Number of runs with and without checkpoints.", lower_bound=1)
    absl_flags.DEFINE_string(
        "json", None, "JSON file for all results, including those of every round.", flag_values=values
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Measures the requested cases."""
    peers = [peer for peer in values.peers if peer != "torch" or is_installed("torch")]
    for kind, names, known in (
        ("case", values.cases, cases.CASES),
        ("peer", peers, cases.PEERS),
        ("precision", values.precisions, _PRECISIONS),
    ):
        for name in names:
            check_known(kind, name, known)
    if not values.precisions:
        raise ConfigError(f"precisions is empty; choose from {', '.join(_PRECISIONS)}.")
    if not re.fullmatch("auto|[1-9][0-9]{0,8}", values.steps):
        raise ConfigError(f"steps={quote(values.steps)} is not a number of steps; pass one, or auto.")
    print(describe_machine())
    if "torch" in peers and cpp_compiler() is None:
        print("torch.compile is omitted: it needs a C++ compiler; install g++ or set CXX.")
    print(f"{'case':<11} {'name':<6} {'images/s':>9} {'best':>7} {'spread':>7} {'ours/it':>8}  variant", flush=True)
    results = [measure(name, peers, values) for name in values.cases]
    if values.json:
        Path(values.json).write_text(json.dumps({"machine": describe_machine(), "cases": results}, indent=1) + "\n")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
