"""Checks and measures training on the accelerators of this machine: equality with the CPU, speed, and memory.

    python -m benchmarks.gpu                                               all checks, about 15 minutes on one GPU
    python -m benchmarks.gpu --cases=photos --seconds=3 --nopeers      a short look at one case
    python -m benchmarks.gpu --json=gs://BUCKET/gpu.json               with the results in a file

For each case of `benchmarks.cases`, every variant trains the same networks on the same data: one device and all devices
of the machine, float32 and bfloat16, XLA off and on. Without GPUs, it runs the same checks on the CPU's devices.

- `losses`: largest relative difference between the losses of the first step and those of the CPU in float32. Weights,
  batch and random numbers of that step are the same. XLA draws other normal numbers, so variants with XLA are compared
  with XLA on the CPU. GPUs multiply float32 in TensorFloat-32, so `--tolerance_float32` is 0.01 by default.
- `images`: mean difference between 50 images of the initial generator and those of the CPU, of 255.
- `images/s`: speed over `--seconds`, after compilation.
- `memory`: peak of TensorFlow's allocator, the largest of the devices; of the whole process on a CPU.

The exit code is 1 if a variant fails, or differs by more than the tolerance. `torch` is the same case in PyTorch on the
first GPU, if PyTorch is installed.
"""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import flags as absl_flags

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.contenders import Worker
from benchmarks.machine import gpu_facts, is_installed, machine_facts
from benchmarks.markdown import MISSING, number, table
from trainer.cli import app
from trainer.errors import TrainerError
from trainer.registry import check_known
from trainer.storage import locate

_WARM_UP_STEPS = 3
_NUM_IMAGES = 50
_IMAGE_TOLERANCE = 2.0
_HEADER = ("case", "variant", "losses", "images", "images/s", "memory", "result")

TOLERANCES = {"float32": 0.01, "bfloat16": 0.1}
"""Default of the largest accepted difference of losses, by precision."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to train a case.

    Attributes:
        devices: Names of devices, such as `GPU:0`.
        precision: float32 or bfloat16.
        xla: Whether XLA compiles the phases.
    """

    devices: tuple[str, ...]
    precision: str
    xla: bool

    @property
    def label(self) -> str:
        """Description in the table."""
        kind = self.devices[0].partition(":")[0]
        return f"{len(self.devices)} {kind}, {self.precision}{', XLA' if self.xla else ''}"


REFERENCES = {xla: Variant(("CPU:0",), "float32", xla=xla) for xla in (False, True)}
"""Variants that the others are compared with, by their use of XLA."""


def device_names() -> list[str]:
    """Returns the names of the GPUs, or of the CPU's devices if there are none."""
    import tensorflow as tf

    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [f"{kind}:{index}" for index in range(len(tf.config.list_logical_devices(kind)))]


def variants(names: Sequence[str]) -> list[Variant]:
    """Returns the variants to check on these devices: each form on the first, and the plain ones on all of them."""
    forms = [(precision, xla) for precision in TOLERANCES for xla in (False, True)]
    alone = [Variant((names[0],), precision, xla) for precision, xla in forms]
    together = [Variant(tuple(names), precision, xla=False) for precision in TOLERANCES] if len(names) > 1 else []
    return [variant for variant in (*alone, *together) if variant not in REFERENCES.values()]


def measure(case: Case, variant: Variant, seconds: float) -> dict[str, Any]:
    """Trains a case in one variant.

    Returns:
        `losses` of the first step by name, `images` of the initial generator (uint8 [50, H, W, C]), `images_per_sec`
        (None if `seconds` is 0) and `memory_mib`.
    """
    import tensorflow as tf

    from trainer import models
    from trainer.training.distributed.strategy import create_mirrored

    tf.config.experimental.enable_op_determinism()
    on_gpus = [name for name in variant.devices if name.startswith("GPU")]
    for name in on_gpus:
        tf.config.experimental.reset_memory_stats(name)
    is_alone = len(variant.devices) == 1
    strategy = (
        tf.distribute.OneDeviceStrategy(variant.devices[0]) if is_alone else create_mirrored(list(variant.devices))
    )
    config = case.config.override(precision=variant.precision, jit_compile="on" if variant.xla else "off")
    gan = models.from_config(config, case.image_shape, case.num_classes, strategy)
    labels = case.labels if case.num_classes else None

    def fit(steps: int) -> dict[str, list[float]]:
        history = gan.fit(
            case.images,
            labels,
            batch_size=case.batch_size,
            steps=gan.step + steps,
            steps_per_execution=config.steps_per_execution,
            verbose=0,
        )
        return history.history

    with tf.device(variant.devices[0]) if is_alone else contextlib.nullcontext():
        images, _ = gan.sample(_NUM_IMAGES)
        first = fit(1)
        speed = _images_per_sec(fit, case.batch_size, config.steps_per_execution, seconds) if seconds else None
    losses = {name: float(values[-1]) for name, values in first.items() if name.startswith("loss")}
    peaks = [tf.config.experimental.get_memory_info(name)["peak"] for name in on_gpus]
    memory = max(peaks) if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"losses": losses, "images": images, "images_per_sec": speed, "memory_mib": memory / 2**20}


