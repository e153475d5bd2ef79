"""How fast pictures become a data set, how fast shards arrive, and what a set larger than memory costs a run.

    python -m benchmarks.data                                  all of it, about 15 minutes on two cores
    python -m benchmarks.data --only=prepare --images=2000     one part, smaller

- `prepare`: images/s of the preparation, processes started included, over those of a loop of Pillow in one process that
  decodes, resizes and encodes the same files. In turn; the median of the ratios.
- `fetch`: shards from a Cloud Storage server on this machine into an empty cache, checksums compared, over
  google-cloud-storage's own `transfer_manager` with as many threads. In turn; the median of the ratios.
- `stream`: a run on 100,000 images of 64×64×3 with `--data_memory_mib=256`. Its images/s over those of the same run on
  few images that stay in memory, in turn; and by how much its peak of memory exceeds that of the run on few.
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
_ONLY = flags.DEFINE_list("only", list(_PARTS), f"Which of {', '.join(_PARTS)}.")
_IMAGES = flags.DEFINE_integer("images", 6000, "Pictures of `prepare`.", lower_bound=100)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each in `prepare` and `fetch`.", lower_bound=1)
_SHARDS = flags.DEFINE_integer("shards", 32, "Of `fetch`, 16 MiB each.", lower_bound=1)
_STREAMED = flags.DEFINE_integer("streamed", 100_000, "Images of `stream`.", lower_bound=1000)
_STEPS = flags.DEFINE_integer("steps", 1500, "Of a run of `stream`, 64 images each.", lower_bound=200)
_STREAM_ROUNDS = flags.DEFINE_integer("stream_rounds", 2, "Turns of each in `stream`.", lower_bound=1)

_SIZE = 64
_MIB = 2**20


def seconds(act: Callable[[], object]) -> float:
    """How long an act takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def median_ratio(ours: list[float], theirs: list[float]) -> str:
    """Of each pair of seconds, theirs over ours: the median, and all of them."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


def picture(number: int, size: int) -> Image.Image:
    """A picture that compresses like a photograph: soft colors with some grain."""
    rng = np.random.default_rng(number)
    soft = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.integers(-6, 7, (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(soft).astype(np.int16) + grain, 0, 255).astype(np.uint8))


def pillow_loop(files: list[Path]) -> None:
    """What a script would do."""
    for file in files:
        with Image.open(file) as opened:
            resized = ImageOps.fit(opened.convert("RGB"), (_SIZE, _SIZE), Image.Resampling.LANCZOS)
        resized.save(io.BytesIO(), "PNG")


def measure_prepare(folder: Path) -> None:
    """Prints the line of each kind of file."""
    from trainer.data.prepare.convert import Options, plan, prepare
    from trainer.data.prepare.sources import opened
    from trainer.storage import locate

    options = Options(image_size=(_SIZE, _SIZE))
    about = dict.fromkeys(("name", "source", "license", "attribution"), "benchmark")

    def ours(pictures: Path) -> None:
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        with opened(str(pictures)) as source:
            prepare(source, plan(source, options), options, locate(out), about, lambda tally: None)

    for ending in ("jpg", "png"):
        pictures = folder / ending
        pictures.mkdir()
        files = [pictures / f"{number}.{ending}" for number in range(_IMAGES.value)]
        for number, file in enumerate(files):
            picture(number, 256).save(file, quality=90)  # which PNG does not have
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
    """Prints the line of shards from a server on this machine."""
    from google.cloud.storage import transfer_manager

    from tests.buckets import new_bucket, server
    from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec
    from trainer.data.shard_cache import ShardCache
    from trainer.data.tfrecord_writer import described
    from trainer.storage import locate
    from trainer.storage.gcs import NUM_THREADS, client

    names = [f"images-{number:05d}.tfrecord" for number in range(_SHARDS.value)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(random.Random(number).randbytes(16 * _MIB))
    shards = tuple(described(folder / name, 1) for name in names)
    manifest = DatasetSpec(
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
    (folder / SPEC_NAME).write_text(manifest.to_json())
    with server(folder):
        bucket = new_bucket()
        locate(bucket).upload(folder, [*names, SPEC_NAME])

        def ours() -> None:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            ShardCache(locate(bucket), folder / "cache").paths(shards)

        def bare() -> None:
            shutil.rmtree(folder / "bare", ignore_errors=True)
            (folder / "bare").mkdir()
            results = transfer_manager.download_many_to_path(
                client().bucket(bucket[5:]),
                names,
                destination_directory=str(folder / "bare"),
                worker_type=transfer_manager.THREAD,
                max_workers=NUM_THREADS,
            )
            if any(results):
                raise RuntimeError(f"transfer_manager failed: {results}")

        own, other = [], []
        for _ in range(_ROUNDS.value):
            own.append(seconds(ours))
            other.append(seconds(bare))
    mib = 16 * len(names)
    print(
        f"fetch, {len(names)} shards of 16 MiB: {mib / statistics.median(own):,.0f} MiB/s, transfer_manager "
        f"{mib / statistics.median(other):,.0f}; ratio {median_ratio(own, other)}",
        flush=True,
    )


def write_set(folder: Path, num_images: int, num_shards: int) -> None:
    """A prepared set of pictures."""
    from trainer.data.tfrecord_reader import write_prepared

    some = np.stack([np.asarray(picture(number, _SIZE)) for number in range(1000)])
    images = np.concatenate([np.roll(some, shift, axis=2) for shift in range(-(-num_images // len(some)))])[:num_images]
    labels = np.zeros(num_images, np.int32)
    write_prepared(
        folder, images, labels, ["0"], name="images", source="", license="", attribution="", num_shards=num_shards
    )


def run(dataset: Path, job_dir: Path) -> tuple[float, float, str]:
    """Trains; images/s of all steps but the first ones, peak of memory in MiB, and what was said."""
    command = [sys.executable, "-m", "trainer.task", "--recipe=dcgan", f"--dataset={dataset}", f"--job_dir={job_dir}"]
    networks = (
        '{"generator_filters": [32, 16, 8], "generator_strides": [2, 2, 2], "discriminator_filters": [8, 16, 32]}'
    )
    few = ("--sample_every_steps=0", "--checkpoint_every_steps=0", "--steps_per_execution=10", "--metrics=none")
    more = (f"--architecture_options={networks}", "--global_batch_size=64", f"--steps={_STEPS.value}", *few)
    with subprocess.Popen(
        [*command, *more, "--data_memory_mib=256"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(said)
    lines = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    timed = [line for line in lines if line["step"] >= 100]
    took = timed[-1]["time"] - timed[0]["time"]
    return 64 * (timed[-1]["step"] - timed[0]["step"]) / took, usage.ru_maxrss / 1024, said


def measure_stream(folder: Path) -> None:
    """Prints the lines of a set larger than memory."""
    subprocess.run(  # in a process of its own, so that its memory is not this one's
        [sys.executable, "-m", "benchmarks.data", f"--write_sets={folder}", f"--streamed={_STREAMED.value}"], check=True
    )
    speeds: dict[str, list[float]] = {"few": [], "many": []}
    peaks: dict[str, list[float]] = {"few": [], "many": []}
    for turn in range(_STREAM_ROUNDS.value):
        for name in speeds:
            speed, peak, said = run(folder / name, folder / f"run-{name}-{turn}")
            speeds[name].append(speed)
            peaks[name].append(peak)
            print(f"  {name}: {speed:,.0f} images/s, {peak:,.0f} MiB {re.findall('[0-9]+ windows', said)}", flush=True)
    ratios = [many / few for few, many in zip(speeds["few"], speeds["many"], strict=True)]
    print(
        f"stream, {_STREAMED.value:,} images of {_SIZE}×{_SIZE}×3 in 256 MiB: "
        f"{statistics.median(speeds['many']):,.0f} images/s, on few images {statistics.median(speeds['few']):,.0f}; "
        f"ratio {statistics.median(ratios):.3f}; peak of memory {max(peaks['many']) - min(peaks['few']):+,.0f} MiB",
        flush=True,
    )


_WRITE_SETS = flags.DEFINE_string("write_sets", None, "Write the sets of `stream` to this folder, and do nothing else.")


def main(argv: list[str]) -> None:
    """Measures the parts that the flags name."""
    del argv
    if _WRITE_SETS.value:
        write_set(Path(_WRITE_SETS.value, "few"), 256, 1)
        write_set(Path(_WRITE_SETS.value, "many"), _STREAMED.value, 40)
        return
    measures = {"prepare": measure_prepare, "fetch": measure_fetch, "stream": measure_stream}
    unknown = set(_ONLY.value) - set(measures)
    if unknown:
        raise app.UsageError(f"{unknown.pop()} is unknown; parts: {', '.join(measures)}.")
    for name in _ONLY.value:
        with tempfile.TemporaryDirectory(prefix="gan-trainer-") as folder:
            measures[name](Path(folder))


if __name__ == "__main__":
    app.run(main)
