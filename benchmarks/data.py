"""Measures the preparation of data sets, the download of shards, and training on sets larger than memory.

    python -m benchmarks.data                                  all parts, about 15 minutes on two cores
    python -m benchmarks.data --only=prepare --images=2000     one part with fewer images

All ratios are medians over pairs of measurements in turn.

- `prepare`: speed of `prepare`, including the start of its processes, over that of a loop of Pillow in one process that
  decodes, resizes and encodes the same files.
- `fetch`: download of shards from a Cloud Storage server on this machine into an empty cache, with comparison of
  checksums, over google-cloud-storage's own `transfer_manager` with the same number of threads.
- `stream`: training on 100,000 images of 64×64×3 with `--data_memory_mib=256`, over training on few images that stay in
  memory; and the difference of their peak memory.
"""

import functools
import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags
from PIL import Image, ImageOps

_PARTS = ("prepare", "fetch", "stream")
_ONLY = flags.DEFINE_list("only", list(_PARTS), f"Parts to measure, from {', '.join(_PARTS)}.")
_IMAGES = flags.DEFINE_integer("images", 6000, "Number of pictures for `prepare`.", lower_bound=100)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of pairs of measurements in `prepare` and `fetch`.", lower_bound=1)
_SHARDS = flags.DEFINE_integer("shards", 32, "Number of shards for `fetch`, 16 MiB each.", lower_bound=1)
_STREAMED = flags.DEFINE_integer("streamed", 100_000, "Number of images for `stream`.", lower_bound=1000)
_STEPS = flags.DEFINE_integer("steps", 1500, "Number of steps of a run of `stream`, 64 images each.", lower_bound=200)
_STREAM_ROUNDS = flags.DEFINE_integer("stream_rounds", 2, "Number of pairs of measurements in `stream`.", lower_bound=1)

_SIZE = 64
_MIB = 2**20


def seconds(function: Callable[[], object]) -> float:
    """Returns the duration of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def median_ratio(ours: list[float], theirs: list[float]) -> str:
    """Formats the ratios of durations, theirs over ours: the median, then all of them."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


def picture(number: int, size: int) -> Image.Image:
    """Returns a picture that compresses like a photograph: soft colors with some grain."""
    rng = np.random.default_rng(number)
    soft = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.integers(-6, 7, (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(soft).astype(np.int16) + grain, 0, 255).astype(np.uint8))


def pillow_loop(files: list[Path]) -> None:
    """Decodes, resizes and encodes files as a simple script does."""
    for file in files:
        with Image.open(file) as opened:
            resized = ImageOps.fit(opened.convert("RGB"), (_SIZE, _SIZE), Image.Resampling.LANCZOS)
        resized.save(io.BytesIO(), "PNG")


def measure_prepare(folder: Path) -> None:
    """Measures `prepare` and prints one line per file format."""
    from trainer.data.prepare.convert import ConversionOptions, convert, plan_conversion
    from trainer.data.prepare.sources import open_source
    from trainer.storage import locate

    options = ConversionOptions(image_size=(_SIZE, _SIZE))
    about = dict.fromkeys(("name", "source", "license", "attribution"), "benchmark")

    def ours(pictures: Path) -> None:
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        with open_source(str(pictures)) as source:
            convert(source, plan_conversion(source, options), options, locate(out), about, lambda progress: None)

    for ending in ("jpg", "png"):
        pictures = folder / ending
        pictures.mkdir()
        files = [pictures / f"{number}.{ending}" for number in range(_IMAGES.value)]
        for number, file in enumerate(files):
            picture(number, 256).save(file, quality=90)  # PNG ignores the quality
        own, loop = [], []
        for _ in range(_ROUNDS.value):
            own.append(seconds(functools.partial(ours, pictures)))
            loop.append(seconds(functools.partial(pillow_loop, files)))
        print(
            f"prepare, {ending} of 256×256 to {_SIZE}×{_SIZE}: {len(files) / statistics.median(own):,.0f} images/s, "
            f"Pillow in one process {len(files) / statistics.median(loop):,.0f}; ratio {median_ratio(own, loop)}",
            flush=True,
        )


