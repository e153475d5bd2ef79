"""Measures the download of shards, and training on datasets larger than memory.

    python -m benchmarks.data                     both parts, about 10 minutes on two cores
    python -m benchmarks.data --only=fetch        one part

All ratios are medians over pairs of measurements in turn. `benchmarks/prepare.py` measures how datasets are prepared.

- `fetch`: download of shards from a Cloud Storage server on this machine into an empty cache, with comparison of
  checksums, over google-cloud-storage's own `transfer_manager` with the same number of threads.
- `stream`: training on 100,000 images of 64×64×3 with `--data_memory_mib=256`, over training on few images that stay in
  memory; and the difference of their peak memory.
"""

import functools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import flags as absl_flags

from benchmarks.data_parts import measure_parts, median_ratio, picture, seconds
from trainer.cli import app

_SIZE = 64
_MIB = 2**20


def measure_fetch(folder: Path, num_shards: int, num_rounds: int) -> None:
    """Measures the download of shards, 16 MiB each, and prints one line. A round is a pair of measurements."""
    from google.cloud.storage import transfer_manager

    from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec
    from trainer.data.shard_cache import ShardCache
    from trainer.data.tfrecord_writer import describe_shard
    from trainer.storage import locate
    from trainer.storage.gcs import client
    from trainer.storage.parallel import NUM_THREADS
    from trainer.testing.bucket_server import bucket_server, new_bucket

    names = [f"images-{number:05d}.tfrecord" for number in range(num_shards)]
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
        for _ in range(num_rounds):
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


def run(dataset: Path, job_dir: Path, num_steps: int) -> tuple[float, float, str]:
    """Trains on a prepared set, 64 images per step.

    Returns:
        Images per second without the first steps, peak memory in MiB, and the output of the command.
    """
    command = [sys.executable, "-m", "trainer.task", "--recipe=dcgan", f"--dataset={dataset}", f"--job_dir={job_dir}"]
    networks = (
        '{"generator_filters": [32, 16, 8], "generator_strides": [2, 2, 2], "discriminator_filters": [8, 16, 32]}'
    )
    common = ("--sample_every_steps=0", "--checkpoint_every_steps=0", "--steps_per_execution=10", "--metrics=none")
    more = (f"--architecture_options={networks}", "--global_batch_size=64", f"--steps={num_steps}", *common)
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


def measure_stream(folder: Path, num_images: int, num_steps: int, num_rounds: int) -> None:
    """Measures training on a set larger than memory and prints one line per run and the comparison.

    Args:
        folder: Folder for all files.
        num_images: Number of images of the larger set.
        num_steps: Number of steps of a run.
        num_rounds: Number of pairs of runs.
    """
    subprocess.run(  # in another process, because this one's peak memory would limit the comparison
        [sys.executable, "-m", "benchmarks.data", f"--write_sets={folder}", f"--streamed={num_images}"], check=True
    )
    speeds: dict[str, list[float]] = {"few": [], "many": []}
    peaks: dict[str, list[float]] = {"few": [], "many": []}
    for turn in range(num_rounds):
        for name in speeds:
            speed, peak, output = run(folder / name, folder / f"run-{name}-{turn}", num_steps)
            speeds[name].append(speed)
            peaks[name].append(peak)
            print(f"  {name}: {speed:,.0f} images/s, {peak:,.0f} MiB {re.findall('[0-9]+ chunks', output)}", flush=True)
    ratios = [many / few for few, many in zip(speeds["few"], speeds["many"], strict=True)]
    print(
        f"stream, {num_images:,} images of {_SIZE}×{_SIZE}×3 in 256 MiB: "
        f"{statistics.median(speeds['many']):,.0f} images/s, on few images {statistics.median(speeds['few']):,.0f}; "
        f"ratio {statistics.median(ratios):.3f}; peak memory {max(peaks['many']) - min(peaks['few']):+,.0f} MiB",
        flush=True,
    )


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    integer = functools.partial(absl_flags.DEFINE_integer, flag_values=values)
    absl_flags.DEFINE_list("only", ["fetch", "stream"], "Parts to measure: fetch, stream.", flag_values=values)
    integer("rounds", 5, "Number of pairs of measurements in `fetch`.", lower_bound=1)
    integer("shards", 32, "Number of shards for `fetch`, 16 MiB each.", lower_bound=1)
    integer("streamed", 100_000, "Number of images for `stream`.", lower_bound=1000)
    integer("steps", 1500, "Number of steps of a run of `stream`, 64 images each.", lower_bound=200)
    integer("stream_rounds", 2, "Number of pairs of measurements in `stream`.", lower_bound=1)
    absl_flags.DEFINE_string(
        "write_sets", None, "Write the sets of `stream` to this folder and exit.", flag_values=values
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Measures the requested parts."""
    if values.write_sets:
        write_set(Path(values.write_sets, "few"), 256, 1)
        write_set(Path(values.write_sets, "many"), values.streamed, 40)
        return
    parts = {
        "fetch": lambda folder: measure_fetch(folder, values.shards, values.rounds),
        "stream": lambda folder: measure_stream(folder, values.streamed, values.steps, values.stream_rounds),
    }
    measure_parts(parts, values.only)


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