def _images_per_sec(fit: Any, batch_size: int, num_steps: int, seconds: float) -> float:
    fit(max(_WARM_UP_STEPS, num_steps))
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        fit(num_steps)
        count += num_steps
        num_steps *= 2  # so that the cost of a call of `fit` becomes small
    return count * batch_size / (time.perf_counter() - started)


def compare(measured: dict[str, Any], reference: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """Returns the differences of a measurement from that of the CPU, and whether they are small enough."""
    import numpy as np

    losses = [
        abs(value - reference["losses"][name]) / max(abs(reference["losses"][name]), 1e-3)
        for name, value in measured["losses"].items()
    ]
    images = float(np.abs(measured["images"].astype(int) - reference["images"]).mean())
    difference = max(losses)
    is_equal = difference <= tolerance and images <= _IMAGE_TOLERANCE
    return {"loss_difference": difference, "image_difference": images, "is_equal": is_equal}


def check_case(
    name: str, case: Case, forms: Sequence[Variant], seconds: float, tolerances: Mapping[str, float] = TOLERANCES
) -> Iterator[dict[str, Any]]:
    """Yields a row per variant: its differences, speed and memory, or its `error`.

    Args:
        name: Name of the case.
        case: Case.
        forms: Variants to check besides `REFERENCES`.
        seconds: Time to measure each variant.
        tolerances: Largest accepted difference of losses, by precision.
    """
    import tensorflow as tf

    references = {}
    for xla, variant in REFERENCES.items():
        is_measured = all(name.startswith("CPU") for form in forms for name in form.devices)
        references[xla] = measure(case, variant, seconds if is_measured else 0.0)
        tolerance = tolerances[variant.precision]
        yield _row(name, variant, references[xla] | compare(references[xla], references[xla], tolerance))
    for variant in forms:
        gc.collect()  # the variables of the last variant
        try:
            measured = measure(case, variant, seconds)
        except (tf.errors.OpError, TrainerError, ValueError) as error:
            line = next(iter(str(error).strip().splitlines()), "")
            yield _row(name, variant, {"error": f"{type(error).__name__}: {line}"[:200], "is_equal": False})
            continue
        tolerance = tolerances[variant.precision]
        yield _row(name, variant, measured | compare(measured, references[variant.xla], tolerance))


def _row(name: str, variant: Variant, values: dict[str, Any]) -> dict[str, Any]:
    facts = {key: value for key, value in values.items() if key != "images"}
    return {"case": name, "variant": variant.label} | facts


def measure_torch(name: str, case: Case, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields a row per form of the case in PyTorch, with its speed."""
    with tempfile.TemporaryDirectory() as folder:
        case.save(Path(folder))
        worker = Worker("torch", Path(folder), case.batch_size, list(TOLERANCES), seconds)
        worker.take_turn([])
        for label, speed in worker.trials.items():
            yield {"case": name, "variant": f"torch, {label}", "images_per_sec": speed}
        worker.close()


def render(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of the table."""

    def cell(row: dict[str, Any], key: str, unit: str = "") -> str:
        return f"{number(row[key])}{unit}" if row.get(key) is not None else MISSING

    return table(
        _HEADER,
        [
            (
                row["case"],
                row["variant"],
                cell(row, "loss_difference"),
                cell(row, "image_difference"),
                cell(row, "images_per_sec"),
                cell(row, "memory_mib", " MiB"),
                row.get("error") or {True: "equal", False: "DIFFERENT", None: MISSING}[row.get("is_equal")],
            )
            for row in rows
        ],
    )


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_list(
        "cases",
        ["photos", "r3gan", "dcgan_paper", "cgan"],
        f"Cases to check, from {', '.join(cases.CASES)}.",
        flag_values=values,
    )
    absl_flags.DEFINE_float("seconds", 10.0, "Time to measure each variant.", lower_bound=0.0, flag_values=values)
    absl_flags.DEFINE_bool("peers", True, "Also measure PyTorch if it is installed.", flag_values=values)
    absl_flags.DEFINE_string("json", None, "JSON file for the results, local or gs://.", flag_values=values)
    for precision, tolerance in TOLERANCES.items():
        help_text = f"Largest accepted difference of losses in {precision}."
        absl_flags.DEFINE_float(f"tolerance_{precision}", tolerance, help_text, flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Checks every case, prints the table, and writes the file."""
    for name in values.cases:
        check_known("case", name, cases.CASES)
    tolerances = {precision: getattr(values, f"tolerance_{precision}") for precision in TOLERANCES}
    facts, forms = machine_facts() | gpu_facts(), variants(device_names())
    print(json.dumps(facts), flush=True)
    rows: list[dict[str, Any]] = []
    for name in values.cases:
        case = cases.get(name)
        for row in check_case(name, case, forms, values.seconds, tolerances):
            print(json.dumps({key: value for key, value in row.items() if key != "losses"}), flush=True)
            rows.append(row)
        if values.peers and is_installed("torch"):
            rows += measure_torch(name, case, values.seconds)
    print("\n".join(["", *render(rows)]))
    if values.json:
        locate(values.json).write_bytes(f"{json.dumps({'machine': facts, 'rows': rows}, indent=1)}\n".encode())
    different = [f"{row['case']} ({row['variant']})" for row in rows if row.get("is_equal") is False]
    if different:
        raise TrainerError(f"{', '.join(different)} failed or differs from the CPU; see the table.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