def measure_fetch(folder: Path) -> None:
    """Measures the download of shards and prints one line."""
    from google.cloud.storage import transfer_manager

    from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec
    from trainer.data.shard_cache import ShardCache
    from trainer.data.tfrecord_writer import describe_shard
    from trainer.storage import locate
    from trainer.storage.gcs import NUM_THREADS, client
    from trainer.testing.bucket_server import bucket_server, new_bucket

    names = [f"images-{number:05d}.tfrecord" for number in range(_SHARDS.value)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(random.Random(number).randbytes(16 * _MIB))
    shards = tuple(describe_shard(folder / name, 1) for name in names)
    spec = DatasetSpec(
        name="benchmark",
        image_shape=(1, 1, 1),
        num_examples=len(shards),
        class_names=("0",),
        class_counts=(len(shards),),
        shards=shards,
        source="",
        license="",
        attribution="",
    )
    (folder / SPEC_NAME).write_text(spec.to_json())
    with bucket_server(folder):
        bucket = new_bucket()
        locate(bucket).upload(folder, [*names, SPEC_NAME])

        def ours() -> None:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            ShardCache(locate(bucket), folder / "cache").fetch(shards)

        def theirs() -> None:
            shutil.rmtree(folder / "theirs", ignore_errors=True)
            (folder / "theirs").mkdir()
            results = transfer_manager.download_many_to_path(
                client().bucket(bucket[5:]),
                names,
                destination_directory=str(folder / "theirs"),
                worker_type=transfer_manager.THREAD,
                max_workers=NUM_THREADS,
            )
            if any(results):
                raise RuntimeError(f"transfer_manager failed: {results}")

        own, other = [], []
        for _ in range(_ROUNDS.value):
            own.append(seconds(ours))
            other.append(seconds(theirs))
    mib = 16 * len(names)
    print(
        f"fetch, {len(names)} shards of 16 MiB: {mib / statistics.median(own):,.0f} MiB/s, transfer_manager "
        f"{mib / statistics.median(other):,.0f}; ratio {median_ratio(own, other)}",
        flush=True,
    )


def write_set(folder: Path, num_images: int, num_shards: int) -> None:
    """Writes a prepared set of pictures."""
    from trainer.data.tfrecord_writer import write_prepared

    originals = np.stack([np.asarray(picture(number, _SIZE)) for number in range(1000)])
    images = np.concatenate([np.roll(originals, shift, axis=2) for shift in range(-(-num_images // len(originals)))])[
        :num_images
    ]
    labels = np.zeros(num_images, np.int32)
    write_prepared(
        folder, images, labels, ["0"], name="images", source="", license="", attribution="", num_shards=num_shards
    )


def run(dataset: Path, job_dir: Path) -> tuple[float, float, str]:
    """Trains on a prepared set.

    Returns:
        Images per second without the first steps, peak memory in MiB, and the output of the command.
    """
    command = [sys.executable, "-m", "trainer.task", "--recipe=dcgan", f"--dataset={dataset}", f"--job_dir={job_dir}"]
    networks = (
        '{"generator_filters": [32, 16, 8], "generator_strides": [2, 2, 2], "discriminator_filters": [8, 16, 32]}'
    )
    common = ("--sample_every_steps=0", "--checkpoint_every_steps=0", "--steps_per_execution=10", "--metrics=none")
    more = (f"--architecture_options={networks}", "--global_batch_size=64", f"--steps={_STEPS.value}", *common)
    with subprocess.Popen(
        [*command, *more, "--data_memory_mib=256"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(output)
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    timed = [line for line in lines if line["step"] >= 100]
    duration = timed[-1]["time"] - timed[0]["time"]
    return 64 * (timed[-1]["step"] - timed[0]["step"]) / duration, usage.ru_maxrss / 1024, output


def measure_stream(folder: Path) -> None:
    """Measures training on a set larger than memory and prints one line per run and the comparison."""
    subprocess.run(  # in another process, because this one's peak memory would limit the comparison
        [sys.executable, "-m", "benchmarks.data", f"--write_sets={folder}", f"--streamed={_STREAMED.value}"], check=True
    )
    speeds: dict[str, list[float]] = {"few": [], "many": []}
    peaks: dict[str, list[float]] = {"few": [], "many": []}
    for turn in range(_STREAM_ROUNDS.value):
        for name in speeds:
            speed, peak, output = run(folder / name, folder / f"run-{name}-{turn}")
            speeds[name].append(speed)
            peaks[name].append(peak)
            print(f"  {name}: {speed:,.0f} images/s, {peak:,.0f} MiB {re.findall('[0-9]+ chunks', output)}", flush=True)
    ratios = [many / few for few, many in zip(speeds["few"], speeds["many"], strict=True)]
    print(
        f"stream, {_STREAMED.value:,} images of {_SIZE}×{_SIZE}×3 in 256 MiB: "
        f"{statistics.median(speeds['many']):,.0f} images/s, on few images {statistics.median(speeds['few']):,.0f}; "
        f"ratio {statistics.median(ratios):.3f}; peak memory {max(peaks['many']) - min(peaks['few']):+,.0f} MiB",
        flush=True,
    )


_WRITE_SETS = flags.DEFINE_string("write_sets", None, "Write the sets of `stream` to this folder and exit.")


def main(argv: list[str]) -> None:
    """Measures the requested parts."""
    del argv
    if _WRITE_SETS.value:
        write_set(Path(_WRITE_SETS.value, "few"), 256, 1)
        write_set(Path(_WRITE_SETS.value, "many"), _STREAMED.value, 40)
        return
    measures = {"prepare": measure_prepare, "fetch": measure_fetch, "stream": measure_stream}
    unknown = set(_ONLY.value) - set(measures)
    if unknown:
        raise app.UsageError(f"unknown part: {unknown.pop()}; parts: {', '.join(measures)}.")
    for name in _ONLY.value:
        with tempfile.TemporaryDirectory(prefix="gan-trainer-") as folder:
            measures[name](Path(folder))


if __name__ == "__main__":
    app.run(main)
