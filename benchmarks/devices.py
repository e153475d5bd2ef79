"""Time and memory of the recipe `photos` on this device, and on devices that are not here.

    python -m benchmarks.devices --sizes=small --sides=32,64,128              a few steps of each on this device
    python -m benchmarks.devices --sizes=medium,large --sides=64,256 --estimate="NVIDIA L4, 24 GiB=121"

A measurement trains random images without augmentation, and reads the largest memory: of the process on a CPU, of
TensorFlow's allocator on a GPU. An estimate is a formula, with the peak TFLOP/s of the device in its precision:

    images/s = 0.15 * peak / operations per image
    memory   = 16 bytes * weights + 4 bytes * weights of the EMA + 4 * bytes * values of all layers for a batch

`operations per image` are those of the convolutions and matrix products of a step; see `products.py`. A share of 0.15
of the peak is an assumption, not a measurement: expect an error of a factor of two. 16 bytes are a weight, its gradient
and two moments. The factor 4 is for the layers' outputs of real and fake images, and for those of the penalties.

Every size and resolution leaves a file in `benchmarks/results/devices`, which `python -m benchmarks.recipes --table`
reads. Each runs in its own process.
"""

import json
import math
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from benchmarks import device_table
from trainer.cli import app
from trainer.errors import ConfigError, TrainerError

_UTILIZATION = 0.15
_NUM_IMAGES = 50_000
_WARM_UP_STEPS, _MIN_SECONDS = 3, 10.0
_BYTES = {"float32": 4, "bfloat16": 2}


def config_of(size: str, side: int, has_gpu: bool) -> Any:
    """Returns the config of the recipe `photos` for 50,000 images."""
    from trainer.config import recipes

    context = recipes.RecipeContext(image_shape=(side, side, 3), num_images=_NUM_IMAGES, has_gpu=has_gpu, size=size)
    return recipes.get("photos", context)


def measure(size: str, side: int, precision: str) -> dict[str, Any]:
    """Trains a few steps on this device.

    Returns:
        The facts of a file: device, size, side, batch, images, images_per_sec, memory_mib and is_measured.
    """
    import tensorflow as tf

    from benchmarks.cases import from_config
    from benchmarks.machine import machine_facts
    from benchmarks.ours import Engine

    gpus = tf.config.list_physical_devices("GPU")
    config = config_of(size, side, bool(gpus))
    engine = Engine(from_config(config, (side, side, 3)), precision)
    engine.run(_WARM_UP_STEPS)
    started, num_steps = time.perf_counter(), 0
    while time.perf_counter() - started < _MIN_SECONDS:
        engine.run(config.steps_per_execution)
        num_steps += config.steps_per_execution
    speed = num_steps * config.global_batch_size / (time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = machine_facts()
    device = f"{facts['cpu']}, {facts['cores']} cores"
    if gpus:
        memory = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return _facts(config, device, size, side, speed, memory / 2**20, is_measured=True)


def estimate(size: str, side: int, precision: str, device: str, tera_operations: float) -> dict[str, Any]:
    """Estimates the facts that `measure` returns, for another device."""
    from benchmarks import products
    from trainer import models

    config = config_of(size, side, has_gpu=True)
    gan = models.from_config(config.override(precision=precision), (side, side, 3), 0)
    operations, num_values = 0.0, 0
    for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator)):
        for depth, layer in enumerate(products.product_layers(network)):
            count = sum(products.counts(config, name, first=depth == 0))
            operations += count * 2 * layer.kernel.shape.num_elements() * _num_positions(layer)
        num_values += sum(math.prod(layer.output.shape[1:]) for layer in network.layers)
    weights = gan.generator.count_params(), gan.discriminator.count_params()
    memory = 16 * sum(weights) + 4 * weights[0] + 4 * _BYTES[precision] * num_values * config.global_batch_size
    speed = _UTILIZATION * tera_operations * 1e12 / operations
    return _facts(config, device, size, side, speed, memory / 2**20, is_measured=False)


def _num_positions(layer: Any) -> int:
    """Returns how often a layer's kernel is applied to an image: once per pixel of its output, once if dense."""
    return math.prod(layer.output.shape[1:-1])


def _facts(
    config: Any, device: str, size: str, side: int, speed: float, memory_mib: float, *, is_measured: bool
) -> dict[str, Any]:
    batch = config.global_batch_size
    return {
        "device": device,
        "size": size,
        "side": side,
        "batch": batch,
        "images": config.resolve(_NUM_IMAGES).steps * batch,
        "images_per_sec": speed,
        "memory_mib": memory_mib,
        "is_measured": is_measured,
    }


def _write(size: str, side: int, values: absl_flags.FlagValues) -> None:
    """Writes the file of one size and resolution, and prints its path."""
    if values.estimate is None:
        facts = measure(size, side, values.precision)
    else:
        device, _, peak = values.estimate.rpartition("=")
        facts = estimate(size, side, values.precision, device, float(peak))
    name = re.sub(r"\W+", "-", f"{facts['device']} {size} {side:04}").lower()
    path = Path(values.records) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{path}: {facts['images_per_sec']:,.0f} images/s, {facts['memory_mib']:,.0f} MiB", flush=True)


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_list("sizes", ["small"], "Sizes of the recipe photos.", flag_values=values)
    absl_flags.DEFINE_list("sides", ["32", "64"], "Sides of the images.", flag_values=values)
    absl_flags.DEFINE_enum("precision", "bfloat16", list(_BYTES), "Precision of the networks.", flag_values=values)
    absl_flags.DEFINE_string(
        "estimate", None, "NAME=TFLOPS of another device; None to measure this one.", flag_values=values
    )
    absl_flags.DEFINE_string("records", str(device_table.RECORDS), "Folder of the files to write.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Measures or estimates every size and resolution, several of them in processes of their own."""
    if values.estimate is not None and not re.fullmatch(r".+=\d+(\.\d+)?", values.estimate):
        raise ConfigError(f"estimate={values.estimate} has another form; write NAME=TFLOPS, such as 'L4=121'.")
    for side in values.sides:
        if not re.fullmatch("[1-9][0-9]{0,4}", side):
            raise ConfigError(f"sides={side} is not a number of pixels; write numbers, such as --sides=32,64.")
    pairs = [(size, int(side)) for size in values.sizes for side in values.sides]
    if len(pairs) == 1:
        return _write(*pairs[0], values)
    failed = []
    options = [f"--precision={values.precision}", f"--records={values.records}"]
    options += [] if values.estimate is None else [f"--estimate={values.estimate}"]
    for size, side in pairs:
        command = [sys.executable, "-m", "benchmarks.devices", *options, f"--sizes={size}", f"--sides={side}"]
        if subprocess.run(command, check=False).returncode:
            failed.append(f"{size} at {side}")
    if failed:
        raise TrainerError(f"{', '.join(failed)} failed; see the messages above.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
