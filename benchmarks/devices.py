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

from absl import app, flags

from benchmarks import device_table

_UTILIZATION = 0.15
_NUM_IMAGES = 50_000
_WARM_UP_STEPS, _MIN_SECONDS = 3, 10.0
_BYTES = {"float32": 4, "bfloat16": 2}

_SIZES = flags.DEFINE_list("sizes", ["small"], "Sizes of the recipe photos.")
_SIDES = flags.DEFINE_list("sides", ["32", "64"], "Sides of the images.")
_PRECISION = flags.DEFINE_enum("device_precision", "bfloat16", list(_BYTES), "Precision of the networks.")
_ESTIMATE = flags.DEFINE_string("estimate", None, "NAME=TFLOPS of another device; None to measure this one.")
_RECORDS = flags.DEFINE_string("device_records", str(device_table.RECORDS), "Folder of the files to write.")


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
    from benchmarks.ours import Engine
    from benchmarks.recipe_records import machine

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
    facts = machine()
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


def _write(size: str, side: int) -> None:
    """Writes the file of one size and resolution, and prints its path."""
    if _ESTIMATE.value is None:
        facts = measure(size, side, _PRECISION.value)
    else:
        device, _, peak = _ESTIMATE.value.rpartition("=")
        facts = estimate(size, side, _PRECISION.value, device, float(peak))
    name = re.sub(r"\W+", "-", f"{facts['device']} {size} {side:04}").lower()
    path = Path(_RECORDS.value) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{path}: {facts['images_per_sec']:,.0f} images/s, {facts['memory_mib']:,.0f} MiB", flush=True)


def main(argv: list[str]) -> None:
    """Measures or estimates every size and resolution."""
    del argv
    if _ESTIMATE.value is not None and not re.fullmatch(r".+=\d+(\.\d+)?", _ESTIMATE.value):
        raise app.UsageError(f"estimate={_ESTIMATE.value} has another form; write NAME=TFLOPS, such as 'L4=121'.")
    pairs = [(size, int(side)) for size in _SIZES.value for side in _SIDES.value]
    if len(pairs) == 1:
        return _write(*pairs[0])
    failed = 0
    for size, side in pairs:
        options = [argument for argument in sys.argv[1:] if not argument.startswith(("--sizes=", "--sides="))]
        command = [sys.executable, "-m", "benchmarks.devices", *options, f"--sizes={size}", f"--sides={side}"]
        failed += subprocess.run(command, check=False).returncode != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
